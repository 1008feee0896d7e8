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


def test_each_fit_continues_from_the_champion_as_it_is() -> None:
    live = continued(days=8)
    first, second = (live.ready[version].estimator().t_ - 1 for version in ("world/1", "world/2"))  # type: ignore[attr-defined]
    assert second == first + live.retraining.reference().height
