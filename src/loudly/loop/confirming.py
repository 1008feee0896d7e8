"""After a promotion the rollback stays armed until the labels of the rollout's own rows have come.

A verdict rests on the labels that were there. Those that come late may be of another kind (a fraud is reported weeks after a
sale), so the strategy goes on judging the rows of its rollout after the promotion: surely worse is a rollback at once, and so is
an effect nearer to the margin than to none when all labels are there or have had their time. Else the promotion is confirmed, and
the event names what never got a label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loudly.core.seams import Strategy
from loudly.core.values import Arm, Decision, Verdict
from loudly.loop.labelled import feedback_of
from loudly.loop.policy import Unconfirmed
from loudly.loop.strategies import strategy_of
from loudly.serve.router import CANDIDATE, CONTROL

if TYPE_CHECKING:
    import polars as pl

    from loudly.core.seams import Floats
    from loudly.loop.live import Live

# Labels have had their time when twice the time has gone by within which nearly all come.
PATIENCE = 2


class Confirming:
    """The promotion of a Live that waits for its labels: the strategy that made it, and what it says by now."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._started: int | None = None
        self._strategy: Strategy | None = None
        self._state: dict[str, Any] = {}
        self._verdict: Verdict | None = None

    def follow(self, strategy: Strategy | None = None, state: dict[str, Any] | None = None) -> None:
        """Takes up what the ledger says is unconfirmed: with the strategy and state that promoted it, or anew after a restart."""
        live, known = self._live, self._live.state.confirming
        spec = live.system.rollout[known.stage] if known is not None and known.stage < len(live.system.rollout) else None
        if known is None or spec is None or spec.rewarded or spec.arms > 2:
            self._started, self._strategy, self._state, self._verdict = None, None, {}, None
            return
        if known.started == self._started:
            return
        if strategy is None or state is None:
            live.adopt(known.version)
            strategy = strategy_of(live.system, spec, live.ready[known.version].task, 0)
            state = strategy.init((Arm(CONTROL, known.previous), Arm(CANDIDATE, known.version)), known.stage_at)
        self._started, self._strategy, self._state = known.started, strategy, state
        self._verdict = Verdict(Decision.UNDECIDED, strategy.name, "promoted; labels are still to come", missing="labels")

    def labels(self, rows: pl.DataFrame, truth: Floats, now: int) -> None:
        """Labelled rows that have come; those of the rollout are judged."""
        if self._strategy is None:
            return
        mine = rows["_rollout"].to_numpy() == self._started
        if mine.any():
            given = feedback_of(self._live.system, rows.filter(mine), truth[mine], now, (CONTROL, CANDIDATE))
            self._state, self._verdict = self._strategy.update(self._state, given)

    def advance(self, now: int) -> None:
        """Time has passed."""
        if self._strategy is not None:
            self._state, self._verdict = self._strategy.advance(self._state, now)

    def known(self) -> Unconfirmed | None:
        """What the policy may look at."""
        live, state = self._live, self._live.state.confirming
        if state is None or self._verdict is None:
            return None
        waiting = live.book.waiting_of("_rollout", state.started)
        until = state.at + PATIENCE * live.system.labels.arrive_within
        return Unconfirmed(state.version, state.previous, self._verdict, waiting, until)
