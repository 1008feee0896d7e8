"""One label of 10^12 among prices: it is set aside aloud, and verdicts, months and the next fit are as if it had not come."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import Ridge

from loudly import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, instant
from loudly.loop.replay import Replayed, monthly, replay

SINCE, DAYS, PER_DAY = instant("2024-02-01"), 60, 100


def prices(odd: float | None) -> pl.DataFrame:
    """60 days of prices around 200; one of day 40 is `odd`, or missing."""
    rng, n = np.random.default_rng(0), DAYS * PER_DAY
    x, z, noise = rng.normal(size=(3, n))
    at = pl.Series(SINCE - 31 * DAY + np.arange(n) * (DAY // PER_DAY)).cast(pl.Datetime("us"))
    price = (200 + 5 * x + 4 * z + 8 * noise).tolist()
    price[40 * PER_DAY + 7] = odd
    return pl.DataFrame({"id": [f"h{i}" for i in range(n)], "at": at, "x": x, "z": z, "price": price})


def played(table: pl.DataFrame) -> Replayed:
    app = App("houses", label="price", time="at", key="id", metric="rmse")
    app.data(lambda: table)

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return Ridge().fit(X, y)

    app.labels(arrive_within="1d")
    app.rollout("canary 50% 100%", deadline="20d")
    app.retrain(growth=0.3, enough_labels=500, cooldown="7d")
    return replay(app.system, table, memory_stores("houses"), since=SINCE)


def test_an_absurd_label_is_set_aside_and_changes_nothing_else() -> None:
    absurd, without = played(prices(1e12)), played(prices(None))
    events = [[(r.event.kind, r.event.at) for r in made.events] for made in (absurd, without)]
    assert [r.event.data["strange"] for r in absurd.events if r.event.kind == "labels_unmatched"] == [{"1000000000000.0": 1}]
    assert [event for event in events[0] if event[0] != "labels_unmatched"] == events[1]
    kinds = [kind for kind, _ in events[0]]
    after = kinds[kinds.index("labels_unmatched") :]
    assert {"version_registered", "rollout_judged"} <= set(after), "something was fitted and judged after it came"
    assert monthly(absurd) == pytest.approx(monthly(without), rel=1e-3)  # an event more, and a rollout deals its arms otherwise
