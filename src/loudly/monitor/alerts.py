"""Alarms: one for a cause until it clears, within a budget; the rest is kept for the digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loudly.core.canon import Json
from loudly.core.values import Event, plain
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.watch import WindowJudged

PAGES = ("feed", "performance", "calibration")
CALM_WINDOWS = {"feed": 2, "performance": 7, "calibration": 7}


class Alerts:
    """Remembers which causes are open and how many alarms the period has had."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._open: dict[str, int] = {}
        self._kinds: dict[str, str] = {}
        self._raised: list[int] = []
        self._said: str = ""

    def events(self, judged: tuple[WindowJudged, ...], now: int) -> tuple[Event, ...]:
        """What the windows judged just now mean for the alarms: raised, cleared, or over the budget."""
        made: list[Event] = []
        muted: list[str] = []
        for window in judged:
            failing = {c.cause: c for c in window.causes if c.kind in PAGES}
            for cause, about in failing.items():
                if cause in self._open:
                    self._open[cause] = 0
                elif self._within_budget(now, about.kind):
                    made.append(self._raise(cause, about, window, now))
                else:
                    muted.append(cause)
            made.extend(self._calm(failing, window, now))
        if muted:
            causes: Json = sorted(set(muted))
            made.append(Event("alarms_muted", now, {"count": len(muted), "budget": self._settings.budget, "causes": causes}))
        return tuple(made)

    def reset(self, open_alarms: Mapping[str, Mapping[str, Any]], now: int) -> tuple[Event, ...]:
        """A new champion ends alarms about the old one; a broken feed stays broken."""
        ended = [cause for cause, alarm in open_alarms.items() if alarm["alarm"] != "feed"]
        for cause in ended:
            self._open.pop(cause, None)
        return tuple(Event("alarm_cleared", now, {"cause": c, "reason": "a new champion answers"}) for c in ended)

    def reopen(self, open_alarms: Mapping[str, Mapping[str, Any]]) -> None:
        """After a restart: the ledger's open alarms are open."""
        self._open = dict.fromkeys(open_alarms, 0)
        self._kinds = {cause: str(alarm["alarm"]) for cause, alarm in open_alarms.items()}

    def news(self, text: str) -> bool:
        """Whether this was not the last thing said: a standing refusal is told once."""
        fresh = text != self._said
        self._said = text
        return fresh

    def _raise(self, cause: str, about: Any, window: WindowJudged, now: int) -> Event:
        self._open[cause], self._kinds[cause] = 0, about.kind
        self._raised.append(now)
        data: dict[str, Json] = {
            "cause": cause,
            "alarm": about.kind,
            "reason": about.verdict.reason,
            "window": window.start,
            "verdict": plain(about.verdict),
        }
        return Event("alarm_raised", now, data)

    def _calm(self, failing: Mapping[str, Any], window: WindowJudged, now: int) -> list[Event]:
        """A cause that was absent for some windows in a row is over."""
        if window.revision:
            return []
        made = []
        for cause in [c for c in self._open if c not in failing]:
            self._open[cause] += 1
            calm = CALM_WINDOWS[self._kinds[cause]]
            if self._open[cause] >= calm:
                del self._open[cause]
                made.append(Event("alarm_cleared", now, {"cause": cause, "reason": f"{calm} calm windows"}))
        return made

    def _within_budget(self, now: int, kind: str) -> bool:
        """A broken feed always pages; the budget is for the rest."""
        self._raised = [at for at in self._raised if at > now - self._settings.period]
        return kind == "feed" or len(self._raised) < self._settings.budget
