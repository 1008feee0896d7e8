"""ATC, average thresholded confidence: the share of rows whose confidence is above a threshold learned on the reference.

The threshold is where the share of confident reference rows equals the reference's accuracy; the same share in a window
estimates the window's accuracy.

Source: Garg, Balakrishnan, Lipton, Neyshabur & Sedghi 2022, "Leveraging unlabeled data to predict out-of-distribution
performance", eq. 3, with maximum confidence and negative entropy.  Interval: thresholds of the reference drawn anew, and the
window's binomial error.  Cost: O(n log n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from loudly.core.canon import Json
from loudly.core.seams import Floats
from loudly.core.values import Evidence, Verdict
from loudly.errors import ConfigError, nearest
from loudly.shift.estimate.answer import confirmed, day_of, left_out, of_days, realised, told, untold
from loudly.shift.estimate.labelled import labelled, labels, scores, sound

METHOD = "ATC"
ASSUMES = "confidence orders rows by their chance of being right in the window as in the reference; no concept shift"
CONFIDENCES = ("maximum", "entropy")
REPLICATES = 200


@dataclass(frozen=True, slots=True)
class Atc:
    """A fitted threshold. replicates: (r,) thresholds of the reference drawn anew."""

    by: str
    threshold: float
    replicates: Floats
    accuracy: float
    rows: int
    confidence: float = 0.95

    @classmethod
    def fit(cls, score: ArrayLike, truth: ArrayLike, *, by: str = "entropy", confidence: float = 0.95, seed: int = 0) -> Atc:
        """From reference scores and labels. by: "maximum" confidence or negative "entropy".

        Raises: DataError for a reference that cannot teach, ConfigError for another `by`.

        >>> rng = np.random.default_rng(0)
        >>> p = rng.random(4000)
        >>> made = Atc.fit(p, (rng.random(4000) < p).astype(float))
        >>> bool(abs(made.estimate(p).effect - made.accuracy) < 0.01)
        True
        """
        if by not in CONFIDENCES:
            raise ConfigError(f"ATC knows no confidence by {by!r}.", do=nearest(by, CONFIDENCES))
        given = labelled(score, truth)
        sure, right = _sure(given.score, by), _decided(given.score) == given.truth
        order = np.argsort(sure)
        sure, right = sure[order], right[order].astype(np.float64)
        rng = np.random.default_rng(seed)
        drawn = (rng.poisson(1.0, len(sure)).astype(np.float64) for _ in range(REPLICATES))
        found = np.array([_threshold(sure, right, w) for w in drawn])
        one = _threshold(sure, right, np.ones(len(sure)))
        return cls(by, one, found, float(right.mean()), len(right), confidence)

    def estimate(self, score: ArrayLike) -> Evidence:
        """The accuracy of a window without labels."""
        s = scores(score)
        kept = sound(s)
        if not kept.any():
            return untold(METHOD, "accuracy", 0, ASSUMES, "rows with scores")
        sure = np.sort(_sure(s[kept], self.by))
        n = len(sure)
        share = 1 - np.searchsorted(sure, self.threshold, side="left") / n
        others = 1 - np.searchsorted(sure, self.replicates, side="left") / n
        # Agresti and Coull's four rows more: a share of none or all of few rows is not certain.
        held = (share * n + 2) / (n + 4)
        error = float(np.sqrt(held * (1 - held) / n + ((others - share) ** 2).mean()))
        detail: dict[str, Json] = {
            "confidence": self.by, "threshold": self.threshold, "reference": self.accuracy, "reference_rows": self.rows,
            **left_out(kept),
        }  # fmt: skip
        if sure[0] == sure[-1]:
            detail["note"] = "all rows of the window are equally sure: the threshold calls all of them right or none"
        return told(f"{METHOD} by {self.by}", "accuracy", float(share), error, n, ASSUMES, self.confidence, detail)

    def check_against(self, score: ArrayLike, truth: ArrayLike, *, looks: int = 1, days: ArrayLike | None = None) -> Verdict:
        """The estimate for labelled rows against what their labels say; FAIL means that the assumption does not hold.

        days: the day of each row, where rows of one day err alike.
        """
        s = scores(score)
        y = labels(truth, s)
        kept = sound(s) & np.isfinite(y)
        found = self.estimate(s[kept])
        if found.effect is None:
            return confirmed(found, float("nan"), 0.0, 0, ASSUMES)
        value, error = realised("accuracy", s[kept], y[kept])
        both = float(np.hypot(error, float(str(found.detail["error"]))))
        gaps = (_decided(s[kept]) == y[kept]).astype(np.float64) - (_sure(s[kept], self.by) >= self.threshold)
        both, freedom = of_days(gaps, day_of(days, kept), both)
        return confirmed(found, value, both, len(y[kept]), ASSUMES, looks=looks, freedom=freedom)


def _threshold(sure: Floats, right: Floats, weight: Floats) -> float:
    """Where the weighted share of rows at or above it equals the weighted share of right ones; `sure` increases."""
    below = np.cumsum(weight)
    wrong = float((weight * (1 - right)).sum())
    return float(sure[min(int(np.searchsorted(below, wrong, side="right")), len(sure) - 1)])


def _sure(score: Floats, by: str) -> Floats:
    p = np.stack([1 - score, score], axis=1) if score.ndim == 1 else score
    return np.asarray(p.max(axis=1) if by == "maximum" else scipy.special.xlogy(p, p).sum(axis=1))


def _decided(score: Floats) -> Floats:
    return np.asarray(score >= 0.5 if score.ndim == 1 else score.argmax(axis=1), dtype=np.float64)
