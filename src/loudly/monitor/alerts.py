"""Alarms: one for a cause until it clears, within a budget; what is held back is told with its reason, and stays counted.

A cause that pages is raised once. Shifts come here only within the alert budget over columns and windows (`monitor.shifts`); those
of one window make one alarm; and a shift that does no harm, as labels or the estimate say, is held back until that changes.
What belongs to no window, such as a silence, begins and ends by the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from loudly.core.canon import Json
from loudly.core.values import Event, Verdict, plain
from loudly.monitor.failing import ANSWERS, ROWS, VALUES
from loudly.monitor.judged import Cause, Weight, WindowJudged
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.silence import LABELS, MOST_LABELS, MOST_REQUESTS, REQUESTS

CALM_WINDOWS = {"feed": 2, "performance": 7, "calibration": 7, "stream": 7}
PAGES = tuple(CALM_WINDOWS)
# Causes of the clock, and what is said when they are over.
OVER = {
    REQUESTS: "it is heard again",
    LABELS: "it is heard again",
    MOST_REQUESTS: "24 hours bring as many rows as is usual by now",
    MOST_LABELS: "labels come for as many answers as is usual by now",
    ANSWERS: "the champion answers again",
    ROWS: "nearly all rows fit the schema again",
    VALUES: "nearly all labels are of known values again",
}
SHIFT = "shift: "
BUDGET = "over the budget"
# What is broken whoever the champion is; and what pages whatever the budget says.
STANDING = ("feed", "silence")
ALWAYS = (*STANDING, "failure")

Explain = Callable[[Cause, WindowJudged], tuple[Verdict, Mapping[str, Json]]]


def _unexplained(cause: Cause, window: WindowJudged) -> tuple[Verdict, Mapping[str, Json]]:
    return cause.verdict, {}


class Alerts:
    """Remembers which causes are open, which are held back and why, and how many alarms the period has had.

    weigh: whether shifts matter as of now.  explain: the verdict of a cause with what is to blame, asked when it is raised.
    """

    def __init__(
        self, settings: MonitorSettings, weigh: Callable[[int], Weight] | None = None, explain: Explain = _unexplained
    ) -> None:
        self._settings, self._weigh, self._explain = settings, weigh, explain
        self._open: dict[str, int] = {}
        self._kinds: dict[str, str] = {}
        self._held: dict[str, str] = {}
        self._raised: list[int] = []
        self._said: str = ""

    def by_clock(self, causes: Sequence[Cause], now: int, version: str | None = None) -> tuple[Event, ...]:
        """Alarms of the clock that begin, and those that are over. causes: all that there are.  version: of the champion."""
        found = {c.cause: c for c in causes}
        over = [c for c in self._open if c in OVER and c not in found]
        for cause in over:
            del self._open[cause]
        ended = [Event("alarm_cleared", now, {"cause": c, "reason": OVER[c]}) for c in over]
        new = [about for cause, about in found.items() if cause not in self._open]
        return (*ended, *(self._raise(about, (about.verdict, {}), now, now, version) for about in new))

    def events(self, judged: tuple[WindowJudged, ...], now: int, version: str | None = None) -> tuple[Event, ...]:
        """What the windows judged just now mean for the alarms: raised, cleared, or held back. version: of the champion."""
        made: list[Event] = []
        held: dict[str, Weight] = {}
        for window in judged:
            failing = {c.cause: c for c in window.causes if c.kind in PAGES}
            for cause, about in failing.items():
                if cause in self._open:
                    self._open[cause] = 0
                elif self._within_budget(now, about.kind):
                    made.append(self._raise(about, self._explain(about, window), window.start, now, version))
                else:
                    held[cause] = self._over_budget()
            made.extend(self._calm(failing, window, now))
            if not window.revision:
                made.extend(self._shifts(window, now, version, held))
        return (*made, *self._told(held, now))

    def reset(self, open_alarms: Mapping[str, Mapping[str, Any]], now: int) -> tuple[Event, ...]:
        """A new champion ends alarms about the old one, and what was held back about it; a broken feed stays broken."""
        ended = [cause for cause, alarm in open_alarms.items() if alarm["alarm"] not in STANDING]
        for cause in ended:
            self._open.pop(cause, None)
        self._held = {}
        return tuple(Event("alarm_cleared", now, {"cause": c, "reason": "a new champion answers"}) for c in ended)

    def reopen(self, open_alarms: Mapping[str, Mapping[str, Any]], held: Mapping[str, str]) -> None:
        """After a restart: what the ledger says is open is open, and what was held back has been told."""
        self._open = dict.fromkeys(open_alarms, 0)
        self._kinds = {cause: str(alarm["alarm"]) for cause, alarm in open_alarms.items()}
        self._raised = sorted(int(alarm["at"]) for alarm in open_alarms.values())
        self._held = dict(held)

    def news(self, text: str) -> bool:
        """Whether this was not the last thing said: a standing refusal is told once."""
        fresh = text != self._said
        self._said = text
        return fresh

    # -- shifts ------------------------------------------------------------------------------------------------------

    def _shifts(self, window: WindowJudged, now: int, version: str | None, held: dict[str, Weight]) -> list[Event]:
        """Shifts within the alert budget: one alarm for those of a window that matter, the others held back.

        What is held back stays so until it matters or another champion answers: weather that comes and goes is told once.
        """
        over = [c for c in window.cleared if c in self._open]
        quiet = f"{self._settings.quiet} windows without it"
        made = [Event("alarm_cleared", now, {"cause": c, "reason": quiet}) for c in over]
        for cause in over:
            del self._open[cause]
        failing = {c.cause: c for c in window.causes if c.kind == "shift" and c.cause not in self._open}
        waiting = [c for c in failing if c in window.raised or c in self._held]
        if not waiting:
            return made
        weight, first, standing = self._weight(now), waiting[0], [c for c in self._open if c.startswith(SHIFT)]
        if not weight.pages:
            held.update(dict.fromkeys(waiting, weight))
        elif standing:
            held.update(dict.fromkeys(waiting, Weight(False, "part", f"the alarm {standing[0]!r} is open")))
        elif not self._within_budget(now, "shift"):
            held.update(dict.fromkeys(waiting, self._over_budget()))
        else:
            verdict, blame = self._explain(failing[first], window)
            because = f"{verdict.reason}; {weight.reason}" if weight.reason else verdict.reason
            made.append(self._raise(failing[first], (replace(verdict, reason=because), blame), window.start, now, version))
            held.update(dict.fromkeys(waiting[1:], Weight(False, "part", f"told in the alarm {first!r}")))
        return made

    def _weight(self, now: int) -> Weight:
        match self._settings.pages:
            case "all":
                return Weight(True, "asked", "")
            case "none":
                return Weight(False, "none", "shifts page nobody here")
            case _:
                return (
                    self._weigh(now) if self._weigh is not None else Weight(True, "unknown", "nobody can tell whether it matters")
                )

    # -- the words ---------------------------------------------------------------------------------------------------

    def _raise(
        self, about: Cause, explained: tuple[Verdict, Mapping[str, Json]], window: int, now: int, version: str | None
    ) -> Event:
        verdict, blame = explained
        self._open[about.cause], self._kinds[about.cause] = 0, about.kind
        self._held.pop(about.cause, None)
        self._raised.append(now)
        data: dict[str, Json] = {
            "cause": about.cause,
            "alarm": about.kind,
            "reason": verdict.reason,
            "window": window,
            "verdict": plain(verdict),
            "blame": dict(blame),
        }
        return Event("alarm_raised", now, data | ({"version": version} if version else {}))

    def _told(self, held: Mapping[str, Weight], now: int) -> tuple[Event, ...]:
        """What is held back for a reason that was not told yet."""
        news = {cause: weight for cause, weight in sorted(held.items()) if self._held.get(cause) != weight.kind}
        self._held |= {cause: weight.kind for cause, weight in held.items()}
        if not news:
            return ()
        causes: Json = list(news)
        data: dict[str, Json] = {
            "count": len(news),
            "budget": self._settings.budget,
            "causes": causes,
            "kinds": {cause: weight.kind for cause, weight in news.items()},
            "why": {cause: weight.reason for cause, weight in news.items()},
        }
        return (Event("alarms_muted", now, data),)

    def _calm(self, failing: Mapping[str, Any], window: WindowJudged, now: int) -> list[Event]:
        """A cause that was absent for some windows in a row is over; windows in which nobody could tell do not count."""
        if window.revision:
            return []
        made = []
        of_windows = [c for c in self._open if c not in OVER and not c.startswith(SHIFT)]
        for cause in [c for c in of_windows if c not in failing and self._kinds[c] not in window.untold]:
            self._open[cause] += 1
            calm = CALM_WINDOWS[self._kinds[cause]]
            if self._open[cause] >= calm:
                del self._open[cause]
                made.append(Event("alarm_cleared", now, {"cause": cause, "reason": f"{calm} calm windows"}))
        for cause in [c for c in self._held if c not in failing and not c.startswith(SHIFT)]:
            del self._held[cause]
            made.append(Event("alarm_cleared", now, {"cause": cause, "reason": "it was held back and is over"}))
        return made

    def _over_budget(self) -> Weight:
        return Weight(False, "budget", f"{BUDGET} of {self._settings.budget}")

    def _within_budget(self, now: int, kind: str) -> bool:
        """What is broken always pages; the budget is for the rest."""
        self._raised = [at for at in self._raised if at > now - self._settings.period]
        return kind in ALWAYS or len(self._raised) < self._settings.budget
