"""The user's table becomes a dataset: in whichever order its rows stand, the same is made of it."""

from __future__ import annotations

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.core.clock import DAY, DataClock
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.train import ladder
from replayed import plain_stores

TABLE = make_world(days=31)


@pytest.mark.parametrize("table", [TABLE.sort("at", descending=True), TABLE.sort("y")], ids=["newest first", "class by class"])
def test_the_order_of_the_rows_makes_no_other_version(table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest rows are the last: of one class alone the simple rung of the ladder could not be fitted."""
    monkeypatch.setattr(ladder, "SIMPLE_ROWS", 500)
    stores, again = plain_stores(), plain_stores()
    told = []
    for rows, where in ((TABLE, stores), (table, again)):
        live = Live(make_app(TABLE, stage="manual").system, where, DataClock(SINCE + DAY), key=b"k")
        assert not found(live, rows)
        assert live.retrain("first training", "none yet") == "world/1"
        told.append([r.chain for r in live.stores.ledger.read()])
    assert told[0] == told[1]
    after = Live(make_app(TABLE, stage="manual").system, again, DataClock(SINCE + DAY), key=b"k")
    assert reopen(after)
    assert after.retraining.reference().equals(live.retraining.reference())
