"""What the wheel costs: seconds in fit and predict, and in everything else. Never written to the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from loudly.core.clock import stopwatch


@dataclass(slots=True)
class Tally:
    """Seconds by kind of work. Inner work is not counted twice: `fit` inside `apply` is fit."""

    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _inner: list[float] = field(default_factory=list)

    @contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Counts the time of the block as `kind`, less what inner blocks have counted."""
        begun = stopwatch()
        self._inner.append(0.0)
        try:
            yield
        finally:
            whole = stopwatch() - begun
            own = whole - self._inner.pop()
            if self._inner:
                self._inner[-1] += whole
            self.seconds[kind] = self.seconds.get(kind, 0.0) + own
            self.counts[kind] = self.counts.get(kind, 0) + 1

    @property
    def model(self) -> float:
        """Seconds in the user's model: fit and predict."""
        return sum(self.seconds.get(kind, 0.0) for kind in ("fit", "predict"))

    @property
    def wheel(self) -> float:
        """Seconds in everything else that was counted."""
        return sum(self.seconds.values()) - self.model
