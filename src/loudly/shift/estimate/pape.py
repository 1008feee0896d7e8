"""PAPE, probabilistic adaptive performance estimation: CBPE whose calibration is learned anew for each window.

Under covariate shift P(y | score) changes although P(y | inputs) does not. Reference rows are weighted by how much likelier
their inputs are in the window, the calibration is fitted with these weights, and CBPE goes on from there.

Source: Białek, Nurminen, Kuberski & Bifet 2024, "Estimating model performance under covariate shift without labels".
Interval: as CBPE's, with the weights taken as known; the density ratio's own error is outside it, and the detail says so.
Cost: three fits of small trees to reference and window together, a window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from loudly.core.canon import Json
from loudly.core.seams import Floats
from loudly.core.values import Evidence, Verdict
from loudly.shift.estimate.answer import FEWEST_ROWS, confirmed, day_of, left_out, untold
from loudly.shift.estimate.cbpe import Cbpe, calibrations
from loudly.shift.estimate.density import Columns, Density, Inputs, columns_of, density
from loudly.shift.estimate.expected import expected, known
from loudly.shift.estimate.labelled import Labelled, Mask, labelled, labels, scores, sound

METHOD = "PAPE"
ASSUMES = "covariate shift alone: P(y | inputs) as in the reference, and inputs of the window that the reference covers"
FEWEST_EFFECTIVE = 100.0
SMALL_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Pape:
    """A fitted estimator: it keeps the reference's rows, since each window weights them anew. X: (n, d)."""

    metric: str
    given: Labelled
    columns: Columns
    X: Floats
    expected: float
    confidence: float = 0.95

    @classmethod
    def fit(cls, score: ArrayLike, truth: ArrayLike, inputs: Inputs, *, metric: str = "roc_auc", confidence: float = 0.95) -> Pape:
        """From reference scores, labels and inputs (a polars table or an (n, d) array), row by row.

        Raises: DataError for a reference that cannot teach, ConfigError for a metric without an estimate.

        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(0, 1, (3000, 2))
        >>> y = (rng.random(3000) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
        >>> made = Pape.fit(1 / (1 + np.exp(-X[:, 0])), y, X)
        >>> round(made.estimate(1 / (1 + np.exp(-X[:500, 0])), X[:500]).effect, 1)
        0.7
        """
        given, columns = labelled(score, truth), columns_of(inputs)
        X = with_score(columns.array(inputs, len(given.kept))[given.kept], given.score)
        return cls(metric, given, columns, X, expected(known(metric), given.score, given.onehot).value, confidence)

    def estimate(self, score: ArrayLike, inputs: Inputs) -> Evidence:
        """The metric of a window without labels. LOUD in the detail where few reference rows speak for it."""
        found = self._window(score, inputs)
        return found if isinstance(found, Evidence) else self._told(*found)

    def check_against(
        self, score: ArrayLike, inputs: Inputs, truth: ArrayLike, *, looks: int = 1, days: ArrayLike | None = None
    ) -> Verdict:
        """The estimate for labelled rows against what their labels say; FAIL means that the assumption does not hold.

        days: the day of each row, where rows of one day err alike.
        """
        found = self._window(score, inputs)
        if isinstance(found, Evidence):
            return confirmed(found, float("nan"), 0.0, 0, ASSUMES)
        made, s, ratio, kept = found
        y = labels(truth, scores(score))[kept]
        return replace_evidence(made.check_against(s, y, looks=looks, days=day_of(days, kept)), ratio)

    def _window(self, score: ArrayLike, inputs: Inputs) -> Evidence | tuple[Cbpe, Floats, Density, Mask]:
        given = scores(score)
        kept = sound(given)
        if kept.sum() < FEWEST_ROWS:
            missing = f"at least {FEWEST_ROWS} rows with scores"
            return untold(METHOD, self.metric, int(kept.sum()), ASSUMES, missing, left_out(kept))
        s = given[kept]
        ratio = density(self.X, with_score(self.columns.array(inputs, len(kept))[kept], s))
        made = Cbpe(self.metric, calibrations(self.given, ratio.weight), len(self.given.truth), self.expected, self.confidence)
        return replace(made, method=METHOD, assumes=ASSUMES), s, ratio, kept

    def _told(self, made: Cbpe, score: Floats, ratio: Density, kept: Mask) -> Evidence:
        found = made.estimate(score)
        return replace(found, detail={**found.detail, **spoken(ratio, len(self.X)), **left_out(kept)})


def with_score(X: Floats, score: Floats) -> Floats:
    """Inputs with the scores beside them: the score is a function of the inputs, and the one that matters."""
    return np.concatenate([X, score[:, None] if score.ndim == 1 else score], axis=1)


def spoken(ratio: Density, rows: int) -> dict[str, Json]:
    """How many reference rows speak for the window; loud where they are few."""
    said: dict[str, Json] = {
        "effective_rows": round(ratio.ess, 1),
        "inputs_apart_auc": round(ratio.auc, 4),
        "outside_interval": "the density ratio's own error",
    }
    if ratio.ess < max(FEWEST_EFFECTIVE, SMALL_SHARE * rows):
        said["loud"] = f"LOUD: {ratio.ess:.0f} effective reference rows of {rows:,} speak for this window"
    return said


def replace_evidence(verdict: Verdict, ratio: Density) -> Verdict:
    """The verdict with what is known of the density ratio in its last Evidence."""
    *first, last = verdict.evidence
    return replace(verdict, evidence=(*first, replace(last, detail={**last.detail, **spoken(ratio, len(ratio.weight))})))
