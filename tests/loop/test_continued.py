"""Stateful training: what a fit continues from, and which rows judge what has come of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.linear_model import SGDClassifier

from conftest import SINCE, make_app, make_world
from lived import WHEN, live_day
from loudly.core.clock import DataClock
from loudly.loop.founding import found
from loudly.loop.live import Live
from replayed import plain_stores

TABLE = make_world(days=50)


def learn(X: Any, y: Any, *, start: Any = None) -> Any:
    """Learns from the rows on top of what `start` knows, in place, as users do."""
    model = start if start is not None else SGDClassifier(loss="log_loss", random_state=0)
    return model.partial_fit(X, y, classes=np.array([0.0, 1.0]))


def continued(days: int) -> Live:
    """A wheel whose champion was continued after so many days of labels, the newest of which were not there yet."""
    system = make_app(TABLE, stage="manual").system
    gate = replace(system.gate, margin=1.0, slice_margin=1.0)
    live = Live(replace(system, train=replace(system.train, fit=learn), gate=gate), plain_stores(), DataClock(SINCE), key=b"k")
    assert not found(live, TABLE.filter(WHEN < SINCE))
    live.retrain("first training", "none yet")
    for number in range(days):
        live_day(live, TABLE, number)
    assert live.retrain("by hand", "continue", stateful=True, offer=False) == "world/2"
    return live


def events(live: Live, kind: str, version: str) -> list[Any]:
    """What the ledger says of a version, of one kind."""
    told: list[Any] = [e.event.data for e in live.stores.ledger.read() if e.event.kind == kind]
    return [data for data in told if data.get("version") == version]


def test_each_fit_continues_from_the_champion_as_it_is() -> None:
    live = continued(days=8)
    first, second = (live.ready[version].estimator().t_ - 1 for version in ("world/1", "world/2"))  # type: ignore[attr-defined]
    assert second == first + live.retraining.reference().height


def test_what_is_continued_is_reported_on_rows_that_its_champion_has_not_learned_from() -> None:
    live = continued(days=6)
    seen, rows = live.state.fitted_at["world/1"], live.retraining.reference()
    cut = next(iter(events(live, "run_finished", "world/2")))["split"]["cut"]
    unseen = rows.filter(seen < WHEN).height
    assert live.system.gate.rows <= unseen < rows.filter(cut < WHEN).height
    with live.stores.blobs.open(next(iter(events(live, "version_registered", "world/2")))["card"]) as stream:
        assert f"on {unseen:,} held-out rows" in stream.read().decode()


def test_where_too_few_rows_are_new_to_the_champion_it_is_said_that_the_report_is_of_rows_it_has_seen() -> None:
    told = events(continued(days=3), "guarantee_weakened", "world/2")
    assert [e["what"] for e in told if "continues from the champion" in e["reason"]] == ["its expected quality"]
