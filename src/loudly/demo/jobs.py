"""The demo's replays: four policies, three rehearsals of a broken feed, and a bad candidate met by two sets of guards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from loudly.app.verbs import memory_stores
from loudly.core.canon import finite
from loudly.core.clock import DAY, instant, iso, stopwatch
from loudly.core.values import Event
from loudly.demo.app import app
from loudly.evaluate.gate import Gate
from loudly.loop.live import Live
from loudly.loop.mirror import mirror
from loudly.loop.policy import Governor, RetrainPolicy, Stage
from loudly.loop.replay import Damage as Harming
from loudly.loop.replay import Replayed, monthly, replay
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.loop.tell import tell
from loudly.loop.why import why
from loudly.plugins import available, resolve
from loudly.testing.damage import Damage, column_gone, labels_shuffled, labels_turned, nulls, units_changed

START, END = instant("2013-03-01"), instant("2013-12-31")
BROKEN = instant("2013-06-01")
BAD_DAY = instant("2013-11-29")
SHUFFLED, TURNED = "UA", "AA"
POLICIES = {
    "never": "never retrain",
    "fortnight": "refit every two weeks",
    "stateless": "loudly, stateless",
    "stateful": "loudly, stateful",
}
REHEARSALS = {
    "celsius": "temp switches from °F to °C on 1 June",
    "gone": "temp is no longer sent from 1 June",
    "nulls": "40 % of temp is null at EWR from 1 June",
}
BAD = {
    "bad_gate": f"labels of carrier {SHUFFLED} shuffled in training; all guards on",
    "bad_canary": f"labels of carrier {TURNED} turned round in training; the gate lax (0.05) and blind to slices",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One replay: a key of POLICIES, REHEARSALS or BAD, the last day, and where to mirror its runs for MLflow (or nowhere)."""

    key: str
    until: int = END
    mirror: Path | None = None


def variant(key: str) -> System:
    """The demo's system under one of the four policies."""
    system = app.system
    match key:
        case "never":
            return replace(system, retrain=RetrainPolicy(Stage.MANUAL))
        case "fortnight":
            free = Governor(cooldown=0, at_most=1000, period=DAY, enough_labels=1)
            always = Gate(margin=1.0, slice_margin=1.0)
            return replace(system, gate=always, rollout=(), retrain=RetrainPolicy(on=(), every=14 * DAY, governor=free))
        case "stateful":
            return replace(system, retrain=replace(system.retrain, stage=Stage.STATEFUL))
        case _:
            return system


def run_job(job: Job) -> dict[str, Any]:
    """One replay and what the demo tells of it, as plain data."""
    begun = stopwatch()
    table = app.system.data()
    assert isinstance(table, pl.DataFrame)
    if job.key in POLICIES:
        stores = memory_stores("flights")
        made = replay(variant(job.key), table, stores, since=START, until=job.until)
        told = _policy(made) | ({"mirrored": _mirrored(made, stores, job.mirror)} if job.mirror else {})
    elif job.key in REHEARSALS:
        made = _rehearse(table, _damage(job.key))
        told = _rehearsal(made)
    else:
        made, told = _bad_candidate(table, blind=job.key == "bad_canary")
    return {"key": job.key, "seconds": stopwatch() - begun, "model": made.tally.model, "wheel": made.tally.wheel, **told}


def _policy(made: Replayed) -> dict[str, Any]:
    months = monthly(made)
    values = [v for v in months.values() if v is not None]
    events = [r.event for r in made.events]
    fits = [iso(e.at) for e in events if e.kind == "run_finished"][1:]
    return {
        "months": months,
        "mean": finite(sum(values) / len(values)),
        "refits": fits,
        "promoted": [iso(e.at) for e in events if e.kind == "champion_changed"][1:],
        "rolled_back": [iso(e.at) for e in events if e.kind == "version_rolled_back"],
        "alarms": [_alarm(e) for e in events if e.kind == "alarm_raised"],
        "held_back": [_held_back(e, str(c)) for e in events if e.kind == "alarms_muted" for c in e.data["causes"]],  # type: ignore[union-attr]
        "weeks": _weeks(made),
        "story": [f"{iso(e.at)}  {tell(e)}" for e in events if e.kind in STORY],
        "why": list(why(made.events).lines()),
        "seconds_by": {name: round(s, 3) for name, s in sorted(made.tally.seconds.items())},
    }


def _alarm(event: Event) -> dict[str, Any]:
    return {"at": iso(event.at), "cause": event.data["cause"], "reason": event.data["reason"], "blame": event.data["blame"]}


def _held_back(event: Event, cause: str) -> dict[str, Any]:
    data: Any = event.data
    return {"at": iso(event.at), "cause": cause, "kind": data["kinds"][cause], "why": data["why"][cause]}


def _mirrored(made: Replayed, stores: Stores, folder: Path) -> str:
    """The ledger's runs and versions as MLflow knows them, in a store beside the page; how to look at it."""
    if not available("tracker", "mlflow"):
        return "LOUD: mlflow is not installed, so its mirror is not written: pip install 'loudly[mlflow]'"
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{folder / 'mlflow.db'}"
    told = mirror(made.events, stores.blobs, resolve("tracker", "mlflow")(url, folder / "mlflow", "flights"))
    what = f"{told.runs} runs and {told.versions} versions, models:/flights@champion is {told.champion}"
    return f"{what}; mlflow ui --backend-store-uri {url}"


STORY = (
    "retrain_triggered",
    "gate_judged",
    "rollout_started",
    "rollout_judged",
    "champion_changed",
    "version_rolled_back",
    "alarm_raised",
    "estimate_disproved",
    "held",
)


def _weeks(made: Replayed) -> dict[str, list[float | int | None]]:
    """AUC and rows by week: [auc, rows]."""
    from_table = made.answers.drop_nulls(made.system.label).with_columns(_w=pl.col(made.system.time).dt.truncate("1w"))
    weeks = {}
    for (week,), rows in from_table.group_by("_w", maintain_order=True):
        one = monthly(replace(made, answers=rows.with_columns(pl.col(made.system.time).dt.truncate("1y"))))
        weeks[str(week)[:10]] = [next(iter(one.values())), rows.height]
    return weeks


def _damage(key: str) -> Damage:
    harm = {
        "celsius": units_changed("temp", 5 / 9, -160 / 9),
        "gone": column_gone("temp"),
        "nulls": nulls("temp", 0.4, pl.col("origin") == "EWR", "flight_id"),
    }[key]
    return Damage(REHEARSALS[key], harm, BROKEN)


def _rehearse(table: pl.DataFrame, damage: Harming) -> Replayed:
    """Six weeks around the break; the policy would like to refit at once, so that the governor has something to hold."""
    eager = replace(app.system.retrain, growth=0.01, governor=Governor(cooldown=7 * DAY, at_most=100, period=90 * DAY))
    system = replace(app.system, retrain=eager)
    before = table.filter(pl.col("scheduled") < pl.lit("2013-06-15").str.to_datetime())
    return replay(system, before, memory_stores("flights"), since=instant("2013-05-20"), damage=(damage,))


def _rehearsal(made: Replayed) -> dict[str, Any]:
    events = [r.event for r in made.events]
    raised = [e for e in events if e.kind == "alarm_raised" and e.data["alarm"] == "feed"]
    after = [e for e in events if e.kind == "run_finished" and e.at > BROKEN]
    return {
        "named": [str(e.data["reason"]) for e in raised],
        "first": iso(raised[0].at) if raised else None,
        "refits_on_it": len(after),
        "held": [str(e.data["reason"]) for e in events if e.kind == "held" and e.at > BROKEN],
    }


def _bad_candidate(table: pl.DataFrame, *, blind: bool) -> tuple[Replayed, dict[str, Any]]:
    """A candidate that has learned nothing of one carrier, offered by hand on a day of November."""
    gate = Gate(margin=0.05, slice_margin=1.0) if blind else app.system.gate
    system = replace(app.system, gate=gate, behaviours=(), retrain=RetrainPolicy(Stage.MANUAL))
    shuffled = labels_shuffled("late", pl.col("carrier") == SHUFFLED, 1)
    harm = labels_turned("late", pl.col("carrier") == TURNED) if blind else shuffled
    before = table.filter(pl.col("scheduled") < pl.lit("2013-12-20").str.to_datetime())
    made = replay(system, before, memory_stores("flights"), since=instant("2013-09-28"), turn=_offer_once(harm))
    events = [r.event for r in made.events]
    judged = [e for e in events if e.kind == "gate_judged" and e.data["version"] == "flights/2"]
    back = [e for e in events if e.kind == "version_rolled_back"]
    promoted = any(e.kind == "champion_changed" and e.data["version"] == "flights/2" for e in events)
    verdict = judged[0].data["verdict"]
    assert isinstance(verdict, dict)
    by = ("the armed rollback" if promoted else "the canary") if back else "the gate"
    return made, {
        "gate": f"{verdict['decision']}: {verdict['reason']}",
        "overall": next((e for e in verdict["evidence"] if e["about"] == "roc_auc"), None),
        "stopped_by": by if back or verdict["decision"] != "PASS" else "nothing",
        "stopped_at": iso(back[0].at) if back else iso(judged[0].at),
        "reason": str(back[0].data["reason"]) if back else f"gate: {verdict['reason']}",
        "answers": back[0].data["answers"] if back else 0,
        "promoted": promoted,
    }


def _offer_once(harm: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Live, int], None]:
    def turn(live: Live, now: int) -> None:
        if now == BAD_DAY:
            live.retrain("rehearsal", "a bad candidate, on purpose", harm=harm)

    return turn
