"""Forgetting a subject: gone from the log, the newest dataset and memory; the versions that saw it are named; crashes mend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.operate import House, retention
from loudly.app.verbs import memory_stores
from loudly.config import Config, StoreConfig
from loudly.core.clock import DAY, DataClock
from loudly.core.values import Event
from loudly.data.pseudonym import pseudonym
from loudly.errors import ConfigError, StoreError
from loudly.loop import traffic
from loudly.loop.forgetting import ask, carry_out
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.store.segments import SegmentWriter, read_segments
from loudly.testing.faults import FailingDisk, FailingLedger, Killed

SECRET = b"replay"
PEOPLE = 40


def with_people(table: pl.DataFrame) -> pl.DataFrame:
    """Rows belong to people, whose names are private."""
    return table.with_columns(who=pl.format("person-{}", pl.int_range(pl.len()) % PEOPLE))


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return with_people(make_world(days=40))


def private_system(table: pl.DataFrame) -> Any:
    return replace(make_app(table).system, private=("who",))


@pytest.fixture
def live(table: pl.DataFrame, tmp_path: Path) -> Iterator[Live]:
    """A wheel that has trained on January, answered some days and got half of the labels."""
    writer = SegmentWriter(tmp_path / "traffic", rotate=60_000)
    made = Live(private_system(table), replace(memory_stores("world"), traffic=writer), DataClock(SINCE), key=SECRET)
    at = table["at"].dt.epoch("us")
    assert not found(made, table.filter(at < SINCE))
    made.retrain("first training", "there is no model yet")
    for day in range(4):
        rows = table.filter((at >= SINCE + day * DAY) & (at < SINCE + (day + 1) * DAY))
        made.answer(rows.drop("y"))
        made.feedback(rows.head(60).select("id", "y"))
        writer.flush()
    yield made
    writer.close()


def everything_stored(live: Live, root: Path) -> pl.DataFrame:
    """All rows of the log."""
    records = list(read_segments(root / "traffic"))
    return pl.concat([traffic.from_bytes(r.payload) for r in records if r.kind == "predictions"], how="diagonal_relaxed")


def test_a_person_is_erased_from_the_log_the_newest_dataset_and_memory(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    subject = pseudonym("person-7", SECRET)
    before = everything_stored(live, tmp_path)
    waiting = live.book.waiting
    assert (before["who"] == subject).sum() == 12
    wish = ask(live, "person-7", "she asked us to")
    assert wish.subject == subject
    assert wish.versions == ("world/1",), "it was fitted on her rows"
    assert len(wish.datasets) == 1
    (done,) = carry_out(live, tmp_path / "traffic", live.stores.traffic.seal)  # type: ignore[union-attr]
    after = everything_stored(live, tmp_path)
    assert done.rows == 12
    assert after.equals(before.filter(pl.col("who") != subject)), "all other rows are what they were"
    assert live.book.waiting < waiting
    assert live.state.forgetting == {}
    assert live.state.dataset is not None
    held = [p for p in live.state.dataset.parts if subject in pl.read_parquet(live.stores.blobs.open(p.digest))["who"]]
    assert not held
    assert subject not in live.retraining.reference()["who"]
    assert "older dataset versions stay" in done.stays
    version = live.retrain("by hand", "after it", offer=False)
    assert ask(live, "person-7", "again").versions == ("world/1",), f"{version} never saw her"


def test_a_key_is_erased_with_its_labels_and_never_written_into_the_ledger(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    key = everything_stored(live, tmp_path)["id"][3]
    (done,) = (ask(live, key, "by law"), carry_out(live, tmp_path / "traffic", live.stores.traffic.seal))[1]  # type: ignore[union-attr]
    assert done.rows == 2, "the answer and its label"
    assert key not in everything_stored(live, tmp_path)["id"]
    assert not any(key.encode() in p.read_bytes() for p in (tmp_path / "traffic").iterdir())
    assert not [r for r in live.stores.ledger.read() if key in str(r.event)]
    live.feedback(pl.DataFrame({"id": [key, "nobody"], "y": [True, True]}))
    (ask(live, key, "by law"), carry_out(live, tmp_path / "traffic", live.stores.traffic.seal))  # type: ignore[union-attr]
    live.tick()
    told = [r.event.data for r in live.stores.ledger.read() if r.event.kind == "labels_unmatched"]
    assert [(t["unknown"], t["examples"]) for t in told] == [(2, {"nobody": "unknown"})], (
        "what was not told yet is told without the key"
    )
    live.feedback(pl.DataFrame({"id": [key], "y": [True]}))
    live.tick()
    named = ask(live, key, "by law").named
    assert len(named) == 1, "a label for an unknown prediction is shown in the ledger, and that is said"
    with pytest.raises(StoreError, match="names the subject"):
        ask(live, key, f"{key} asked us to")


def test_a_private_key_meets_its_labels_and_is_written_nowhere(table: pl.DataFrame, tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "traffic")
    system = replace(make_app(table).system, private=("id",))
    live = Live(system, replace(memory_stores("world"), traffic=writer), DataClock(SINCE), key=SECRET)
    at = table["at"].dt.epoch("us")
    assert not found(live, table.filter(at < SINCE))
    live.retrain("first training", "there is no model yet")
    rows = table.filter((at >= SINCE) & (at < SINCE + DAY))
    live.answer(rows.drop("y"))
    assert live.feedback(rows.select("id", "y")).joined.height == rows.height
    live.feedback(pl.DataFrame({"id": ["nobody-knows"], "y": [True]}))
    live.tick()
    writer.seal()
    stored = b"".join(p.read_bytes() for p in (tmp_path / "traffic").iterdir())
    told = "".join(str(r.event) for r in live.stores.ledger.read())
    for key in (rows["id"][3], "nobody-knows"):
        assert key.encode() not in stored
        assert key not in told
        assert pseudonym(key, SECRET).encode() in stored
    (done,) = (ask(live, rows["id"][3], "by law"), carry_out(live, tmp_path / "traffic", writer.seal))[1]
    assert done.rows == 2, "the answer and its label"
    writer.close()


def test_labelled_rows_that_wait_for_a_rollout_to_learn_are_forgotten(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    clock: Any = live.clock
    clock.advance(SINCE + 6 * DAY)
    live.offer(str(live.retrain("by hand", "another", offer=False)), "a test")
    at = table["at"].dt.epoch("us")
    rows = table.filter((at >= SINCE + 6 * DAY) & (at < SINCE + 7 * DAY))
    live.answer(rows.drop("y"))
    live.feedback(rows[:40].select("id", "y"))
    assert len(live.untaught) == 40
    ask(live, key := rows["id"][3], "by law")
    carry_out(live, tmp_path / "traffic", live.stores.traffic.seal)  # type: ignore[union-attr]
    assert key not in live.untaught.take(0)[0]["id"]


def test_the_log_without_the_subject_is_caught_up_after_a_restart(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    ask(live, "person-3", "he asked us to")
    carry_out(live, tmp_path / "traffic", live.stores.traffic.seal)  # type: ignore[union-attr]
    again = Live(live.system, live.stores, live.clock, key=SECRET)
    assert catch_up(again, tmp_path / "traffic") == everything_stored(live, tmp_path).height
    assert again.book.waiting == live.book.waiting


def test_purging_deletes_the_old_parts_and_says_so(live: Live, tmp_path: Path) -> None:
    dataset = live.state.dataset
    assert dataset is not None
    ask(live, "person-7", "she asked us to", purge=True)
    (done,) = carry_out(live, tmp_path / "traffic", live.stores.traffic.seal)  # type: ignore[union-attr]
    assert not any(live.stores.blobs.has(p.digest) for p in dataset.parts)
    assert live.state.dataset is not None
    assert all(live.stores.blobs.has(p.digest) for p in live.state.dataset.parts)
    assert "old parts of training data deleted" in done.stays


@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_a_crash_at_any_write_or_event_is_mended_by_doing_it_again(table: pl.DataFrame, tmp_path: Path, when: str) -> None:
    """The n-th operation on the disk or append to the ledger dies, for every n; a new process goes on from the ledger."""
    whole = made_log(table, tmp_path / "whole")
    for n in count(1):
        root = tmp_path / str(n)
        made_log(table, root)
        stores, disk = memory_stores("world"), FailingDisk(n, when)
        clock, system = DataClock(SINCE), private_system(table)
        live = Live(system, stores, clock, key=SECRET)
        ask(live, "person-7", "she asked us to")
        ledger = FailingLedger(stores.ledger, n, when if when != "torn" else "before")
        live.stores = replace(stores, ledger=ledger)
        died = False
        for part in (disk, None):
            try:
                carry_out(live, root, lambda: None, part)
            except Killed:
                died = True
                live = Live(system, stores, clock, key=SECRET)  # another process, the same stores
        kept = [r.payload for r in read_segments(root)]
        assert all(pseudonym("person-7", SECRET) not in traffic.from_bytes(p)["who"] for p in kept)
        assert len(kept) == len(whole)
        if not live.state.forgetting:
            assert [r.event.kind for r in stores.ledger.read()][-1] == "subject_erased"
        if not died:
            break
    assert n > 4


def made_log(table: pl.DataFrame, root: Path) -> list[bytes]:
    """A log of some segments, without a wheel."""
    writer = SegmentWriter(root, rotate=4_000)
    hidden = table.head(400).with_columns(
        pl.col("who").map_elements(lambda w: pseudonym(w, SECRET), return_dtype=pl.String), _at=pl.lit(SINCE)
    )
    for piece in hidden.iter_slices(50):
        writer.append("predictions", traffic.to_bytes(piece))
        writer.flush()
    writer.close()
    return [r.payload for r in read_segments(root)]


def test_retention_deletes_old_traffic_loudly_and_refuses_to_be_shorter_than_a_rollout(live: Live, tmp_path: Path) -> None:
    config = Config(folder=tmp_path, store=StoreConfig(root="", retention="30d"))
    keep = retention(live.system, (live.stores, config))
    assert keep == 30 * DAY
    house = House(live, (live.stores, config), keep)
    live.stores.traffic.seal()  # type: ignore[union-attr]
    assert house.tidy().segments == 0
    assert isinstance(live.clock, DataClock)
    live.clock.advance(SINCE + 40 * DAY)
    assert house.tidy().segments > 0
    told = [r.event for r in live.stores.ledger.read() if r.event.kind == "segments_expired"]
    assert len(told) == 1
    assert house.tidy().segments == 0
    short = Config(store=StoreConfig(retention="2d"))
    with pytest.raises(ConfigError, match="20d"):
        retention(live.system, (live.stores, short))
    assert retention(live.system, (live.stores, Config())) is None


def test_a_server_erases_what_another_process_asked_for(live: Live, tmp_path: Path) -> None:
    live.record(
        Event(
            "subject_forgotten",
            live.clock.now(),
            {"subject": pseudonym("person-9", SECRET), "purge": False, "reason": "asked", "versions": [], "datasets": []},
        )
    )
    House(live, (live.stores, Config(folder=tmp_path, store=StoreConfig(root=""))), None).tidy()
    assert pseudonym("person-9", SECRET) not in everything_stored(live, tmp_path)["who"]
