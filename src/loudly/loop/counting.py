"""What a rollout is told besides labels: what its calls came to, and the time. All of it stands in the traffic log.

The guards count what only a server sees: units that an arm failed, calls that were slow. It is logged as it is told, under the lock
of the Live and so in one order with the labels: one record ("calls") a fold, none where no rollout runs. A restart tells the same
once more, from the log, and the rollout comes to the state that it had; so can a guard's decision be followed record by record.

A record names its rollout and stage, and tells nothing to another. When a stage begins, and when a restart has caught up, the log
also gets the state as it then is: the evidence that a stage goes on from, and what was told before records that have expired. A
state of another form than this program's is passed over, for the log itself tells nearly as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from loudly.core.clock import MINUTE, moment
from loudly.core.seams import Calls
from loudly.core.values import Task
from loudly.data.pseudonym import pseudonym
from loudly.deliver.failing import Failing, telling
from loudly.errors import one_line
from loudly.loop.arms import arms_of, decided
from loudly.loop.calls import CALLS, Call, Entry, Told, told_of
from loudly.loop.host import Host
from loudly.loop.slices import slice_rows
from loudly.loop.teaching import teach
from loudly.loop.traffic import all_of
from loudly.serve.replies import CANDIDATE, CONTROL, Replies
from loudly.store.segments import Record

STATE_EVERY, MOST_LOOKED = 5 * MINUTE, 500_000


class Counting:
    """Tells the strategy of a Live, and logs it. Whoever calls holds the lock of the Live and ends what is one record by `log`.

    resumed: whether a bandit assigns by a state of before the restart, and not by what is folded so far.
    """

    def __init__(self, live: Host) -> None:
        self._live = live
        self._failing = (0, Failing())
        self._fresh: list[Entry] = []
        self._stated = 0
        self.resumed = False

    def answers(self, rows: pl.DataFrame, replies: Replies, calls: Sequence[tuple[Replies, Sequence[Any]]] = ()) -> None:
        """Answers, failures and disagreement for the rollout that runs. calls: the same, call by call, with its units."""
        live = self._live
        if live.strategy is None:
            return
        with live.tally.spend("rollout"):
            classes = live.ready[live.state.champion or ""].task is not Task.REGRESSION
            both = replies.scores[CONTROL], replies.scores[CANDIDATE]
            live.disagreement.add(*both, slice_rows(live.system, rows), classes=classes)
        for index, arm in enumerate(replies.names):
            live.given[arm] = live.given.get(arm, 0) + int((replies.arm == index).sum())
        for one, units in _together(calls) or ((replies, rows[live.system.key].to_list()),):
            self.call(one, units)

    def call(self, replies: Replies, units: Sequence[Any]) -> None:
        """One call of the arms."""
        found = telling(replies.lacking()) if any(replies.failed.values()) else None
        failed = (self._hidden(units[found[0]]), found[1]) if found is not None else None
        self._told(({arm: n for arm, n in replies.answered.items() if n}, failed, dict(replies.seconds)))

    def time(self, now: int) -> None:
        """Time has passed; labels that have come are told before. Now and then the log gets the state of a bandit, too."""
        self._told(now)
        rollout = self._live.state.rollout
        if rollout is not None and now - self._stated >= STATE_EVERY and self._live.system.rollout[rollout.stage].bandit:
            self._state(now)

    def begun(self) -> None:
        """A stage begins, or goes on, from the state as it is now."""
        self._state(self._live.clock.now())
        self.log()

    def resume(self, records: Iterable[Record]) -> None:
        """Until the past is folded a bandit assigns by the newest state that its log knows. records: the newest first."""
        live, rollout = self._live, self._live.state.rollout
        if rollout is None or live.strategy is None or not live.system.rollout[rollout.stage].bandit:
            return
        for record in islice(records, MOST_LOOKED):
            told = told_of(record.payload) if record.kind == CALLS else None
            if told is None or (told.rollout, told.stage) != (rollout.started, rollout.stage):
                continue
            state = next((e for e in reversed(told.entries) if isinstance(e, dict) and self._fits(e)), None)
            if state is not None:
                with live.lock:
                    if live.router is not None and live.state.rollout == rollout:
                        live.router.swap(replace(live.router.routing, state=decided(live, state)))
                        self.resumed = True
                return

    def caught_up(self) -> None:
        """The past is folded: answers go by it, and the next restart from it."""
        self.resumed = False
        self._live.route()
        self.begun()

    def log(self) -> None:
        """Logs what was told since the last time, as one record."""
        log, rollout = self._live.stores.traffic, self._live.state.rollout
        fresh, self._fresh = self._fresh, []
        if fresh and log is not None and rollout is not None:
            log.append(CALLS, Told(rollout.started, rollout.stage, moment(self._live.clock), tuple(fresh)).to_bytes())

    def fold(self, told: Told) -> None:
        """A record of the log, told again after a restart. What a strategy could not take then is noted, as it was then."""
        rollout = self._live.state.rollout
        if self._live.strategy is None or rollout is None or told.rollout != rollout.started:
            return
        for entry in told.entries:
            if told.stage == rollout.stage:
                self._try_to_tell(entry)
            elif isinstance(entry, tuple):
                self._failed(entry)  # a unit is counted once a rollout
            elif isinstance(entry, int):
                teach(self._live, entry)  # in a stage before; its state follows

    def _try_to_tell(self, entry: Entry) -> None:
        try:
            self._tell(entry)
        except Exception as wrong:  # noqa: BLE001 - whatever it is, the rest of the log is folded
            self._live.answering.raised_by_fold.note([f"wheel: {one_line(wrong)}"])

    def _told(self, entry: Entry) -> None:
        """While the past is folded it is logged alone, and told from there."""
        self._keep(entry)
        if not self._live.answering.behind:
            self._tell(entry)

    def _state(self, now: int) -> None:
        """The state for the log alone; none of a bandit that waits for a mended reward."""
        if self._live.strategy is not None and "frozen" not in self._live.rollout_state:
            self._keep(self._live.rollout_state)
            self._stated = now

    def _fits(self, state: Mapping[str, Any]) -> bool:
        """Whether a state is of the form that the strategy has now."""
        strategy, rollout = self._live.strategy, self._live.state.rollout
        return (
            strategy is not None and rollout is not None and _has(state, strategy.init(arms_of(self._live), rollout.stage_at, None))
        )

    def _keep(self, entry: Entry) -> None:
        if self._live.stores.traffic is not None:
            self._fresh.append(entry)

    def _tell(self, entry: Entry) -> None:
        live, strategy = self._live, self._live.strategy
        assert strategy is not None
        if isinstance(entry, dict):
            live.rollout_state = entry if self._fits(entry) else live.rollout_state
        elif isinstance(entry, int):
            teach(live, entry)
            live.rollout_state, live.rollout_verdict = strategy.advance(live.rollout_state, entry)
        else:
            calls = Calls(entry[0], self._failed(entry), entry[2])
            live.rollout_state, live.rollout_verdict = strategy.observe(live.rollout_state, calls)

    def _failed(self, call: Call) -> dict[str, int]:
        """How many units of each arm failed for the first time in this rollout, by this call."""
        rollout = self._live.state.rollout
        if call[1] is None or rollout is None:
            return {}
        unit, arm = call[1]
        known, first = (self._failing[1] if self._failing[0] == rollout.started else Failing()).add(unit)
        self._failing = rollout.started, known
        return {arm: int(first)}

    def _hidden(self, unit: Any) -> str:
        """As a subject is called: it stays in the log when its rows are forgotten, unless this is."""
        return str(unit) if self._live.system.key in self._live.system.private else pseudonym(str(unit), self._live.key)


def late_call(arms: Sequence[str], arm: str, n: int) -> Replies:
    """A call of `n` units that one of the arms did not answer in time."""
    nothing, lost = np.full(n, np.nan), {arm: n}
    scores = dict.fromkeys(arms, nothing)
    nobody, late = np.zeros(n, dtype=np.int64), ("no answer in time",)
    return Replies(nothing, nobody, np.ones(n), np.ones(n, dtype=bool), scores, ("",) * len(arms), lost, lost, late, {})


def _together(calls: Sequence[tuple[Replies, Sequence[Any]]]) -> Sequence[tuple[Replies, Sequence[Any]]]:
    """Calls without a time or a failure in which every arm scored every row are one call: only their counts matter."""
    alike = [call for call in calls if _by_all(call[0])]
    apart = tuple(call for call in calls if not _by_all(call[0]))
    if not alike:
        return apart
    return (*apart, (all_of([replies for replies, _ in alike]), [unit for _, units in alike for unit in units]))


def _by_all(call: Replies) -> bool:
    scored = call.answered
    return not (call.seconds or any(call.failed.values())) and len(scored) == len(call.names) and len(set(scored.values())) == 1


def _has(state: Mapping[str, Any], fresh: Mapping[str, Any]) -> bool:
    """Whether a state has all that a fresh one has."""
    return all(
        name in state and (not isinstance(part, dict) or (isinstance(state[name], dict) and _has(state[name], part)))
        for name, part in fresh.items()
    )
