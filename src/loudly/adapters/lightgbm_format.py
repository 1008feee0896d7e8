"""LightGBM in its own text format: no code runs on load, one row costs microseconds instead of milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightgbm as lgb
import numpy as np

from loudly.errors import ModelError

if TYPE_CHECKING:
    from loudly.core.seams import Floats


class LightGBMFormat:
    """Stores Boosters and the scikit-learn wrappers of LightGBM as text."""

    name = "lightgbm"
    executes_code = False

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, lgb.Booster | lgb.LGBMModel)

    def dump(self, fitted: object) -> bytes:
        booster = fitted.booster_ if isinstance(fitted, lgb.LGBMModel) else fitted
        if not isinstance(booster, lgb.Booster):
            raise ModelError("This is no LightGBM model.", seen=type(fitted).__name__)
        return str(booster.model_to_string()).encode()

    def load(self, data: bytes) -> LightGBMModel:
        return LightGBMModel(self.restore(data))

    def restore(self, data: bytes) -> lgb.Booster:
        """The Booster, to continue from (`init_model=`)."""
        try:
            return lgb.Booster(model_str=data.decode())
        except (lgb.basic.LightGBMError, UnicodeDecodeError) as wrong:
            raise ModelError("These bytes are no LightGBM model.", seen=str(wrong)) from wrong


class LightGBMModel:
    """A loaded Booster on one thread."""

    def __init__(self, booster: lgb.Booster) -> None:
        self._booster = booster

    def predict(self, X: Floats) -> Floats:
        return np.asarray(self._booster.predict(X, num_threads=1), dtype=np.float64)
