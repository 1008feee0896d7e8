"""One look at a wheel, as plain data: what its status page shows beside what `/status` says.

What moves is read under the lock of the wheel; figures are computed when it was given back, each window's once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loudly.core.canon import Json, finite
from loudly.core.clock import iso, moment
from loudly.core.seams import Floats
from loudly.core.values import Verdict, plain
from loudly.loop.host import Host
from loudly.loop.state import State
from loudly.loop.strategies import scaled
from loudly.loop.tell import tell
from loudly.loop.why import standing
from loudly.shift.estimate.labelled import sound

STORY, VERSIONS, WINDOWS = 60, 12, 28
# Fewer labelled rows say nothing of a window.
FEW = 30
Batches = Sequence[tuple[Floats, Floats]]


class Overview:
    """Looks at a Live as often as somebody asks."""

    def __init__(self, live: Host) -> None:
        self._live = live
        self._known: dict[int, tuple[int, float | None]] = {}

    def plain(self) -> dict[str, Json]:
        """What there is to see now.

        rollout: None, or its stage and verdict.  quality: by window of event time, what labels have confirmed, and whether the
        champion of now answered there (`own`).  windows: answers by window.  versions: the newest.  alarms: those that are open.
        story: the newest events, as sentences.
        """
        live = self._live
        with live.lock:
            state, verdict = live.state, live.rollout_verdict
            labelled = {start: tuple(batches) for start, batches in live.watch.trail.rows.items()}
            answered = {start: seen.profile.rows for start, seen in live.watch.shifts.windows.items()}
            confirmed = live.watch.confirmed
        return {
            "name": live.system.name,
            "now": iso(moment(live.clock)),
            "killed": state.killed,
            "champion_since": iso(state.champion_since) if state.champion else None,
            "rollout": self._rollout(state, verdict),
            "quality": self._quality(state, labelled, confirmed),
            "windows": [{"at": iso(start), "rows": answered.get(start, 0)} for start in self._windows(answered)],
            "versions": _versions(state, self._live.system.metric),
            "alarms": [_alarm(alarm) for alarm in state.alarms.values()],
            "story": self._story(state),
        }

    def _rollout(self, state: State, verdict: Verdict | None) -> dict[str, Json] | None:
        rollout, stages = state.rollout, self._live.system.rollout
        if rollout is None or rollout.stage >= len(stages):
            return None
        spec = stages[rollout.stage]
        return {
            "versions": [rollout.version, *rollout.others],
            "strategy": rollout.strategy or spec.strategy,
            "stage": rollout.stage + 1,
            "stages": [stage.strategy for stage in stages],
            "since": iso(rollout.stage_at),
            "deadline": iso(rollout.stage_at + spec.deadline),
            "margin": scaled(self._live.system, spec, None, state.expects(state.champion, self._live.system.metric)).margin,
            "verdict": plain(verdict) if verdict is not None else None,
        }

    def _quality(self, state: State, labelled: Mapping[int, Batches], confirmed: Verdict | None) -> dict[str, Json]:
        metric, monitor = self._live.watch.metric, self._live.system.monitor
        starts = self._windows(labelled)
        self._known = {start: self._value(start, labelled.get(start, ())) for start in starts}
        own = state.champion_since - monitor.window
        windows: list[Json] = [
            {"at": iso(s), "rows": self._known[s][0], "value": self._known[s][1], "own": s > own} for s in starts
        ]
        return {
            "metric": metric.name,
            "expected": state.expects(state.champion, metric.name),
            "tolerance": monitor.tolerated(state.expects(state.champion, metric.name)),
            "windows": windows,
            "verdict": plain(confirmed) if confirmed is not None else None,
        }

    def _windows(self, known: Iterable[int]) -> range:
        """The newest windows up to the last that is known, without a gap."""
        size, starts = self._live.system.monitor.window, sorted(known)
        return range(max(starts[0], starts[-1] - (WINDOWS - 1) * size), starts[-1] + 1, size) if starts else range(0)

    def _value(self, start: int, batches: Batches) -> tuple[int, float | None]:
        """Labelled rows of a window, and what its answers were worth; computed again only where labels have come."""
        rows, known = sum(len(truth) for truth, _ in batches), self._known.get(start)
        if known is not None and known[0] == rows:
            return known
        if rows < FEW:
            return rows, None
        truth, score = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        told = sound(score)
        return rows, finite(float(self._live.watch.metric(truth[told], score[told]))) if told.any() else None

    def _story(self, state: State) -> list[Json]:
        recorded = list(self._live.stores.ledger.read(max(0, state.position - STORY)))
        return [{"at": iso(r.event.at), "kind": r.event.kind, "text": tell(r.event)} for r in reversed(recorded)]


def _versions(state: State, metric: str) -> list[Json]:
    newest = list(state.versions.values())[: -VERSIONS - 1 : -1]
    return [
        {
            "version": v.ref,
            "standing": standing(state, v.ref),
            "format": v.format,
            "rows": state.trained_rows.get(v.ref),
            "expected": finite(state.expects(v.ref, metric)),
            "registered": iso(v.at),
        }
        for v in newest
    ]


def _alarm(alarm: Mapping[str, Any]) -> dict[str, Json]:
    return {"cause": alarm["cause"], "at": iso(alarm["at"]), "reason": alarm["reason"], "blame": alarm.get("blame")}
