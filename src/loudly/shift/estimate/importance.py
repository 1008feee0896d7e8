"""Importance-weighted performance: the labelled reference, weighted to look like the window.

Needs no calibration, but a reference that covers the window: the effective sample size is told, and loudly where it is small.

Source: Shimodaira 2000; Sugiyama, Krauledat & Müller 2007 (importance-weighted validation); Kong 1992.
Interval: influence function over the weighted reference; the density ratio's own error is outside it, and the detail says so.
Cost: three fits of small trees a window, then O(n log n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from loudly.core.canon import Json
from loudly.core.seams import Floats
from loudly.core.values import Evidence, Verdict
from loudly.shift.estimate.answer import FEWEST_ROWS, by_labels, confirmed, day_of, left_out, of_days, told, untold
from loudly.shift.estimate.density import Columns, Inputs, columns_of, density
from loudly.shift.estimate.expected import expected, known
from loudly.shift.estimate.labelled import Labelled, Mask, labelled, labels, scores, sound
from loudly.shift.estimate.pape import ASSUMES, spoken, with_score

METHOD = "importance weighting"


@dataclass(frozen=True, slots=True)
class Importance:
    """A fitted estimator: the labelled reference with its inputs."""

    metric: str
    given: Labelled
    columns: Columns
    X: Floats
    confidence: float = 0.95

    @classmethod
    def fit(
        cls, score: ArrayLike, truth: ArrayLike, inputs: Inputs, *, metric: str = "roc_auc", confidence: float = 0.95
    ) -> Importance:
        """From reference scores, labels and inputs. Raises: DataError, ConfigError.

        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(0, 1, (2000, 1))
        >>> s = 1 / (1 + np.exp(-X[:, 0]))
        >>> made = Importance.fit(s, (rng.random(2000) < s).astype(float), X, metric="accuracy")
        >>> made.estimate(s[:300], X[:300]).detail["effective_rows"] > 1000
        True
        """
        given, columns = labelled(score, truth), columns_of(inputs)
        X = with_score(columns.array(inputs, len(given.kept))[given.kept], given.score)
        return cls(known(metric), given, columns, X, confidence)

    def estimate(self, score: ArrayLike, inputs: Inputs) -> Evidence:
        """The metric of a window without labels."""
        s = scores(score)
        kept = sound(s)
        return self._of(s, kept, inputs, left_out(kept))

    def _of(self, s: Floats, kept: Mask, inputs: Inputs, told_of: dict[str, Json]) -> Evidence:
        """From the rows that are kept."""
        if kept.sum() < FEWEST_ROWS:
            return untold(METHOD, self.metric, int(kept.sum()), ASSUMES, f"at least {FEWEST_ROWS} rows with scores", told_of)
        ratio = density(self.X, with_score(self.columns.array(inputs, len(kept))[kept], s[kept]))
        found = expected(self.metric, self.given.score, self.given.onehot, ratio.weight)
        detail = spoken(ratio, len(self.X)) | told_of
        return told(METHOD, self.metric, found.value, found.error, int(kept.sum()), ASSUMES, self.confidence, detail)

    def check_against(
        self, score: ArrayLike, inputs: Inputs, truth: ArrayLike, *, looks: int = 1, days: ArrayLike | None = None
    ) -> Verdict:
        """The estimate for labelled rows against what their labels say; FAIL means that the assumption does not hold.

        days: the day of each row, where rows of one day err alike.
        """
        s = scores(score)
        y = labels(truth, s)
        kept = sound(s) & np.isfinite(y)
        found = self._of(s, kept, inputs, {})
        if found.effect is None:
            return confirmed(found, float("nan"), 0.0, int(kept.sum()), ASSUMES)
        seen = by_labels(self.metric, s[kept], y[kept])
        error, freedom = of_days(len(seen.influence) * seen.influence, day_of(days, kept), seen.error)
        both = float(np.hypot(error, float(str(found.detail["error"]))))
        return confirmed(found, seen.value, both, int(kept.sum()), ASSUMES, looks=looks, freedom=freedom)
