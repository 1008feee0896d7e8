"""History pushed through the live code on its own clock: the same router, monitor and policy, with labels that come late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from loudly.core.canon import finite
from loudly.core.clock import DAY, DataClock, iso, span
from loudly.core.values import Recorded, Verdict
from loudly.data.pseudonym import pseudonymise
from loudly.errors import ReplayError
from loudly.loop.candidate import task_of
from loudly.loop.founding import found, reasons
from loudly.loop.label_values import encode, known_labels
from loudly.loop.live import Live
from loudly.loop.state import State
from loudly.loop.stores import Stores
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.loop.teaching import teach
from loudly.metrics.table import metric
from loudly.monitor.watch import AHEAD
from loudly.serve.replies import CONTROL
from loudly.store.resuming import Resuming

Damage = Callable[[pl.DataFrame, str], pl.DataFrame]
Turn = Callable[[Live, int], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What happened in a replay. answers: key, time, the score given, who gave it, and the truth where it came."""

    system: System
    state: State
    events: tuple[Recorded, ...]
    answers: pl.DataFrame
    tally: Tally
    blocked: tuple[Verdict, ...] = ()

    @property
    def refits(self) -> int:
        """Versions trained after the first."""
        return max(0, len(self.state.refits) - 1)


@dataclass(slots=True)
class _Kept:
    answers: list[pl.DataFrame] = field(default_factory=list)


def replay(
    system: System,
    table: pl.DataFrame,
    stores: Stores,
    *,
    since: int,
    until: int | None = None,
    step: int = DAY,
    key: bytes = b"replay",
    damage: Sequence[Damage] = (),
    turn: Turn | None = None,
    progress: Progress | None = None,
) -> Replayed:
    """Trains on the rows before `since`, then replays the rest, `step` by `step`.

    Labels arrive `system.labels.arrive_within` after their row (or when its `arrives` column says). The same replay twice
    gives the same ledger, byte for byte; one that was killed goes on where its ledger ends. `turn` is called before each
    step, for rehearsals. Raises: ReplayError for a history without rows on both sides of `since`, and for steps so long that the
    monitor would set their last rows aside.
    """
    if step <= 0:
        raise ReplayError("A replay goes on in steps.", seen=span(step), do="Take steps of a minute and more, such as --step 1d.")
    if until is not None and until <= since:
        raise ReplayError(
            "A replay ends after it begins.", seen=f"from {iso(since)} until {iso(until)}", do="Give a later --until."
        )
    if step > AHEAD:
        raise ReplayError(f"A step is {span(AHEAD)} at most.", seen=span(step), do="Take shorter steps, such as --step 7d.")
    table = table.sort(system.time, maintain_order=True)
    at = table[system.time].dt.epoch("us").to_numpy()
    end = _end(at, since, until, step)
    clock = DataClock(since)
    live = Live(system, replace(stores, ledger=Resuming(stores.ledger)), clock, key=key)
    past = table.filter(pl.Series(at < since))
    blocked = found(live, _known_by(past, system, since))
    if blocked:
        live.event("retrain_failed", trigger="first training", reason="; ".join(reasons(blocked)))
        return _result(live, _Kept(), table, blocked)
    live.retrain("first training", "there is no model yet")
    if live.state.champion is None:
        return _result(live, _Kept(), table, ())
    kept = _Kept()
    arrival = _arrivals(table, system, at)
    order = np.argsort(arrival, kind="stable")
    for now in range(since, end, step):
        if turn is not None:
            turn(live, now)
        _arrive(live, table, arrival, order, now, step)
        rows = table.slice(*_span(at, now, now + step))
        for harm in damage:
            rows = harm(rows, system.time) if rows.height else rows
        if rows.height:
            kept.answers.append(_answer(live, rows))
        clock.advance(now + step)
        live.tick()
        if progress is not None:
            progress((now - since) // step + 1, -(-(end - since) // step))
    live.event("history_replayed", until=iso(end), rows=sum(a.height for a in kept.answers), labels=int((arrival < end).sum()))
    live.stores.tracker.flush()
    return _result(live, kept, table, ())


def _answer(live: Live, rows: pl.DataFrame) -> pl.DataFrame:
    replies, fitted = live.answer(rows.drop(live.system.label, strict=False))
    who = np.array(replies.versions)[replies.arm]
    answer = replies.answer if replies.answer.ndim == 1 else replies.answer.argmax(axis=1).astype(float)
    return fitted.good.select(live.system.key, live.system.time).with_columns(
        _answer=pl.Series(answer), _version=pl.Series(who), _control=pl.Series(_flat(replies.scores[CONTROL]))
    )


def _flat(score: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return score if score.ndim == 1 else score.max(axis=1)


def _arrive(
    live: Live,
    table: pl.DataFrame,
    arrival: np.ndarray[tuple[int], np.dtype[np.int64]],
    order: np.ndarray[tuple[int], np.dtype[np.int64]],
    now: int,
    step: int,
) -> None:
    """Labels that have come since the last step, of rows that were served."""
    system = live.system
    first, last = np.searchsorted(arrival[order], [now - step, now], side="left")
    picked = np.sort(order[first:last])
    if len(picked):
        labels = table[picked].select(system.key, system.label).drop_nulls(system.label)
        served = live.book.expects(pseudonymise(labels, system.private, live.key)[system.key])
        if served.any():
            live.feedback(labels.filter(served))
            teach(live, now)  # a server tells the time within seconds


def _arrivals(
    table: pl.DataFrame, system: System, at: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if system.labels.arrives is None:
        return at + system.labels.arrive_within
    return table[system.labels.arrives].dt.epoch("us").fill_null(np.iinfo(np.int64).max).to_numpy()


def _known_by(past: pl.DataFrame, system: System, now: int) -> pl.DataFrame:
    """The past as it was known: labels that had not come yet are missing."""
    at = past[system.time].dt.epoch("us").to_numpy()
    come = pl.Series(_arrivals(past, system, at) <= now)
    return past.with_columns(pl.when(come).then(pl.col(system.label)).otherwise(None).alias(system.label))


def _span(at: np.ndarray[tuple[int], np.dtype[np.int64]], first: int, last: int) -> tuple[int, int]:
    low, high = np.searchsorted(at, [first, last], side="left")
    return int(low), int(high - low)


def _end(at: np.ndarray[tuple[int], np.dtype[np.int64]], since: int, until: int | None, step: int) -> int:
    if len(at) == 0 or at[0] >= since or at[-1] < since:
        seen = f"{iso(int(at[0]))} to {iso(int(at[-1]))}" if len(at) else "no rows"
        raise ReplayError("A replay needs rows before and after its start.", seen=f"{seen}, start {iso(since)}")
    newest = int(at[-1]) + 1
    return (
        min(until, -(-(newest - since) // step) * step + since)
        if until is not None
        else -(-(newest - since) // step) * step + since
    )


def _result(live: Live, kept: _Kept, table: pl.DataFrame, blocked: tuple[Verdict, ...]) -> Replayed:
    answers = pl.concat(kept.answers) if kept.answers else pl.DataFrame()
    if answers.height:
        key = pl.col(live.system.key).cast(pl.String)
        truth = pseudonymise(table, live.system.private, live.key).select(key, live.system.label)
        answers = answers.with_columns(key).join(truth, on=live.system.key, how="left", maintain_order="left")
        champion, label = live.ready.get(live.state.champion or ""), answers[live.system.label]
        if champion is not None:  # what was set aside as no label judges no month either
            known = known_labels(label, champion.classes, champion.schema)
            answers = answers.with_columns(label.set(~known, None))
    return Replayed(live.system, live.state, tuple(live.stores.ledger.read()), answers, live.tally, blocked)


def monthly(replayed: Replayed) -> dict[str, float | None]:
    """The system's metric by calendar month of event time, of the answers that were given."""
    from_table = replayed.answers.drop_nulls(replayed.system.label)
    return {name: finite(value) for name, value in _by_month(from_table, replayed.system).items()}


def _by_month(answers: pl.DataFrame, system: System) -> dict[str, float]:
    _task, classes = task_of(answers[system.label], system)
    spec = metric(system.metric)
    months = answers.with_columns(_m=pl.col(system.time).dt.strftime("%Y-%m"))
    return {
        str(m): spec(encode(rows[system.label], classes), rows["_answer"].to_numpy())
        for (m,), rows in months.group_by("_m", maintain_order=True)
    }
