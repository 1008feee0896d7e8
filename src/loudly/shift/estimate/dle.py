"""DLE, direct loss estimation: trees that learn how large a regression model's error is, from inputs and prediction.

|error| and squared error are each learned on the labelled reference, out of fold; their mean over a window, less what the
trees miss on the reference, estimates MAE, MSE or RMSE.

Source: NannyML, direct loss estimation; the correction by out-of-fold residuals as in Angelopoulos et al. 2023
(prediction-powered inference).  Interval: the window's sampling error, the residuals' on the reference, and a delete-a-group
jackknife over the folds' trees (Kott 2001).  Cost: five fits of 100 small trees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from loudly.core.canon import Json
from loudly.core.late import late
from loudly.core.seams import Floats, Model
from loudly.core.values import Evidence, Verdict
from loudly.errors import ConfigError, DataError, nearest
from loudly.shift.estimate.answer import confirmed, day_of, left_out, of_days, told, untold
from loudly.shift.estimate.density import Columns, Inputs, columns_of, folds
from loudly.shift.estimate.labelled import FEWEST
from loudly.stats.clusters import block_mean

sklearn = late("sklearn")

METHOD = "DLE"
ASSUMES = "no concept shift: errors depend on inputs and prediction in the window as in the reference, which covers them"
METRICS = ("mae", "mse", "rmse")
FOLDS = 5
TREES = {"max_iter": 100, "max_leaf_nodes": 15, "min_samples_leaf": 30, "l2_regularization": 1.0, "early_stopping": False}


@dataclass(frozen=True, slots=True)
class Dle:
    """A fitted estimator. trees: one a fold.  missed, missed_sd: mean and deviation of (loss - learned loss), out of fold."""

    metric: str
    trees: tuple[Model, ...]
    columns: Columns
    missed: float
    missed_sd: float
    expected: float
    rows: int
    confidence: float = 0.95

    @classmethod
    def fit(
        cls,
        prediction: ArrayLike,
        truth: ArrayLike,
        inputs: Inputs,
        *,
        metric: str = "mae",
        confidence: float = 0.95,
        seed: int = 0,
    ) -> Dle:
        """From reference predictions, truths (n,) and inputs that the model has not been trained on.

        Raises: DataError for fewer than 50 sound rows or a reference without any error, ConfigError for another metric.

        >>> rng = np.random.default_rng(0)
        >>> X = rng.random((3000, 1))
        >>> made = Dle.fit(X[:, 0], X[:, 0] + X[:, 0] * rng.normal(0, 1, 3000), X)
        >>> high = X[X[:, 0] > 0.9]
        >>> made.estimate(high[:, 0], high).effect > 1.5 * made.expected
        True
        """
        if metric not in METRICS:
            raise ConfigError(f"DLE estimates no {metric!r}.", do=nearest(metric, METRICS))
        columns = columns_of(inputs)
        f, y, X = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64), columns.array(inputs)
        if not f.shape == y.shape == X.shape[:1]:
            raise DataError("Predictions, truths and inputs differ in length.", seen=f"{f.shape}, {y.shape}, {X.shape}")
        kept = np.isfinite(f) & np.isfinite(y)
        if kept.sum() < FEWEST:
            raise DataError(f"{kept.sum()} rows with prediction and truth cannot be learned from.", do=f"give at least {FEWEST}")
        X, loss = _with(X[kept], f[kept]), _loss(metric, f[kept], y[kept])
        if not loss.any():
            raise DataError("The reference has no error at all.", do="give rows that the model has not been trained on")
        trees, learned = _learn(X, loss, seed)
        missed = loss - learned
        return cls(
            metric,
            trees,
            columns,
            float(missed.mean()),
            float(missed.std(ddof=1)),
            _shown(metric, loss.mean()),
            len(loss),
            confidence,
        )

    def estimate(self, prediction: ArrayLike, inputs: Inputs) -> Evidence:
        """The metric of a window without truths. Rows without a prediction are left out and counted, LOUD where they are many."""
        f = np.asarray(prediction, dtype=np.float64)
        kept = np.isfinite(f)
        detail: dict[str, Json] = {"reference": self.expected, "reference_rows": self.rows, **left_out(kept)}
        if not kept.any():
            return untold(METHOD, self.metric, 0, ASSUMES, "rows with predictions", detail)
        mean, error, _ = self._mean(f[kept], self.columns.array(inputs, len(kept))[kept])
        return told(
            METHOD,
            self.metric,
            _shown(self.metric, mean),
            self._scaled(mean, error),
            int(kept.sum()),
            ASSUMES,
            self.confidence,
            detail,
        )

    def check_against(
        self, prediction: ArrayLike, inputs: Inputs, truth: ArrayLike, *, looks: int = 1, days: ArrayLike | None = None
    ) -> Verdict:
        """The estimate for rows with truths against what these say; FAIL means that the assumption does not hold.

        days: the day of each row, where rows of one day err alike.
        """
        f, y = np.asarray(prediction, dtype=np.float64), np.asarray(truth, dtype=np.float64)
        kept = np.isfinite(f) & np.isfinite(y)
        found = self.estimate(np.where(kept, f, np.nan), inputs)
        if found.effect is None:
            return confirmed(found, float("nan"), 0.0, 0, ASSUMES)
        mean, _, learned = self._mean(f[kept], self.columns.array(inputs, len(kept))[kept])
        loss = _loss(self.metric, f[kept], y[kept])
        residual, freedom = of_days(loss - learned, day_of(days, kept), block_mean(loss - learned).error)
        error = self._scaled(mean, float(np.hypot(residual, self._unsure(f[kept], self.columns.array(inputs, len(kept))[kept]))))
        return confirmed(found, _shown(self.metric, loss.mean()), error, len(loss), ASSUMES, looks=looks, freedom=freedom)

    def _mean(self, f: Floats, X: Floats) -> tuple[float, float, Floats]:
        """Mean loss of a window, its standard error over rows drawn anew, and each row's learned loss."""
        each = self._each(f, X)
        learned = each.mean(axis=0)
        mean = max(0.0, float(learned.mean()) + self.missed)
        sampling = learned.std(ddof=1) / np.sqrt(len(f)) if len(f) > 1 else np.inf
        return mean, float(np.hypot(sampling, self._unsure(f, X))), learned

    def _unsure(self, f: Floats, X: Floats) -> float:
        """What the finite reference leaves open: its residuals, and how far the folds' trees disagree about this window."""
        spread = self._each(f, X).mean(axis=1).std() * np.sqrt(FOLDS - 1)  # the delete-a-group jackknife
        return float(np.hypot(self.missed_sd / np.sqrt(self.rows), spread))

    def _each(self, f: Floats, X: Floats) -> Floats:
        with threadpool_limits(1, user_api="openmp"):
            return np.stack([t.predict(_with(X, f)) for t in self.trees])

    def _scaled(self, mean: float, error: float) -> float:
        """The error of a square root by the delta method."""
        return error / (2 * np.sqrt(max(mean, 1e-300))) if self.metric == "rmse" else error


def _learn(X: Floats, loss: Floats, seed: int) -> tuple[tuple[Model, ...], Floats]:
    fold, learned, made = folds(len(X), FOLDS, seed), np.zeros(len(X)), []
    for number in range(FOLDS):  # one thread: see density.out_of_fold
        trees = sklearn.ensemble.HistGradientBoostingRegressor(**TREES, random_state=seed)
        with threadpool_limits(1, user_api="openmp"):
            trees.fit(X[fold != number], loss[fold != number])
            learned[fold == number] = trees.predict(X[fold == number])
        made.append(trees)
    return tuple(made), learned


def _with(X: Floats, f: Floats) -> Floats:
    return np.concatenate([X, f[:, None]], axis=1)


def _loss(metric: str, f: Floats, y: Floats) -> Floats:
    return np.asarray(np.abs(y - f) if metric == "mae" else (y - f) ** 2)


def _shown(metric: str, mean: float) -> float:
    return float(np.sqrt(max(mean, 0.0))) if metric == "rmse" else float(mean)
