"""How the class priors moved, from predictions alone: BBSE (hard and soft) and MLLS with bias-corrected temperature.

If P(inputs | class) has stayed and only the mix of classes moved, the window's predictions are a mixture of what the reference's
classes give: BBSE solves for the mixture by the confusion matrix, MLLS by maximum likelihood over calibrated scores.

Source: Lipton, Wang & Smola 2018 (BBSE); Saerens, Latinne & Decaestecker 2002 (EM); Alexandari, Kundaje & Shrikumar 2020 (MLLS
with bias-corrected calibration, source prior = mean calibrated score; formulas as in kundajelab/abstention); Garg et al. 2020.
Interval: delta method, over the window, and over the reference within classes (BBSE) or by calibrations drawn anew (MLLS).
Cost: BBSE O(nk + k³); MLLS some 100 passes over the window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from loudly.core.canon import Json, finite
from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.errors import ConfigError, DataError, nearest
from loudly.shift.estimate.labelled import labelled, scores, sound

ASSUMES = "label shift alone: P(inputs | class) as in the reference"
METHODS = ("mlls", "bbse", "bbse-soft")
REPLICATES = 40
MOST_PASSES, SETTLED = 2000, 1e-10
SINGULAR, RIDGE = 2.0, 1e-8
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class LabelShift:
    """A labelled reference as both methods need it.

    priors: (k,) shares of the classes.  counts: (k,) their rows.  means, covariances: method -> of the predictions within each
    class, (k, k) with a column a class, and (k, k, k).  calibration: (1 + k,) log temperature and biases;
    replicates: (r, 1 + k) from the reference drawn anew.  score: (n, k) of the reference.
    """

    priors: Floats
    counts: Floats
    means: dict[str, Floats]
    covariances: dict[str, Floats]
    score: Floats
    calibration: Floats
    replicates: Floats
    confidence: float = 0.95

    @classmethod
    def fit(cls, score: ArrayLike, truth: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> LabelShift:
        """From reference scores, (n,) or (n, k), and labels. Raises: DataError for a reference that cannot teach.

        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(0, 2, 4000)
        >>> s = 1 / (1 + np.exp(-2 * rng.normal(2.0 * y - 1, 1)))
        >>> few = rng.random(4000) < np.where(y == 1, 0.25, 1.0)
        >>> [round(e.effect, 1) for e in LabelShift.fit(s, y).estimate(s[few])]
        [0.8, 0.2]
        """
        given = labelled(score, truth)
        p, k = both(given.score), given.classes
        onehot = np.eye(k)[given.truth.astype(int)]
        rng = np.random.default_rng(seed)
        one = bcts(p, onehot)
        drawn = _redrawn(p, onehot, one, rng)
        shown = {"bbse": _hard(p), "bbse-soft": p}
        inside = [given.truth == j for j in range(k)]
        means = {m: np.stack([f[rows].mean(axis=0) for rows in inside], axis=1) for m, f in shown.items()}
        spread = {m: np.stack([np.cov(f[rows].T, ddof=0) for rows in inside]) for m, f in shown.items()}
        return cls(onehot.mean(axis=0), onehot.sum(axis=0), means, spread, p, one, drawn, confidence)

    def estimate(self, score: ArrayLike, *, method: str = "mlls") -> tuple[Evidence, ...]:
        """The share of each class in a window without labels: one Evidence a class, `about` its code.

        An ill-conditioned confusion (BBSE) or an empty window gives effects of None, and the detail says what is missing.
        Raises: ConfigError for an unknown method, DataError for scores of another number of classes.
        """
        if method not in METHODS:
            raise ConfigError(f"No label shift method is called {method!r}.", do=nearest(method, METHODS))
        s = scores(score)
        s = both(s[sound(s)])
        if not len(s):
            return self._untold(method, 0, "rows with scores")
        if s.shape[1] != len(self.priors):
            raise DataError("Scores of another number of classes than the reference's.", seen=str(s.shape))
        return self._mlls(s) if method == "mlls" else self._bbse(s, method)

    def shares(self, score: ArrayLike, *, method: str = "mlls") -> Floats:
        """(k,) the estimated shares as an array; NaN where they cannot be told."""
        found = [e.effect for e in self.estimate(score, method=method)]
        return np.array([np.nan if v is None else v for v in found])

    def _bbse(self, s: Floats, method: str) -> tuple[Evidence, ...]:
        shown = _hard(s) if method == "bbse" else s
        A, k, n = self.means[method], len(self.priors), len(s)
        _, sizes, right = np.linalg.svd(A)
        noise = float(np.sqrt(max(np.trace(c) / max(m, 1.0) for c, m in zip(self.covariances[method], self.counts, strict=True))))
        condition = float(sizes[0] / max(sizes[-1], TINY))
        if sizes[-1] <= SINGULAR * noise:
            blurred = np.argsort(-np.abs(right[-1]))[:2]
            missing = f"scores that tell classes {sorted(blurred.tolist())} apart: the confusion matrix is ill-conditioned"
            return self._untold(method, n, missing, {"condition": finite(condition), "smallest": float(sizes[-1]), "noise": noise})
        inverse = np.linalg.inv(A)
        q = inverse @ shown.mean(axis=0)
        # Few rows that all say the same have no covariance of their own; the mixture that they are taken for has one (with four
        # rows more, of all classes alike, as Agresti and Coull have them: a class that has not come yet is not ruled out).
        mixed = onto_simplex(q)
        likely = (n * mixed + 4 / k) / (n + 4)
        second = sum(likely[j] * (self.covariances[method][j] + np.outer(A[:, j], A[:, j])) for j in range(k))
        window = np.cov(shown.T, ddof=0) / n, (second - np.outer(A @ likely, A @ likely)) / n
        reference = sum(q[j] ** 2 * self.covariances[method][j] / self.counts[j] for j in range(k))
        variance = np.max([np.diag(inverse @ (one + reference) @ inverse.T) for one in window], axis=0)
        detail: dict[str, Json] = {"condition": condition}
        if (q < 0).any():
            detail["note"] = "a raw share was negative: projected onto the simplex"
        return self._told(f"BBSE, {'hard' if method == 'bbse' else 'soft'}", mixed, np.sqrt(np.maximum(variance, 0)), n, detail)

    def _mlls(self, s: Floats) -> tuple[Evidence, ...]:
        q, prior = self._prior(s, self.calibration)
        f = calibrated(s, self.calibration) / prior
        bend = self._bend(f, q)
        moved = []
        for one in self.replicates:
            f_one = calibrated(s, one)
            g = f_one / calibrated(self.score, one).mean(axis=0)
            moved.append(bend @ (g / (g @ q)[:, None]).mean(axis=0))
        unsure = np.var(moved, axis=0) if len(moved) else 0.0
        detail: dict[str, Json] = {"temperature": float(np.exp(self.calibration[0]))}
        return self._told("MLLS", q, np.sqrt(np.diag(bend) / len(s) + unsure), len(s), detail)

    def _prior(self, s: Floats, calibration: Floats) -> tuple[Floats, Floats]:
        prior = calibrated(self.score, calibration).mean(axis=0)
        return mlls(calibrated(s, calibration), prior), prior

    def _bend(self, f: Floats, q: Floats) -> Floats:
        """The inverse information about q per row, within the simplex."""
        unit = f / (f @ q)[:, None]
        basis = np.linalg.svd(np.ones((1, len(q))))[2][1:].T
        information = basis.T @ (unit.T @ unit / len(f)) @ basis
        return np.asarray(basis @ np.linalg.pinv(information, hermitian=True) @ basis.T)

    def _told(self, method: str, q: Floats, error: Floats, n: int, detail: dict[str, Json]) -> tuple[Evidence, ...]:
        reach = float(scipy.special.ndtri(0.5 + self.confidence / 2)) * error
        return tuple(
            Evidence(
                method, float(q[j]), max(0.0, float(q[j] - reach[j])), min(1.0, float(q[j] + reach[j])), n, f"class {j}", "share",
                self.confidence, detail={"assumes": ASSUMES, "reference": float(self.priors[j]), "error": float(error[j]),
                                         "weight": float(q[j] / self.priors[j]), **detail},
            )
            for j in range(len(q))
        )  # fmt: skip

    def _untold(self, method: str, n: int, missing: str, detail: dict[str, Json] | None = None) -> tuple[Evidence, ...]:
        said = {"assumes": ASSUMES, "missing": missing, **(detail or {})}
        return tuple(Evidence(method, None, n=n, about=f"class {j}", unit="share", detail=said) for j in range(len(self.priors)))


def both(score: Floats) -> Floats:
    """(n, k) scores; two columns for a binary score."""
    return np.stack([1 - score, score], axis=1) if score.ndim == 1 else score


def mlls(chance: Floats, prior: Floats) -> Floats:
    """(k,) the mixture of classes that makes calibrated scores likeliest, by expectation maximisation.

    Shapes: chance (n, k) calibrated for classes mixed as `prior` (k,).
    """
    ratio, q = chance / prior, prior
    for _ in range(MOST_PASSES):
        unit = ratio * q
        fresh = (unit / unit.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(fresh - q).sum() < SETTLED:
            return np.asarray(fresh)
        q = fresh
    return np.asarray(q)


def calibrated(score: Floats, calibration: Floats) -> Floats:
    """(n, k) probabilities: softmax(log score / temperature + bias)."""
    logits = np.log(np.clip(score, TINY, None)) * np.exp(-calibration[0]) + calibration[1:]
    return np.asarray(scipy.special.softmax(logits, axis=1)) + TINY


def bcts(score: Floats, onehot: Floats) -> Floats:
    """Bias-corrected temperature scaling: log temperature and a bias a class that minimise the log-loss; (1 + k,)."""
    logs, k = np.log(np.clip(score, TINY, None)), score.shape[1]

    def loss(at: Floats) -> tuple[float, Floats]:
        value, slopes = _log_losses(logs, onehot, at)
        return float(value.mean() + RIDGE * (at**2).sum()), slopes.mean(axis=0) + 2 * RIDGE * at

    bounds = [(-4.0, 4.0), *[(-20.0, 20.0)] * k]
    found = scipy.optimize.minimize(loss, np.zeros(1 + k), jac=True, method="L-BFGS-B", bounds=bounds)
    return np.asarray(found.x, dtype=np.float64)


def _log_losses(logs: Floats, onehot: Floats, at: Floats) -> tuple[Floats, Floats]:
    """(n,) log-losses and their (n, 1 + k) slopes in log temperature and biases."""
    scaled = logs * np.exp(-at[0])
    z = scaled + at[1:]
    top = z.max(axis=1, keepdims=True)
    whole = top[:, 0] + np.log(np.exp(z - top).sum(axis=1))
    gap = np.exp(z - whole[:, None]) - onehot
    value: Floats = whole - (z * onehot).sum(axis=1)
    return value, np.concatenate([-(gap * scaled).sum(axis=1, keepdims=True), gap], axis=1)


def _redrawn(score: Floats, onehot: Floats, at: Floats, rng: np.random.Generator) -> Floats:
    """(r, 1 + k) calibrations of the reference drawn anew: one Newton step each from the one that was found."""
    logs, step = np.log(np.clip(score, TINY, None)), 1e-4 * np.eye(len(at))
    slopes = _log_losses(logs, onehot, at)[1]
    bend = (
        np.array([(_log_losses(logs, onehot, at + d)[1] - _log_losses(logs, onehot, at - d)[1]).mean(axis=0) for d in step]) / 2e-4
    )
    inverse = np.linalg.pinv((bend + bend.T) / 2, rcond=1e-6, hermitian=True)
    drawn = rng.poisson(1.0, (REPLICATES, len(score))).astype(np.float64)
    return np.asarray(at - (drawn - 1.0) @ slopes / len(score) @ inverse)


def onto_simplex(q: Floats) -> Floats:
    """The nearest shares that are not negative and sum to 1 (Duchi et al. 2008).

    >>> onto_simplex(np.array([1.2, -0.2])).tolist()
    [1.0, 0.0]
    """
    falling = np.sort(q)[::-1]
    over = (np.cumsum(falling) - 1) / np.arange(1, len(q) + 1)
    return np.asarray(np.maximum(q - over[np.flatnonzero(falling > over)[-1]], 0.0))


def _hard(p: Floats) -> Floats:
    return np.asarray(np.eye(p.shape[1])[p.argmax(axis=1)], dtype=np.float64)
