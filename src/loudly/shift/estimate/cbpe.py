"""CBPE, confidence-based performance estimation: what the scores promise, once calibrated on a labelled reference.

With calibrated scores each row's label is known as a probability, so the expected AUC, accuracy, F1, precision, recall,
log-loss and Brier score need no labels. Right under covariate shift as far as the calibration holds in the window (`Pape`
reweights it), wrong under concept shift, which shows only once labels come: `check_against` tells.

Source: Kivimäki, Białek, Kuberski & Nurminen 2025, "Performance estimation in binary classification using calibrated
confidence"; NannyML.  Interval: delta method over the window's rows, plus calibrations of the reference drawn anew.
Cost: fit 0.1 s for 20,000 rows, estimate O(n log n).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from loudly.core.canon import Json, finite
from loudly.core.seams import Floats
from loudly.core.values import Evidence, Verdict
from loudly.errors import DataError
from loudly.shift.estimate.answer import confirmed, day_of, left_out, of_days, realised, told, untold
from loudly.shift.estimate.calibrate import AS_GIVEN, Calibration, calibrate
from loudly.shift.estimate.expected import Expected, expected, known
from loudly.shift.estimate.labelled import Labelled, labelled, labels, scores, sound

METHOD = "CBPE"
ASSUMES = "no concept shift: a score means the same probability in the window as in the reference"
CERTAIN = "are decisions, and promise that all of them are right"
ASSUMES_GIVEN = "calibrated scores and no concept shift"


@dataclass(frozen=True, slots=True)
class Cbpe:
    """A fitted estimator: one calibration a class (one in all for two classes). Plain arrays, safe to keep."""

    metric: str
    calibrations: tuple[Calibration, ...]
    rows: int
    expected: float | None
    confidence: float = 0.95
    method: str = METHOD
    assumes: str = ASSUMES

    @classmethod
    def fit(
        cls, score: ArrayLike, truth: ArrayLike, *, metric: str = "roc_auc", calibration: str = "", confidence: float = 0.95
    ) -> Cbpe:
        """From reference scores, (n,) or (n, k), and labels 0..k-1 that the model has not been trained on.

        calibration: "isotonic" or "platt"; without one, the smaller held-out calibration error decides.
        Raises: DataError for a reference that cannot teach, ConfigError for a metric without an estimate.

        >>> rng = np.random.default_rng(3)
        >>> p = rng.beta(1, 2, 6000)
        >>> y = (rng.random(6000) < p).astype(float)
        >>> found = Cbpe.fit(p[:3000], y[:3000]).estimate(p[3000:])
        >>> found.low < realised("roc_auc", p[3000:], y[3000:])[0] < found.high
        True
        """
        given = labelled(score, truth)
        return cls._of(given, metric, calibrations(given, None, calibration), confidence)

    @classmethod
    def _of(cls, given: Labelled, metric: str, made: tuple[Calibration, ...], confidence: float) -> Cbpe:
        value = expected(known(metric), given.score, given.onehot).value
        return cls(metric, made, len(given.truth), finite(value), confidence)

    @classmethod
    def as_given(cls, metric: str = "roc_auc", *, classes: int = 2, confidence: float = 0.95) -> Cbpe:
        """Without a reference: the scores are taken as probabilities, and the answer says so."""
        made = (AS_GIVEN,) * (1 if classes == 2 else classes)
        return cls(known(metric), made, 0, None, confidence, f"{METHOD}, scores as given", ASSUMES_GIVEN)

    def estimate(self, score: ArrayLike) -> Evidence:
        """The metric of a window that has no labels yet. Rows without a score are left out and counted, LOUD where they are many.

        Raises: DataError for scores of another shape than the reference's.
        """
        s, detail = self._sound(score)
        if not len(s):
            return untold(self.method, self.metric, 0, self.assumes, "rows with scores", detail)
        if self.calibrations[0] is AS_GIVEN and np.isin(s, (0.0, 1.0)).all():
            return untold(self.method, self.metric, len(s), self.assumes, f"probabilities: scores of 0 and 1 {CERTAIN}", detail)
        if np.ptp(s, axis=0).max() == 0:
            detail["note"] = "all scores of the window are the same: they rank nothing"
        found = expected(self.metric, s, self.chances(s))
        error = float(np.hypot(found.error, self._unsure(s, found)))
        return told(self.method, self.metric, found.value, error, len(s), self.assumes, self.confidence, detail)

    def check_against(self, score: ArrayLike, truth: ArrayLike, *, looks: int = 1, days: ArrayLike | None = None) -> Verdict:
        """The estimate for labelled rows against what their labels say; FAIL means that the assumption does not hold.

        The interval holds for these very rows: it allows for the chance in their labels and in the calibration.
        days: the day of each row, where rows of one day err alike; without days the rows count as independent.
        """
        given = scores(score)
        y = labels(truth, given)
        kept = sound(given) & np.isfinite(y)
        s, y = given[kept], y[kept]
        found = self.estimate(s)
        if found.effect is None:
            return confirmed(found, float("nan"), 0.0, len(s), self.assumes)
        p = self.chances(s)
        made = expected(self.metric, s, p)
        noise, freedom = of_days(_pulls(made.gradient, p, y), day_of(days, kept), _label_noise(made.gradient, p))
        error = float(np.hypot(noise, self._unsure(s, made)))
        return confirmed(found, realised(self.metric, s, y)[0], error, len(s), self.assumes, looks=looks, freedom=freedom)

    def chances(self, score: Floats) -> Floats:
        """Calibrated probabilities, in the shape of the scores."""
        if score.ndim == 1:
            return self.calibrations[0](score)
        raw = self._raw(score)
        return np.asarray(raw / raw.sum(axis=1, keepdims=True))

    def _raw(self, score: Floats) -> Floats:
        return np.stack([c(score[:, i]) for i, c in enumerate(self.calibrations)], axis=1) + 1e-12

    def _unsure(self, score: Floats, found: Expected) -> float:
        """How much the value moves because the reference is finite."""
        if score.ndim == 1:
            moved = self.calibrations[0].spread(score, found.gradient)
        else:
            raw = self._raw(score)
            whole = raw.sum(axis=1, keepdims=True)
            pull = (found.gradient - (found.gradient * raw / whole).sum(axis=1, keepdims=True)) / whole
            moved = np.sum([c.spread(score[:, i], pull[:, i]) for i, c in enumerate(self.calibrations)], axis=0)
        return float(np.sqrt((moved**2).mean())) if np.size(moved) else 0.0

    def _sound(self, score: ArrayLike) -> tuple[Floats, dict[str, Json]]:
        s = scores(score)
        if len(s) and (1 if s.ndim == 1 else s.shape[1]) != len(self.calibrations):
            raise DataError("Scores of another number of classes than the reference's.", seen=str(s.shape))
        kept = sound(s)
        detail: dict[str, Json] = {"calibration": self.calibrations[0].method, "reference_rows": self.rows, **left_out(kept)}
        if self.expected is not None:
            detail["reference"] = self.expected
        if self.calibrations[0].ece:
            detail["held_out_ece"] = dict(self.calibrations[0].ece)
        return s[kept], detail


def calibrations(given: Labelled, weight: Floats | None, method: str = "") -> tuple[Calibration, ...]:
    """One calibration for two classes, one against the rest for each of more."""
    if given.score.ndim == 1:
        return (calibrate(given.score, given.truth, weight, method=method),)
    return tuple(_against_rest(given, c, weight, method) for c in range(given.classes))


def _against_rest(given: Labelled, c: int, weight: Floats | None, method: str) -> Calibration:
    truth = (given.truth == c).astype(np.float64)
    if np.ptp(given.score[:, c]) == 0:
        level = float(np.average(truth, weights=weight))
        return Calibration("constant", np.array([0.0, 1.0]), np.array([level, level]), np.zeros((0, 2)), {})
    return calibrate(given.score[:, c], truth, weight, method=method)


def _pulls(gradient: Floats, p: Floats, y: Floats) -> Floats:
    """(n,) what each label adds to the gap, times n: their mean is the gap, to first order."""
    seen = y if p.ndim == 1 else np.eye(p.shape[1])[y.astype(int)]
    pulled = gradient * (seen - p)
    return np.asarray(len(y) * (pulled if p.ndim == 1 else pulled.sum(axis=1)))


def _label_noise(gradient: Floats, p: Floats) -> float:
    if p.ndim == 1:
        return float(np.sqrt((gradient**2 * p * (1 - p)).sum()))
    return float(np.sqrt(((gradient**2 * p).sum(axis=1) - (gradient * p).sum(axis=1) ** 2).sum()))
