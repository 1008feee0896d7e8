"""Pickle, the last resort: it runs code on load, so it loads only under a digest that the ledger holds."""

from __future__ import annotations

import pickle
from typing import Any

from loudly.errors import ModelError, one_line
from loudly.register.skops_format import SklearnModel


class PickleFormat:
    """Stores any estimator that pickles. Whoever loads must have checked the digest against the ledger."""

    name = "pickle"
    executes_code = True

    def accepts(self, fitted: object) -> bool:
        return hasattr(fitted, "predict")

    def dump(self, fitted: object) -> bytes:
        try:
            return pickle.dumps(fitted, protocol=5)
        except (pickle.PicklingError, AttributeError, TypeError) as wrong:
            raise ModelError("The estimator cannot be stored.", seen=str(wrong), do="Define its class in a module.") from wrong

    def load(self, data: bytes) -> SklearnModel:
        return SklearnModel(self.restore(data))

    def restore(self, data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, ValueError, KeyError, IndexError) as wrong:
            raise ModelError("These bytes are no pickled model.", seen=one_line(wrong)) from wrong
