"""scikit-learn estimators by skops: only types that scikit-learn and numpy define are loaded; no code of others runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import skops.io as sio
from sklearn.base import BaseEstimator

from loudly.errors import ModelError, UntrustedModel

if TYPE_CHECKING:
    from loudly.core.seams import Floats

OURS = ("sklearn.", "numpy.", "scipy.", "builtins.", "collections.")


class SkopsFormat:
    """Stores fitted scikit-learn estimators without pickle."""

    name = "skops"
    executes_code = False

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, BaseEstimator) and not _foreign(sio.dumps(fitted))

    def dump(self, fitted: object) -> bytes:
        return bytes(sio.dumps(fitted))

    def load(self, data: bytes) -> SklearnModel:
        return SklearnModel(self.restore(data))

    def restore(self, data: bytes) -> Any:
        foreign = _foreign(data)
        if foreign:
            raise UntrustedModel("The artefact names types that are not scikit-learn's.", seen=", ".join(foreign))
        return sio.loads(data, trusted=sio.get_untrusted_types(data=data))


class SklearnModel:
    """Any estimator with predict_proba or predict, as a model."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def predict(self, X: Floats) -> Floats:
        if hasattr(self.estimator, "predict_proba"):
            proba = np.asarray(self.estimator.predict_proba(X), dtype=np.float64)
            return np.ascontiguousarray(proba[:, 1]) if proba.shape[1] == 2 else proba
        if getattr(self.estimator, "_estimator_type", "") == "classifier" or hasattr(self.estimator, "classes_"):
            raise ModelError("This classifier gives no probabilities.", do="Use one with predict_proba.")
        return np.asarray(self.estimator.predict(X), dtype=np.float64)


def _foreign(data: bytes) -> list[str]:
    return [name for name in sio.get_untrusted_types(data=data) if not name.startswith(OURS)]
