"""The wheel as a whole: replayed twice, killed everywhere, broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, instant
from loudly.core.values import Recorded
from loudly.errors import LedgerDiverged, ReplayError
from loudly.labels import waiting
from loudly.loop.replay import Replayed, monthly, replay
from loudly.loop.stores import Stores
from loudly.loop.tell import TELL, tell
from loudly.loop.why import why
from loudly.store import shelf
from loudly.store.chain import verify
from loudly.store.memory_ledger import MemoryLedger
from loudly.store.shelf import Shelf
from loudly.testing.damage import Damage, column_gone, labels_shuffled, nulls, units_changed
from loudly.testing.faults import FailingLedger, Killed
from replayed import chains, of_kind, run, survivors

UNTIL = instant("2024-03-01")


def kinds(events: tuple[Recorded, ...]) -> list[str]:
    return [r.event.kind for r in events]


@pytest.fixture(scope="module")
def once(world: pl.DataFrame) -> Replayed:
    return replay(make_app(world).system, world, memory_stores("world"), since=SINCE)


def test_it_turns_all_the_way_round(once: Replayed) -> None:
    happened = kinds(once.events)
    wheel = ["dataset_versioned", "schema_frozen", "run_finished", "gate_judged", "version_registered", "artefact_queried"]
    rollout = ["rollout_started", "stage_started", "rollout_judged", "champion_changed"]
    for kind in (*wheel, *rollout, "retrain_triggered"):
        assert kind in happened, kind
    assert once.state.champion not in (None, "world/1")
    assert once.refits >= 1
    assert all(v is not None and v > 0.75 for v in monthly(once).values())


def test_rows_with_a_private_key_meet_their_labels(world: pl.DataFrame) -> None:
    system = replace(make_app(world).system, private=("id",))
    hidden = replay(system, world, memory_stores("world"), since=SINCE, until=SINCE + 4 * DAY)
    open_ = replay(make_app(world).system, world, memory_stores("world"), since=SINCE, until=SINCE + 4 * DAY)
    assert monthly(hidden) == monthly(open_)
    assert hidden.answers["y"].null_count() == 0
    assert [r.event.data for r in hidden.events if r.event.kind == "window_judged"] == [
        r.event.data for r in open_.events if r.event.kind == "window_judged"
    ]


def test_the_same_replay_twice_gives_the_same_ledger_byte_for_byte(once: Replayed, world: pl.DataFrame) -> None:
    again = replay(make_app(world).system, world, memory_stores("world"), since=SINCE)
    assert chains(again) == chains(once)
    assert again.answers.equals(once.answers)


def test_rows_that_wait_in_files_are_the_rows_that_wait(
    once: Replayed, world: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no room in memory, and tables of some rows, nothing else comes of it."""
    slots, put = [], Shelf.put
    for module in (waiting, shelf):
        monkeypatch.setattr(module, "SMALL_ROWS", (32, 128))
    monkeypatch.setattr(Shelf, "put", lambda self, table: slots.append(table.height) or put(self, table))
    again = replay(make_app(world).system, world, replace(memory_stores("world"), shelf=Shelf(tmp_path, room=0)), since=SINCE)
    assert sum(slots) > world.height / 2
    assert chains(again) == chains(once)


def test_every_kind_of_event_can_be_told(once: Replayed) -> None:
    for recorded in once.events:
        assert recorded.event.kind in TELL
        assert tell(recorded.event)


def test_the_decision_record_leads_from_evidence_to_verdict(once: Replayed) -> None:
    record = why(once.events)
    told = [e.kind for e in record.entries]
    order = ["run_finished", "gate_judged", "rollout_started", "rollout_judged", "champion_changed"]
    assert [k for k in told if k in order] == order
    assert told[0] == "retrain_triggered"
    by_position = {r.position: r.chain for r in once.events}
    assert all(by_position[e.position] == e.chain for e in record.entries)


def test_killed_at_every_append_and_resumed_it_ends_with_the_same_ledger() -> None:
    table = make_world(days=42, per_day=60)
    system = make_app(table, growth=0.2).system

    def replayed(stores: Stores) -> Replayed:
        return replay(system, table, stores, since=SINCE)

    whole, left = survivors(replayed, memory_stores("world"))
    assert "rollout_started" in kinds(whole.events)
    assert len(left) > 12
    half, ledger = len(left) // 2, MemoryLedger()
    with pytest.raises(Killed):
        replayed(replace(memory_stores("world"), ledger=FailingLedger(ledger, half, "after")))
    assert list(ledger.read()) == list(left[half].ledger.read()), "a copy after an append is what a kill there leaves"
    for n, stores in enumerate(left):
        assert chains(replayed(stores)) == chains(whole), f"killed after append {n}"
        list(verify(stores.ledger.read()))


def test_a_resumed_replay_on_other_data_diverges_and_says_where(world: pl.DataFrame) -> None:
    stores = memory_stores("world")
    replay(make_app(world).system, world, stores, since=SINCE, until=instant("2024-02-05"))
    other = make_world(seed=1)
    with pytest.raises(LedgerDiverged, match="position"):
        replay(make_app(other).system, other, stores, since=SINCE)


def test_without_rows_on_both_sides_it_is_refused(world: pl.DataFrame) -> None:
    with pytest.raises(ReplayError, match="31d at most"):
        replay(make_app(world).system, world, memory_stores("world"), since=SINCE, step=32 * DAY)
    with pytest.raises(ReplayError, match="before and after"):
        replay(make_app(world).system, world, memory_stores("world"), since=instant("2023-01-01"))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (units_changed("x2", 5 / 9, -160 / 9), "units °F to °C"),
        (column_gone("x2"), "x2 gone"),
        (nulls("x2", 0.5, pl.col("group") == "a", "id"), "nulls in group=a"),
    ],
)
def test_a_broken_feed_is_named_and_never_learned_from(world: pl.DataFrame, damage: object, named: str) -> None:
    table = make_world(days=50, per_day=400)
    broken = Damage("broken", damage, instant("2024-02-10"))  # type: ignore[arg-type]
    made = replay(make_app(table, growth=0.05).system, table, memory_stores("world"), since=SINCE, damage=(broken,))
    raised = [r.event for r in made.events if r.event.kind == "alarm_raised" and r.event.data["alarm"] == "feed"]
    assert raised, "the feed broke in silence"
    assert named in str(raised[0].data["cause"])
    assert raised[0].at == instant("2024-02-11"), "on the first day"
    fits = [r.event.at for r in made.events if r.event.kind == "run_finished"]
    assert not [at for at in fits if at > instant("2024-02-11")], "nothing is learned from a broken feed"
    assert any(r.event.kind == "held" and "broken" in str(r.event.data["reason"]) for r in made.events)


def test_no_alarm_and_no_refit_where_nothing_happens(world: pl.DataFrame) -> None:
    made = replay(make_app(world, growth=None).system, world, memory_stores("world"), since=SINCE)
    assert "alarm_raised" not in kinds(made.events)
    assert made.refits == 0


def test_confirmed_harm_raises_an_alarm_and_retrains() -> None:
    table = make_world(days=90, per_day=200, turn=45)
    app = make_app(table, growth=None, cooldown="3d")
    app.monitor(replace(app.system.monitor, trailing=7, enough=500))
    made = replay(app.system, table, memory_stores("world"), since=SINCE)
    alarms = of_kind(made, "alarm_raised")
    assert alarms
    assert alarms[0].data["alarm"] == "performance"
    assert instant("2024-02-15") < alarms[0].at < instant("2024-02-25")
    triggers = [r.event.data["trigger"] for r in made.events if r.event.kind == "retrain_triggered"]
    assert "performance" in triggers


def test_a_bad_candidate_never_becomes_champion(world: pl.DataFrame) -> None:
    table = make_world(days=60, per_day=400)
    system = replace(
        make_app(table, stage="manual").system, gate=replace(make_app(table).system.gate, margin=1.0, slice_margin=1.0)
    )
    harm = labels_shuffled("y", pl.lit(True), 1)

    def turn(live: object, now: int) -> None:
        if now == instant("2024-02-10"):
            live.retrain("rehearsal", "bad on purpose", harm=harm)  # type: ignore[attr-defined]

    made = run(system, table, turn)
    back = of_kind(made, "version_rolled_back")
    assert len(back) == 1
    assert made.state.champion == "world/1"
    assert 0 < back[0].data["answers"] < table.height  # type: ignore[operator]
    assert back[0].at <= instant("2024-02-10") + 9 * DAY


def test_leaking_columns_block_the_first_training(world: pl.DataFrame) -> None:
    leaking = world.with_columns(oracle=pl.col("y").cast(pl.Float64) + 0.01)
    made = replay(make_app(leaking).system, leaking, memory_stores("world"), since=SINCE)
    assert made.state.champion is None
    assert [v for v in made.blocked if "oracle" in v.subject]
