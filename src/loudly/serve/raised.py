"""What models raise while they answer, kept until somebody tells it: once for each version and kind of error."""

from __future__ import annotations

from collections.abc import Iterable

MOST_KINDS = 100
MOST_TEXT = 500


class Raised:
    """Texts "version: kind: message". Many threads may note; one tells.

    >>> raised = Raised()
    >>> raised.note(["m/1: ValueError: row 3", "m/1: ValueError: row 9"])
    >>> raised.fresh(), raised.fresh()
    (['m/1: ValueError: row 3'], [])
    """

    def __init__(self) -> None:
        self._known: set[tuple[str, ...]] = set()
        self._fresh: list[str] = []

    def note(self, errors: Iterable[str]) -> None:
        """Errors of one call; the first of each kind is kept."""
        for error in errors:
            kind = tuple(error.split(": ", 2)[:2])
            if kind not in self._known and len(self._known) < MOST_KINDS:
                self._known.add(kind)
                self._fresh.append(error[:MOST_TEXT])

    def fresh(self) -> list[str]:
        """What has come since the last call."""
        told, self._fresh = self._fresh, []
        return told
