"""A column that predicts the label alone may be said to be known before the event: aloud, and by its name."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_world
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DataClock
from loudly.core.values import Verdict
from loudly.errors import UserFileError
from loudly.loop.founding import found
from loudly.loop.live import Live

NOISE = 0.2 * pl.Series(np.random.default_rng(0).normal(size=31 * 120))
TABLE = make_world(days=31).with_columns(lag=pl.col("y").cast(pl.Float64) + NOISE)


def founded(*known_before: str) -> tuple[Live, tuple[Verdict, ...]]:
    app = App("world", label="y", time="at", key="id", metric="roc_auc")
    app.data(known_before=known_before)(lambda: TABLE)
    app.train(lambda X, y: None)
    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    return live, found(live, TABLE)


def test_the_table_is_taken_and_the_ledger_says_who_says_so() -> None:
    _, refused = founded()
    assert [v.subject for v in refused] == ["leakage of lag"]
    live, refused = founded("lag")
    assert refused == ()
    ((what, why),) = [
        (e.data["what"], str(e.data["reason"])) for r in live.stores.ledger.read() if (e := r.event).kind == "guarantee_weakened"
    ]
    assert what == "leakage of lag"
    assert why.startswith("lag alone predicts the label with AUC ")
    assert why.endswith("is what the system says, and nobody has checked it")


def test_a_column_that_is_not_there_and_a_text_for_a_list_are_refused() -> None:
    with pytest.raises(UserFileError, match=r"'lagg' in known_before=\[...\] is not in the table"):
        founded("lagg")
    app = App("world", label="y", time="at", key="id", metric="roc_auc")
    with pytest.raises(UserFileError, match="known_before is a list"):
        app.data(known_before="lag")(lambda: TABLE)
