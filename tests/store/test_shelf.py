"""Rows put aside are read back as they were, nothing of an erased one stays, and a disk that refuses costs memory, not rows."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loudly.labels.waiting import Waiting
from loudly.store import shelf as module
from loudly.store.shelf import Pile, Shelf, Slot

TABLE = pl.DataFrame(
    {
        "k": [f"key-{i}" for i in range(5_000)],
        "x": np.arange(5_000) / 7,
        "none": [None] * 5_000,
        "p": [[i / 1, i + 0.5] for i in range(5_000)],
        "at": pl.Series(range(5_000), dtype=pl.Int64).cast(pl.Datetime("us")),
    }
)


def files_of(folder: Path) -> list[int]:
    """Descriptors of this process to files in the folder, which have no name there."""
    links = {
        int(fd): os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")
    }
    return [fd for fd, to in links.items() if to.startswith(str(folder))]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of a few rows."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 5)
    monkeypatch.setattr(module, "MOST_SMALL", 3)
    monkeypatch.setattr(module, "SMALL_ROWS", (8, 16))
    return


def test_rows_come_back_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    first, second = shelf.put(TABLE), shelf.put(TABLE[::-1])
    assert first is not None
    assert second is not None
    at = np.array([4_999, 0, 2_048, 2_047, 7, 7], dtype=np.int32)
    assert first.rows(at).equals(TABLE[at.tolist()])
    assert second.table().equals(TABLE[::-1])
    assert first.rows(at[:0]).schema == TABLE.schema
    assert list(tmp_path.iterdir()) == [], "the file has no name"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_file_goes_with_the_last_of_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILE_BYTES", 1)
    shelf = Shelf(tmp_path)
    slots = [shelf.put(TABLE) for _ in range(3)]
    assert len(files_of(tmp_path)) == 3
    del slots[:2]
    gc.collect()
    assert len(files_of(tmp_path)) == 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 12) | st.just("take") | st.tuples(st.just("erase"), st.integers(2, 5)), max_size=30),
    st.sampled_from([0, 20]),
)
def test_a_pile_is_a_list(small: None, tmp_path: Path, story: list[int | str | tuple[str, int]], room: int) -> None:
    pile, plain, number = Pile(Shelf(tmp_path, room)), list[int](), 0
    for said in story:
        if isinstance(said, int):
            rows = list(range(number, number := number + said))
            pile.add(pl.DataFrame({"x": rows}, schema={"x": pl.Int64}))
            plain += rows
        elif said == "take":
            taken, plain = plain, []
            assert pile.take().get_column("x", default=pl.Series([], dtype=pl.Int64)).to_list() == taken
        else:
            pile.erase(lambda rows, by=said[1]: rows["x"] % by == 0)  # type: ignore[misc]
            plain = [x for x in plain if x % said[1]]
        assert len(pile) == len(plain)
    assert pile.take().get_column("x", default=pl.Series([], dtype=pl.Int64)).to_list() == plain


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_nothing_of_an_erased_row_stays_in_the_file(small: None, tmp_path: Path) -> None:
    pile = Pile(Shelf(tmp_path, room=0))
    for first in range(0, 100, 20):
        pile.add(TABLE[first : first + 20])
    (fd,) = files_of(tmp_path)
    assert b"key-42" in os.pread(fd, 10**6, 0)
    pile.erase(lambda rows: rows["k"] == "key-42")
    assert b"key-42" not in os.pread(fd, 10**6, 0)
    assert pile.take()["k"].to_list() == [f"key-{i}" for i in range(100) if i != 42]


def test_where_the_disk_refuses_rows_stay_in_memory_and_it_is_told(small: None, tmp_path: Path) -> None:
    (place := tmp_path / "place").write_text("a file where a folder should be")
    shelf = Shelf(place / "below", room=0)
    pile = Pile(shelf)
    pile.add(TABLE[:20])
    assert shelf.refused
    place.unlink()
    pile.add(TABLE[20:40])
    assert shelf.refused == ""
    assert pile.take()["x"].equals(TABLE[:40]["x"])


def test_a_disk_that_refuses_to_overwrite_loses_no_other_row(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(slot: Slot) -> None:
        raise OSError("no")

    pile, waiting = Pile(Shelf(tmp_path, room=0)), Waiting("k", Shelf(tmp_path, room=0))
    for put in (pile.add, waiting.add):
        put(TABLE[:20])
    monkeypatch.setattr(Slot, "wipe", refuse)
    for erase in (pile.erase, waiting.erase):
        with pytest.raises(OSError, match="no"):
            erase(lambda rows: rows["k"] == "key-7")
    monkeypatch.undo()
    keys = [f"key-{i}" for i in range(20) if i != 7]
    assert pile.take()["k"].to_list() == keys
    assert waiting.holds(pl.Series(keys)).all()
