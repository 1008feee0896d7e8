"""What labels teach the rollout that runs, and when: with the time that is told next, and again when their rows are ripe.

Labels come one a call, and a table costs more than its rows. Nothing is decided before the time is told, so
they wait for it; it stands in the traffic log, so a restart teaches the same rows together.

A row is ripe when it is so old that labels of every class have had their time, as the champion's labels have told when the
rollout began (the ledger's record of the stage holds the figures, so that a restart and a replay see the same). Ripe rows are
handed on by the hour in which they became so, in that order, whenever that is: a restarted server folds the same batches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl

from loudly.core.canon import Json
from loudly.core.clock import HOUR, span
from loudly.core.seams import Feedback
from loudly.deliver.bandit import frozen
from loudly.deliver.rollout import RolloutSpec
from loudly.errors import LoudlyError
from loudly.loop import traffic
from loudly.loop.arms import arms_of, context_now
from loudly.loop.host import Host
from loudly.loop.label_values import encode
from loudly.loop.labelled import feedback_of
from loudly.loop.rewards import rewards
from loudly.loop.state import RolloutState
from loudly.loop.strategies import scaled
from loudly.loop.unripe import Unripe

# Labels have had their time when twice the time has gone by within which nearly all come.
PATIENCE = 2
FEWEST_ROWS, FEWEST_LABELS = 200, 50
HOUR_DUE = (pl.col("_due") + (HOUR - 1)) // HOUR * HOUR


def lateness(live: Host, spec: RolloutSpec) -> dict[str, Json]:
    """What the record of a stage says of how late labels come; nothing where the rollout knows, or does not ask."""
    rollout, labels = live.state.rollout, live.system.labels
    if spec.rewarded or labels.promote_on == "any" or rollout is None or rollout.labels is not None:
        return {}
    within, long = labels.arrive_within, PATIENCE * labels.arrive_within
    known = live.book.delays.known(live.clock.now(), long, labels.nearly_all)
    if known.rows >= FEWEST_ROWS and known.labels >= FEWEST_LABELS:
        seen = f"{known.labels:,} labels of rows followed for up to {span(known.followed)}"
        told = f"{labels.nearly_all:.0%} of the labels of each class came within {span(max(known.complete, HOUR))} ({seen})"
        return {"labels": {"wait": known.complete, "share": round(known.share, 4), "because": told}}
    told = f"how late labels come is not known: {known.rows:,} rows have been followed for {span(long)}"
    if labels.promote_on == "known":
        return {"labels": {"wait": None, "share": 0.0, "because": told}}
    return {"labels": {"wait": within, "share": 0.0, "because": f"{told}, so they are taken to come within {span(within)}"}}


def patient(live: Host, stage: int) -> RolloutSpec:
    """The settings of a stage as they are in traffic, with how long its rows wait for their labels."""
    rollout = live.state.rollout
    expected = live.state.expects(live.state.champion, live.system.metric)
    spec = scaled(live.system, live.system.rollout[stage], rollout.scale if rollout is not None else None, expected)
    if rollout is None or rollout.labels is None or spec.rewarded:
        return spec
    told = rollout.labels
    return replace(spec, wait=told["wait"], share=told["share"], because=told["because"])


def hear(live: Host, joined: pl.DataFrame, now: int) -> None:
    """Labelled rows that have come now wait for the time that is told next; those of an hour before are taught by themselves."""
    if live.strategy is None:
        return
    if live.untaught.closed(now):
        teach(live, now)
    live.untaught.add(joined, now)


def teach(live: Host, now: int) -> None:
    """The strategy of the running rollout learns from the labels of its rows that have come, and from what is ripe by now.

    What learns from rewards sees a row when its time for labels is over: where one kind of label comes sooner, fast rows would
    mislead it. The shares of a bandit's state are those that answer.
    """
    with live.lock, live.tally.spend("rollout"):
        rollout, (came, at) = live.state.rollout, live.untaught.take(now)
        if live.strategy is None or rollout is None:
            return
        rows, spec = of_rollout(live, rollout, came), live.system.rollout[rollout.stage]
        if spec.rewarded:
            rows = ripe_for_rewards(live, live.unripe, rows, at)
        elif rows.height and (wait := patient(live, rollout.stage).wait):
            _wait(live, rows, wait, at)
        if rows.height and "frozen" not in live.rollout_state:
            _update(live, rollout, rows, at)
            if spec.bandit and not live.counting.resumed:
                live.route()
        _ripen(live, now)


def of_rollout(live: Host, rollout: RolloutState, joined: pl.DataFrame) -> pl.DataFrame:
    """The labelled rows that the stage of a rollout judges: where a row judges who answered it alone, those answered in this stage.

    In a stage before it, such as a shadow, control answered all, whatever its units would meet now.
    """
    if joined.is_empty():
        return joined
    mine = (joined["_rollout"].to_numpy() == rollout.started) & (joined["_at"].to_numpy() >= _judged_since(live, rollout))
    return joined if mine.all() else joined.filter(mine)


def _judged_since(live: Host, rollout: RolloutState) -> int:
    """From when on answers are judged (µs): where both versions score each row, from the beginning."""
    return 0 if live.system.rollout[rollout.stage].paired else rollout.stage_at


def _wait(live: Host, rows: pl.DataFrame, wait: int, now: int) -> None:
    """Keeps rows until the hour in which they are ripe."""
    live.unripe.add(rows.with_columns(_due=pl.max_horizontal(pl.col("_at") + wait, pl.lit(now))), HOUR_DUE)


def _ripen(live: Host, now: int) -> None:
    """Hands on what has become ripe by now, hour by hour."""
    rollout = live.state.rollout
    if rollout is None or live.system.rollout[rollout.stage].rewarded or (due := live.unripe.take(now)).is_empty():
        return
    due = due.with_columns(_hour=HOUR_DUE).sort("_due", maintain_order=True)
    for rows in due.partition_by("_hour", maintain_order=True):
        _update(live, rollout, rows, int(rows["_hour"][0]), ripe=True)


def unripe_of(live: Host, spec: RolloutSpec) -> Unripe:
    """Where the labelled rows of a stage wait until they are ripe; those of one list stay together."""
    return Unripe(live.system.group if spec.interleaves else "")


def ripe_for_rewards(live: Host, waiting: Unripe, rows: pl.DataFrame, now: int) -> pl.DataFrame:
    """The rows whose labels have had their time, of those that waited and of new ones; the others wait."""
    if rows.height:
        waiting.add(rows, pl.col(live.system.time).dt.epoch("us") + live.system.labels.arrive_within)
    return waiting.take(now)


def lesson(live: Host, rollout: RolloutState, rows: pl.DataFrame, now: int, arms: list[str]) -> Feedback:
    """Labelled rows of a rollout as a strategy of its stage learns from them. arms: their names.

    Raises: UserFileError, RolloutError where it learns from rewards and one cannot be told.
    """
    system, ready, context = live.system, live.ready[live.state.champion or ""], context_now(rollout)
    truth, spec = encode(rows[system.label], ready.classes), system.rollout[rollout.stage]
    learns = spec.bandit or (spec.interleaves and system.reward is not None)
    return replace(
        feedback_of(system, rows, truth, now, arms, system.group if spec.interleaves else ""),
        reward=rewards(system, ready.task, rows, traffic.column(rows, "_answer"), truth) if learns else None,
        propensity=rows["_propensity"].to_numpy() if spec.bandit else None,
        context=context.of(rows) if context is not None else None,
        share=rows["_share"].fill_null(1.0).to_numpy() if "_share" in rows.columns else None,
    )


def _update(live: Host, rollout: RolloutState, rows: pl.DataFrame, now: int, ripe: bool = False) -> None:
    assert live.strategy is not None
    try:
        told = lesson(live, rollout, rows, now, [arm.name for arm in arms_of(live)])
    except LoudlyError as wrong:
        live.rollout_state = freeze(live, rollout.version, live.rollout_state, wrong)
        return
    told = replace(told, ripe=ripe, awaited=_awaited(live, rollout, now))
    live.rollout_state, live.rollout_verdict = live.strategy.update(live.rollout_state, told)


def freeze(live: Host, version: str, state: dict[str, Any], wrong: LoudlyError) -> dict[str, Any]:
    """The state of a strategy that learns nothing more, for a reward cannot be told: said aloud, once, until a new start."""
    if "frozen" not in state:
        live.event("bandit_frozen", version=version, reason=str(wrong))
    return frozen(state, str(wrong))


def _awaited(live: Host, rollout: RolloutState, now: int) -> tuple[int, int] | None:
    """Rows of before that had no label: younger than what is ripe, and older; None where the counts of answers tell them."""
    if rollout.labels is None and not live.system.rollout[rollout.stage].ramp:
        return None
    wait = (rollout.labels or {}).get("wait") or 0
    since = max(rollout.at, _judged_since(live, rollout))
    total, old = map(int, live.book.waiting_of("_rollout", rollout.started, since, (now - 1, now - max(HOUR, wait))))
    return total - old, old
