"""What workers spool is folded as if the wheel had answered itself, once, wherever it dies."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.canon import canonical
from loudly.core.clock import DAY, DataClock
from loudly.loop import traffic
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.outpost import Outpost, routing_of
from loudly.loop.restart import catch_up
from loudly.loop.taking import Taking
from loudly.serve.attempt import Attempt
from loudly.serve.rows import Rows, rows_of
from loudly.store.segments import SegmentWriter, read_segments
from loudly.store.spools import Spools

TABLE = make_world(days=45)
when = pl.col("at").dt.epoch("us")


class Place:
    """A wheel, its log, and two workers with a spool each; the wheel can die and come back."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, DataClock(SINCE)
        self.stores = replace(memory_stores("world"), traffic=SegmentWriter(folder / "traffic"))
        self.live = Live(make_app(TABLE).system, self.stores, self.clock, key=b"key")
        assert not found(self.live, TABLE.filter(when < SINCE).with_columns(y=pl.when(when + DAY <= SINCE).then(pl.col("y"))))
        self.live.retrain("first training", "there is no model yet")
        self.spools = [SegmentWriter(folder / "spools" / name, through=True) for name in ("a", "b")]
        self.posts = [Outpost(self.live.system, self.stores, b"key", self.clock, spool.append) for spool in self.spools]
        self.taking = Taking(self.live, Spools(folder / "spools"))
        self.follow()

    def follow(self) -> None:
        for post in self.posts:
            post.follow(routing_of(self.live))

    def rows(self, first: int, last: int) -> Rows:
        part = TABLE.filter(when >= SINCE)[first:last]
        return rows_of([{**r, "at": r["at"].isoformat()} for r in part.drop("y").to_dicts()], self.posts[0].schema())  # type: ignore[arg-type]

    def ask(self, worker: int, first: int, last: int) -> None:
        for i in range(first, last):
            self.posts[worker].answer(self.rows(i, i + 1), Attempt((1,), ((f"r{i}", ""),)))

    def label(self, worker: int, first: int, last: int) -> str:
        part = TABLE.filter(when >= SINCE)[first:last].select("id", "y")
        spool = self.spools[worker]
        sequence = spool.append("labels", traffic.to_bytes(part.with_columns(_at=pl.lit(self.clock.now(), pl.Int64))))
        return f"{spool.root.name}:{sequence}"

    def die_and_return(self) -> None:
        """As after kill -9 of the wheel: what the log holds on disk, and the spools, are all there is."""
        self.live = Live(self.live.system, self.stores, self.clock, key=b"key")
        reopen(self.live)
        taken: dict[str, int] = {}
        catch_up(self.live, self.folder / "traffic", taken)
        self.taking = Taking(self.live, Spools(self.folder / "spools", taken))

    def logged(self) -> Counter[str]:
        self.stores.traffic.flush()  # type: ignore[union-attr]
        records = list(read_segments(self.folder / "traffic"))
        return Counter(k for r in records if r.kind == "predictions" for k in traffic.from_bytes(r.payload)["id"].to_list())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_labels_meet_predictions_of_every_worker_that_were_acknowledged_before(place: Place) -> None:
    place.ask(0, 0, 20)
    place.ask(1, 20, 40)
    origin = place.label(0, 15, 25)
    assert place.taking.outcome(origin) == {"joined": 10, "unknown": 0, "repeated": 0}
    assert place.taking.outcome(origin) == {}, "told once"
    assert place.live.book.waiting == 30
    assert place.taking.outcome(place.label(1, 20, 26))["repeated"] == 5
    assert sorted(place.logged().values()) == [1] * 40


def test_a_damaged_spool_is_told(place: Place) -> None:
    place.ask(0, 0, 10)
    sealed = place.spools[0].seal()
    assert sealed is not None
    sealed.write_bytes(sealed.read_bytes()[:-1])
    assert place.taking.drain() == 9
    assert place.taking.drain() == 0
    (told,) = place.live.answering.raised_by_log.fresh()
    assert told.startswith(f"spool a/{sealed.name}: offset ")
    assert told.endswith("damaged, and its rest is not taken over; it is kept")


def test_labels_of_a_file_that_cannot_be_joined_are_told_by_the_ledger(place: Place) -> None:
    place.ask(0, 0, 5)
    for name, told in (("by-hand-1", 1), ("c", 1)):
        spool = SegmentWriter(place.folder / "spools" / name, through=True)
        spool.append("labels", traffic.to_bytes(pl.DataFrame({"id": ["x"], "_at": [place.clock.now()]})))
        spool.close()
        place.taking.drain()
        weakened = [r.event for r in place.stores.ledger.read() if r.event.kind == "guarantee_weakened"]
        found = [e for e in weakened if e.data["what"] == "labels of a file are not joined"]
        assert len(found) == told, "a worker's client is told by its answer"


def test_answers_that_cannot_be_folded_cost_no_label_that_came_with_them(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a slice of the user's raises at an odd row: that is counted and told, and labels were acknowledged."""
    place.ask(0, 0, 10)
    place.taking.drain()
    place.ask(0, 10, 20)
    origin = place.label(1, 0, 5)

    def raises(*_: Any) -> None:
        raise ValueError("an odd row")

    with monkeypatch.context() as patched:
        patched.setattr(place.live, "fold_answers", raises)
        assert place.taking.outcome(origin) == {"joined": 5, "unknown": 0, "repeated": 0}
    assert place.live.answering.uncounted == 10
    assert place.live.answering.raised_by_fold.fresh() == ["wheel: ValueError: an odd row"]
    place.label(1, 5, 8)
    place.die_and_return()
    assert place.live.book.waiting == 20 - 5
    place.taking.drain()
    assert place.live.book.waiting == 20 - 8


@pytest.mark.parametrize("moment", ["before", "after the log", "after the fold"])
def test_a_wheel_that_dies_anywhere_takes_each_record_once(place: Place, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place.ask(0, 0, 10)
    place.taking.drain()
    place.ask(0, 10, 20)
    place.ask(1, 20, 30)
    place.label(1, 0, 5)

    def dies(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    if moment == "before":
        place.die_and_return()
    else:
        where = (place.live, "fold_answers") if moment == "after the log" else (place.taking._spools, "drop")
        with monkeypatch.context() as patch:
            patch.setattr(*where, dies)
            with pytest.raises(KeyboardInterrupt):
                place.taking.drain()
        place.stores.traffic.flush()  # type: ignore[union-attr]
        place.die_and_return()
    place.taking.drain()
    place.ask(0, 30, 33)
    place.taking.drain()
    assert sorted(place.logged().values()) == [1] * 33
    assert place.live.book.waiting == 33 - 5
    place.die_and_return()
    assert place.taking.drain() == 0
    assert place.live.book.waiting == 33 - 5


def test_nothing_is_taken_while_the_disk_refuses_the_log(place: Place) -> None:
    log: Any = place.stores.traffic
    place.ask(0, 0, 10)
    log.refused = "OSError: no room"
    assert place.taking.drain() == 0
    assert place.live.book.waiting == 0
    log.refused = ""
    assert place.taking.drain() == 10
    assert place.live.book.waiting == 10


def test_units_have_one_arm_whichever_worker_is_asked(place: Place) -> None:
    place.live.retrain("by hand", "to have a rollout")
    while place.live.strategy is not None and place.live.strategy.name != "canary":
        place.clock.advance(place.clock.now() + DAY)
        place.live.tick()
    place.follow()
    rows = place.rows(0, 400)
    arms = [post.answer(rows, Attempt((400,))).arm.tolist() for post in place.posts]
    assert arms[0] == arms[1]
    assert 0 < sum(arms[0]) < 200
    assert place.taking.drain() == 2
    assert place.live.given == {"control": 2 * (400 - sum(arms[0])), "candidate": 2 * sum(arms[0])}


def test_a_label_that_cannot_be_folded_is_told_and_stops_nobody(place: Place) -> None:
    place.ask(0, 0, 3)
    spool = place.spools[0]
    broken = pl.DataFrame({"wrong": ["r"], "_at": [0]})
    sequence = spool.append("labels", traffic.to_bytes(broken))
    made = place.taking.outcome(f"a:{sequence}")
    assert isinstance(made, Exception)
    place.ask(0, 3, 5)
    assert place.taking.drain() == 2
    assert place.live.book.waiting == 5


def test_what_guards_count_of_workers_is_told_again_to_a_wheel_that_died(place: Place) -> None:
    place.live.retrain("by hand", "to have a rollout")
    place.follow()
    place.ask(0, 0, 20)
    place.ask(1, 20, 30)
    for post in place.posts:
        post.lose(place.rows(3, 5), Attempt((2,)))
    place.taking.outcome(place.label(1, 0, 5))
    place.ask(1, 30, 40)
    place.taking.drain()
    before = canonical(place.live.rollout_state)
    assert place.live.rollout_state["evidence"]["answered"]["control"] == 44
    place.die_and_return()
    assert canonical(place.live.rollout_state) == before
    assert place.taking.drain() == 0
