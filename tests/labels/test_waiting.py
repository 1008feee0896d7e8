"""Rows that wait are found as a plain search finds them, whatever was merged, shrunk and indexed anew meanwhile."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.labels import waiting as module
from loudly.labels.waiting import Waiting
from loudly.store import shelf
from loudly.store.shelf import Shelf

KEYS = [f"k{i}" for i in range(12)]
adds = st.tuples(st.just("add"), st.lists(st.sampled_from(KEYS), min_size=1, max_size=9))
takes = st.tuples(st.just("take"), st.lists(st.sampled_from([*KEYS, "nobody"]), max_size=4, unique=True))
drops = st.tuples(st.sampled_from(["drop", "erase"]), st.integers(0, 150))


@pytest.mark.parametrize("room", [None, 0, 20])
@settings(max_examples=100, deadline=None)
@given(story=st.lists(adds | takes | drops, max_size=40))
def test_it_is_a_list_that_is_searched(room: int | None, story: list[tuple[str, list[str] | int]]) -> None:
    with pytest.MonkeyPatch.context() as small, tempfile.TemporaryDirectory() as folder:
        small.setattr(module, "MOST_SMALL", 3)
        small.setattr(module, "SMALL_ROWS", (8, 32))
        small.setattr(module, "MOST_GONE", 10)
        small.setattr(shelf, "CHUNK_ROWS", 5)
        _live(Waiting("k", Shelf(Path(folder), room) if room is not None else None, ("x",)), story)


def _live(waiting: Waiting, story: list[tuple[str, list[str] | int]]) -> None:
    plain, number = list[tuple[str, int]](), 0
    for kind, said in story:
        if kind == "add" and isinstance(said, list):
            rows = [(key, number + i) for i, key in enumerate(said)]
            number += len(said)
            plain += rows
            waiting.add(pl.DataFrame(rows, schema={"k": pl.String, "x": pl.Int64}, orient="row"))
        elif kind == "take" and isinstance(said, list):
            taken = [row for row in plain if row[0] in said]
            plain = [row for row in plain if row[0] not in said]
            found = waiting.take(pl.DataFrame({"k": said, "y": range(len(said))}, schema={"k": pl.String, "y": pl.Int64}))
            assert [row[:2] for row in found.select("k", *["x"] * bool(taken), "y").rows() if taken] == taken
            assert found["y"].to_list() == [said.index(key) for key, _ in taken]
        elif isinstance(said, int):
            before, limit = len(plain), said
            plain = [row for row in plain if row[1] >= limit]
            let_go = waiting.drop if kind == "drop" else waiting.erase
            assert let_go(lambda rows, limit=limit: rows["x"] < limit) == before - len(plain)  # type: ignore[misc]
        assert len(waiting) == len(plain)
    assert [row for batch in waiting._batches for row in batch.table().rows()] == plain
    kinds = waiting.count(lambda rows: [(rows["x"] % m == 0).to_numpy() for m in (2, 3)])
    assert (kinds or (0, 0)) == tuple(sum(row[1] % m == 0 for row in plain) for m in (2, 3))
    assert waiting.holds(pl.Series(KEYS)).to_list() == [any(row[0] == key for row in plain) for key in KEYS]


def test_a_label_does_not_go_through_all_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200,000 rows in 2,000 batches, one label touches those of a few: counted in rows that are looked at, not in time."""
    waiting, looked = Waiting("k"), list[int]()
    for batch in range(2_000):
        waiting.add(pl.DataFrame({"k": [f"{batch}-{i}" for i in range(100)], "x": np.arange(100)}))
    assert len(waiting._batches) < 3 * module.MOST_SMALL + 5
    assert len(waiting._runs) < 20
    places = module._Batch.places

    def counted(batch: module._Batch, ids: module.Ids) -> module.Ids:
        looked.append(len(ids))
        return places(batch, ids)

    monkeypatch.setattr(module._Batch, "places", counted)
    assert waiting.take(pl.DataFrame({"k": ["7-7", "1999-99", "nobody"], "y": [1, 2, 3]}))["y"].to_list() == [1, 2]
    assert sum(looked) == 2
    assert len(waiting) == 199_998
    assert waiting.take(pl.DataFrame({"k": [None], "y": [1]}, schema={"k": pl.String, "y": pl.Int64})).is_empty()


def test_rows_of_other_columns_wait_together() -> None:
    waiting = Waiting("k")
    waiting.add(pl.DataFrame({"k": ["a"], "x": [1]}))
    waiting.add(pl.DataFrame({"k": ["b"], "z": [0.5]}))
    assert waiting.take(pl.DataFrame({"k": ["a", "b"], "y": [1, 0]})).rows(named=True) == [
        {"k": "a", "x": 1, "z": None, "y": 1},
        {"k": "b", "x": None, "z": 0.5, "y": 0},
    ]
    assert len(waiting) == 0
    assert waiting.take(pl.DataFrame({"k": ["a"], "y": [1]})).is_empty()
    assert waiting.holds(pl.Series(["a"])).to_list() == [False]
