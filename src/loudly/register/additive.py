"""What each column contributes to the score of a linear model of scikit-learn: exact, for the model is a sum of its columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Contributions, Floats

sklearn = late("sklearn")

LOGISTIC = ("LogisticRegression", "LogisticRegressionCV")
LINEAR = (
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lasso",
    "LassoCV",
    "LinearRegression",
    "Ridge",
    "RidgeCV",
    "SGDRegressor",
)
# Each column of what they give is a function of the same column of what they take.
SCALERS = (
    "MaxAbsScaler",
    "MinMaxScaler",
    "PowerTransformer",
    "QuantileTransformer",
    "RobustScaler",
    "StandardScaler",
)


def linear_contributions(estimator: Any, X: Floats, background: Floats) -> Contributions | None:
    """Contributions against the background's mean; None for an estimator that is no linear model after columnwise steps.

    Shapes: X (n, d), background (m, d).
    """
    steps, last = _parts(estimator)
    linear, logistic = _classes(sklearn.linear_model, LINEAR), _classes(sklearn.linear_model, LOGISTIC)
    columnwise = (*_classes(sklearn.preprocessing, SCALERS), sklearn.impute.SimpleImputer)
    if not isinstance(last, linear + logistic) or not all(isinstance(s, columnwise) for s in steps):
        return None
    made, held = X, background
    for step in steps:
        made, held = step.transform(made), step.transform(held)
    weights = np.atleast_2d(last.coef_)
    if made.shape != X.shape or weights.shape[1] != X.shape[1]:
        return None
    terms, usual = made[:, :, None] * weights.T, held[:, :, None] * weights.T
    mean = usual.mean(axis=0)
    base = np.asarray(np.atleast_1d(last.intercept_) + mean.sum(axis=0), dtype=np.float64)
    space = "output" if isinstance(last, linear) else "log-odds" if len(weights) == 1 else "logits"
    return Contributions("linear", space, base, np.asarray(terms - mean, dtype=np.float64))


def _classes(module: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(getattr(module, name) for name in names)


def _parts(estimator: Any) -> tuple[list[Any], Any]:
    """The steps before the last one, without those that pass all through, and the last."""
    if not isinstance(estimator, sklearn.pipeline.Pipeline):
        return [], estimator
    steps = [step for _, step in estimator.steps]
    return [s for s in steps[:-1] if s is not None and s != "passthrough"], steps[-1]
