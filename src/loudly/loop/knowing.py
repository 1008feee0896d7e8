"""What the policy may look at, as of now."""

from __future__ import annotations

from loudly.core.values import Decision, Verdict
from loudly.loop.arms import winner
from loudly.loop.host import Host
from loudly.loop.policy import Known, Underway


def known(live: Host) -> Known:
    """All of it."""
    state, now = live.state, live.clock.now()
    return Known(
        now=now,
        champion=state.champion,
        fitted_at=state.fitted_at.get(state.champion or ""),
        refits=state.refits,
        trained_rows=state.trained_rows.get(state.champion or "", 0),
        new_rows=live.retraining.new_rows,
        broken=tuple(sorted(c for c, a in state.alarms.items() if a["alarm"] == "feed")),
        signals=live.watch.signals(now),
        underway=_underway(live),
        killed=state.killed,
        unconfirmed=live.confirming.known(),
    )


def _underway(live: Host) -> Underway | None:
    rollout = live.state.rollout
    stages = len(live.system.rollout)
    if rollout is not None and rollout.stage >= stages:
        gone = f"its stage {rollout.stage + 1} is no part of the system any more"
        return Underway(rollout.version, rollout.stage, stages, Verdict(Decision.UNDECIDED, "rollout", gone, missing=gone), 0)
    if rollout is None or live.rollout_verdict is None:
        return None
    deadline = rollout.stage_at + live.system.rollout[rollout.stage].deadline
    return Underway(rollout.version, rollout.stage, stages, live.rollout_verdict, deadline, winner(live))
