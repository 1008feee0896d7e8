"""After a promotion the rollback stays armed until the labels of the rollout's own rows have come.

A verdict rests on the labels that were there. Those that come late may be of another kind (a fraud is reported weeks after a
sale), so the promoted arm goes on being judged against the champion before, on the rows of their rollout: surely worse is a
rollback at once, and so is an effect nearer to the margin than to none when all labels are there or have had their time. Else the
promotion is confirmed, and the event names what never got a label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl

from loudly.core.values import Decision, Verdict
from loudly.deliver.duel import Duel
from loudly.errors import LoudlyError
from loudly.loop.arms import arms_in, context_now
from loudly.loop.host import Host
from loudly.loop.policy import Unconfirmed
from loudly.loop.state import Promotion
from loudly.loop.strategies import scaled, strategy_of
from loudly.loop.teaching import PATIENCE, freeze, lesson, of_rollout, ripe_for_rewards, unripe_of
from loudly.loop.unripe import Unripe
from loudly.loop.untaught import Untaught

GONE = "the stage that promoted it is no part of the system any more, so nothing judges its labels"


class Confirming:
    """The promotion of a Live that waits for its labels: the arm that was promoted against the champion before."""

    def __init__(self, live: Host) -> None:
        self._live = live
        self._nothing()

    def _nothing(self) -> None:
        self._started: int | None = None
        self._duel: Duel | None = None
        self._state: dict[str, Any] = {}
        self._verdict: Verdict | None = None
        self._unarmed = False
        self._unripe, self._untaught = Unripe(), Untaught(self._live.stores.shelf)

    def follow(self, state: dict[str, Any] | None = None, unripe: Unripe | None = None) -> None:
        """Takes up what the ledger says is unconfirmed: with the state that promoted it, or anew after a restart.

        unripe: labelled rows that a bandit has not been taught yet.
        """
        live, known = self._live, self._live.state.confirming
        if known is None or known.rollout.stage >= len(live.system.rollout):
            self._nothing()
        elif known.rollout.started != self._started:
            self._nothing()
            self._begin(known, state)
            spec = live.system.rollout[known.rollout.stage]
            self._unripe = unripe if unripe is not None and spec.rewarded else unripe_of(live, spec)

    def _begin(self, known: Promotion, state: dict[str, Any] | None) -> None:
        live, rollout = self._live, known.rollout
        arms, context = arms_in(live.system, rollout, known.previous), context_now(rollout)
        index = next((k for k, arm in enumerate(arms) if k and arm.version == known.version), None)
        if index is None:
            return
        live.adopt(known.version)
        expected = live.state.expects(known.previous, live.system.metric)
        spec = replace(scaled(live.system, live.system.rollout[rollout.stage], rollout.scale, expected), ramp=())
        task = live.ready[known.version].task
        strategy = strategy_of(live.system, spec, task, context.features if context else 0, rollout.rates)
        self._started, self._duel = rollout.started, Duel(strategy, arms, index)
        self._state = self._duel.init(rollout.stage_at, state)
        self._verdict = Verdict(Decision.UNDECIDED, strategy.name, "promoted; labels are still to come", missing="labels")

    def labels(self, rows: pl.DataFrame, now: int) -> None:
        """Labelled rows that have come; those of the rollout are judged when the time is told, or their hour is over."""
        if self._duel is not None:
            if self._untaught.closed(now):
                self._learn(now)
            self._untaught.add(rows, now)

    def forget(self, gone: Callable[[pl.DataFrame], pl.Series]) -> None:
        """Without the rows of a subject that wait. gone: a table -> (n,) booleans."""
        self._untaught.forget(gone)
        self._unripe.forget(gone)

    def advance(self, now: int) -> None:
        """Time has passed."""
        if self._duel is not None:
            self._learn(now)
            self._state, self._verdict = self._duel.advance(self._state, now)
        elif (known := self._live.state.confirming) is not None and not self._unarmed:
            what = f"the rollback of {known.version} by labels that are still to come"
            self._live.event("guarantee_weakened", version=known.version, what=what, reason=GONE)
            self._unarmed = True  # told once; again where somebody else has written meanwhile

    def _learn(self, now: int) -> None:
        known, (came, at) = self._live.state.confirming, self._untaught.take(now)
        if known is None or self._duel is None:
            return
        spec, rows = self._live.system.rollout[known.rollout.stage], of_rollout(self._live, known.rollout, came)
        if spec.rewarded:
            rows = ripe_for_rewards(self._live, self._unripe, rows, at)
        self._teach(rows, at)

    def _teach(self, rows: pl.DataFrame, now: int) -> None:
        known, duel = self._live.state.confirming, self._duel
        if known is None or duel is None or rows.is_empty() or "frozen" in self._state:
            return
        try:
            told = lesson(self._live, known.rollout, rows, now, [arm.name for arm in duel.arms])
        except LoudlyError as wrong:
            self._state = freeze(self._live, known.version, self._state, wrong)
            return
        self._state, self._verdict = duel.update(self._state, told)

    def known(self) -> Unconfirmed | None:
        """What the policy may look at."""
        self._learn(self._live.clock.now())
        live, state = self._live, self._live.state.confirming
        if state is None:
            return None
        rollout, verdict = state.rollout, self._verdict or Verdict(Decision.UNDECIDED, "rollout", GONE, missing=GONE)
        waiting = live.book.waiting_of("_rollout", rollout.started, rollout.at)[0] + len(self._unripe)
        wait = (rollout.labels or {}).get("wait") or 0
        until = state.at + PATIENCE * max(live.system.labels.arrive_within, wait)
        return Unconfirmed(state.version, state.previous, verdict, waiting, until)
