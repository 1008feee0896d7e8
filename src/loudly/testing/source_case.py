"""What every source of rows owes: run these against yours.

class TestMine(SourceCase):
    @pytest.fixture
    def source(self): return MySource(...)          # over the rows of `TABLE`: event time `at` (µs), value `x`
"""

from __future__ import annotations

from typing import Any

import polars as pl

from loudly.shift.event_time import Batch

TABLE = pl.DataFrame({"at": [i * 1000 + (i * 7) % 5 for i in range(60)], "x": list(range(60))})


class SourceCase:
    """Conformance of a source; `source` is a fixture that gives one over `TABLE`, in several batches."""

    def test_every_row_comes_once_with_its_time(self, source: Any) -> None:
        rows = [row for batch in source.read({}) for row in zip(batch.at.tolist(), batch.rows["x"].to_list(), strict=True)]
        assert sorted(rows) == sorted(TABLE.select("at", "x").rows())

    def test_offsets_rise_within_a_place(self, source: Any) -> None:
        reached: dict[str, int] = {}
        for batch in source.read({}):
            offsets = batch.offsets.tolist()
            assert offsets == sorted(offsets)
            assert offsets[0] > reached.get(batch.place, -1)
            reached[batch.place] = offsets[-1]

    def test_reading_goes_on_from_any_batch(self, source: Any) -> None:
        whole = list(source.read({}))
        assert len(whole) > 1, "the fixture gives several batches"
        for cut in range(len(whole) + 1):
            offsets = {batch.place: int(batch.offsets[-1]) + 1 for batch in whole[:cut]}
            source.commit(offsets)
            assert _by_place(whole[:cut] + list(source.read(offsets))) == _by_place(whole)


def _by_place(batches: list[Batch]) -> dict[str, list[int]]:
    """Rows of each place, in order: batches may be cut otherwise, and places may take turns otherwise."""
    return {p: [x for b in batches if b.place == p for x in b.rows["x"]] for p in sorted({b.place for b in batches})}
