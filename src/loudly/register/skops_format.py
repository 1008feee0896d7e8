"""scikit-learn estimators by skops: only types that scikit-learn and numpy define are loaded; no code of others runs."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Contributions, Floats
from loudly.errors import ModelError, UntrustedModel, one_line
from loudly.register.additive import linear_contributions
from loudly.stats.threads import OneThread

sklearn, sio = late("sklearn"), late("skops.io")

SCHEMA = "schema.json"
EPOCH = (1980, 1, 1, 0, 0, 0)
# An address stands after "__id__": or names a member ("140...npy").
ADDRESS = re.compile(r'(?<="__id__": )\d+|\d{6,}(?=\.npy)|\d{6,}(?=\.npz)|\d{6,}(?=\.bin)')
OURS = ("sklearn.", "numpy.", "scipy.", "builtins.", "collections.")


class SkopsFormat:
    """Stores fitted scikit-learn estimators without pickle."""

    name = "skops"
    executes_code = False

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, sklearn.base.BaseEstimator) and not _foreign(sio.dumps(fitted))

    def dump(self, fitted: object) -> bytes:
        return _settled(sio.dumps(fitted))

    def load(self, data: bytes) -> SklearnModel:
        return SklearnModel(self.restore(data))

    def restore(self, data: bytes) -> Any:
        try:
            foreign = _foreign(data)
        except (zipfile.BadZipFile, KeyError, ValueError) as wrong:
            raise ModelError("These bytes are no skops model.", seen=one_line(wrong)) from wrong
        if foreign:
            raise UntrustedModel("The artefact names types that are not scikit-learn's.", seen=", ".join(foreign))
        return sio.loads(data, trusted=sio.get_untrusted_types(data=data))


class SklearnModel:
    """Any estimator with predict_proba or predict, as a model; a call runs on one thread."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = _alone(estimator)
        self._threads = OneThread()

    def predict(self, X: Floats) -> Floats:
        with self._threads.held():
            return self._predict(X)

    def contributions(self, X: Floats, background: Floats) -> Contributions | None:
        """Of a linear model; None of any other."""
        return linear_contributions(self.estimator, X, background)

    def _predict(self, X: Floats) -> Floats:
        if hasattr(self.estimator, "predict_proba"):
            proba = np.asarray(self.estimator.predict_proba(X), dtype=np.float64)
            return np.ascontiguousarray(proba[:, 1]) if proba.shape[1] == 2 else proba
        if getattr(self.estimator, "_estimator_type", "") == "classifier" or hasattr(self.estimator, "classes_"):
            raise ModelError("This classifier gives no probabilities.", do="Use one with predict_proba.")
        return np.asarray(self.estimator.predict(X), dtype=np.float64)


def _alone(estimator: Any) -> Any:
    """Workers of joblib cost more than a request: `n_jobs` is one in it and in all its parts."""
    if isinstance(estimator, sklearn.base.BaseEstimator):
        many = {name: 1 for name, n in estimator.get_params().items() if name.split("__")[-1] == "n_jobs" and n not in (None, 1)}
        estimator.set_params(**many)
    return estimator


def _settled(data: bytes) -> bytes:
    """The archive with its members numbered in order and without times: skops names them by memory address.

    Equal estimators then have equal bytes, which a content-addressed store stands on.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = members.pop(SCHEMA).decode()
    numbers: dict[str, str] = {}
    for address in ADDRESS.findall(schema):
        numbers.setdefault(address, str(len(numbers) + 1))
    schema = ADDRESS.sub(lambda m: numbers[m[0]], schema)
    renamed = {ADDRESS.sub(lambda m: numbers.get(m[0], m[0]), name): content for name, content in members.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (*sorted(renamed.items()), (SCHEMA, schema.encode())):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return buffer.getvalue()


def _foreign(data: bytes) -> list[str]:
    return [name for name in sio.get_untrusted_types(data=data) if not name.startswith(OURS)]
