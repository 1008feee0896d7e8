"""What a closed window has to say: the nouns between the watch and the alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loudly.core.canon import Json
from loudly.core.clock import iso
from loudly.core.values import Verdict


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong in a window; `cause` stays the same while it lasts.

    kind: feed | shift | estimate | performance | calibration | stream | silence | failure.
    """

    kind: str
    cause: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Weight:
    """Whether a shift matters as of now. kind: one word for why, which stays the same while that does."""

    pages: bool
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class WindowJudged:
    """A closed window and all that was found in it. `revision` counts corrections by late rows.

    raised, cleared: causes of kind "shift" that are new within the alert budget, and those that have been quiet long enough.
    untold: kinds of cause that nobody could judge here, for want of rows or labels: their absence is no calm.
    """

    start: int
    end: int
    revision: int
    rows: int
    causes: tuple[Cause, ...]
    shifts: Mapping[str, float]
    summary: str
    raised: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()

    @property
    def worth_telling(self) -> bool:
        """Whether the window goes into the ledger: something is wrong, or it corrects what was said."""
        return bool(self.revision or any(c.kind != "shift" for c in self.causes))

    def plain(self) -> dict[str, Json]:
        """As the data of an event."""
        causes: Json = [{"kind": c.kind, "cause": c.cause, "reason": c.verdict.reason} for c in self.causes]
        return {
            "window": iso(self.start),
            "revision": self.revision,
            "rows": self.rows,
            "summary": self.summary,
            "causes": causes,
            "shifts": dict(self.shifts),
        }
