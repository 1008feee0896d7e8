"""Behaviours: what a model must do when its input changes.

Source: Ribeiro et al. 2020 (CheckList): invariance, direction, minimum functionality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.core.whence import asked
from loudly.errors import DataError, one_line

EXPECTATIONS = ("same", "up", "down", "minimum")
ALLOWED_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A change of input and what the score must do.

    change: rows in, changed rows out (same number).  expect: same | up | down | minimum.
    tolerance: for same, up and down the score may stray by this much; for minimum it is the least mean score.
    """

    name: str
    change: Callable[[pl.DataFrame], pl.DataFrame]
    expect: str
    tolerance: float = 0.0

    def judge(self, predict: Callable[[pl.DataFrame], Floats], rows: pl.DataFrame) -> Verdict:
        """PASS when at most 1 % of the rows break the expectation, as an answer that is no number does; the effect is that share.

        Raises: TrainingError where `change` fails, DataError where it gives no table.
        """
        subject = f"behaviour {self.name}"
        if rows.is_empty():
            return Verdict(Decision.UNDECIDED, subject, "no rows to try it on", missing="rows")
        given = asked("behaviour", self.change, rows)
        if not isinstance(given, pl.DataFrame):
            raise DataError(
                f"The behaviour {self.name!r} must give rows.", seen=type(given).__name__, do="return rows.with_columns(...)"
            )
        try:
            changed = predict(given)
        except Exception as wrong:  # noqa: BLE001 - a model may raise anything where its input is changed
            told = f"the model does not answer the changed rows: {one_line(wrong)}"
            return Verdict(Decision.FAIL, subject, told)
        if self.expect == "minimum":
            mean = float(np.mean(changed))
            return self._verdict(subject, mean >= self.tolerance, mean, f"mean score {mean:.3f}", len(changed))
        before = predict(rows)
        if len(changed) != len(before):
            reason = f"the change gave {len(changed)} rows for {len(before)}"
            return Verdict(Decision.FAIL, subject, reason)
        share = float(np.mean(self._broken(changed - before)))
        return self._verdict(subject, share <= ALLOWED_SHARE, share, f"{share:.1%} of the rows break it", len(before))

    def _broken(self, moved: Floats) -> Floats:
        match self.expect:
            case "same":
                kept = np.abs(moved) <= self.tolerance
            case "up":
                kept = moved >= -self.tolerance
            case _:
                kept = moved <= self.tolerance
        out = ~kept  # no number keeps nothing
        return np.asarray(out.reshape(len(out), -1).any(axis=1), dtype=np.float64)

    def _verdict(self, subject: str, good: bool, effect: float, reason: str, n: int) -> Verdict:
        evidence = Evidence(f"behaviour {self.expect}", effect, n=n, about=self.name, tolerance=self.tolerance)
        return Verdict(Decision.PASS if good else Decision.FAIL, subject, reason, (evidence,))
