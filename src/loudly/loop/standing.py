"""The verdict on a version as of now: what its rollout says while it runs, and what the ledger says when it is over."""

from __future__ import annotations

from dataclasses import replace

from loudly.core.values import Decision, Event, Verdict, verdict_of
from loudly.loop.arms import arms_of, winner
from loudly.loop.host import Host

AGAIN = "the traffic of before the restart is being folded in again"


def standing_verdict(live: Host, version: str | None) -> Verdict:
    """PASS: promoted, or the last stage has passed. FAIL: rolled back, or a stage has failed. UNDECIDED: all else.

    version: `3` or `flights/3`; None means the candidate of the running rollout. A stage that passed before the last is not yet a
    PASS, and a version that became champion without a rollout (the first one) was never judged: that is UNDECIDED, too.
    """
    if version is not None and "/" not in version:
        version = f"{live.system.name}/{version}"
    with live.lock:
        rollout, verdict, stages = live.state.rollout, live.rollout_verdict, len(live.system.rollout)
        known, events = live.state.versions, _spoken(live, version)
    if version is None and rollout is None:
        return _undecided("rollout", "no rollout is running, and no version is named", "a rollout")
    candidates = [arm.version for arm in arms_of(live)[1:]]
    if rollout is not None and verdict is not None and (version is None or version in candidates):
        if version is not None and version in rollout.dropped:
            return replace(verdict_of(rollout.dropped[version]), subject=version)
        told = replace(verdict, subject=version or rollout.version)
        if live.past.open:
            return replace(told, decision=Decision.UNDECIDED, reason=AGAIN, missing="the rest of it")
        if verdict.passed and version is not None and version != winner(live):
            return replace(told, decision=Decision.FAIL, reason=f"another arm wins: {verdict.reason}")
        if verdict.passed and rollout.stage < stages - 1:
            reason = f"stage {rollout.stage + 1} of {stages} has passed: {verdict.reason}"
            return replace(told, decision=Decision.UNDECIDED, reason=reason, missing="the stages after it")
        return told
    if version not in known:
        return _undecided(str(version), f"there is no version {version!r}", "a version of that name")
    return _past(str(version), events)


def _past(version: str, events: list[Event]) -> Verdict:
    """What became of its last rollout: the newest of promotion and rollback decides."""
    for event in reversed(events):
        match event.kind:
            case "version_rolled_back":
                return Verdict(Decision.FAIL, version, f"rolled back: {event.data['reason']}")
            case "champion_changed" if event.data["version"] != version:
                return Verdict(Decision.FAIL, version, f"{event.data['version']} was promoted instead: {event.data['reason']}")
            case "champion_changed" if any(e.kind == "rollout_started" for e in events):
                return Verdict(Decision.PASS, version, f"promoted: {event.data['reason']}")
            case "champion_changed":
                return _undecided(version, "it became champion without a rollout", "a rollout of it")
            case _:
                continue
    return _undecided(version, "its rollout has not begun", "its rollout: `loudly ship`")


def _spoken(live: Host, version: str | None) -> list[Event]:
    """The events that speak about a version."""
    positions = live.state.evidence.get(version or "", ())
    if not positions:
        return []
    wanted = set(positions)
    return [r.event for r in live.stores.ledger.read(min(positions) - 1) if r.position in wanted]


def _undecided(subject: str, reason: str, missing: str) -> Verdict:
    return Verdict(Decision.UNDECIDED, subject, reason, missing=missing)
