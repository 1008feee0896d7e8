"""LightGBM in its own text format: no code runs on load, one row costs microseconds instead of milliseconds."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Contributions, Floats
from loudly.errors import ModelError

lgb = late("lightgbm")

SPACES = {
    "binary sigmoid:1": "log-odds",
    "multiclass": "logits",
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "output"),
}


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

    def restore(self, data: bytes) -> Any:
        """The Booster, to continue from (`init_model=`)."""
        try:
            return lgb.Booster(model_str=data.decode())
        except (lgb.basic.LightGBMError, UnicodeDecodeError) as wrong:
            raise ModelError("These bytes are no LightGBM model.", seen=str(wrong)) from wrong


class LightGBMModel:
    """A loaded Booster on one thread."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, X: Floats) -> Floats:
        return np.asarray(self._booster.predict(X, num_threads=1), dtype=np.float64)

    def contributions(self, X: Floats, _: Floats) -> Contributions | None:
        """Exact TreeSHAP over the training rows that the trees remember; None for an objective whose link is another.

        Source: Lundberg et al. 2020, "From local explanations to global understanding with explainable AI for trees".
        """
        space = SPACES.get(self._objective)
        if space is None:
            return None
        made = np.asarray(self._booster.predict(X, num_threads=1, pred_contrib=True), dtype=np.float64)
        made = made.reshape(len(X), -1, X.shape[1] + 1)
        return Contributions("tree-shap", space, made[0, :, -1], made[:, :, :-1].transpose(0, 2, 1))

    @cached_property
    def _objective(self) -> str:
        """The objective as the model's text has it, "" for one of the user's own."""
        found = re.search(r"^objective=(.*)$", self._booster.model_to_string(num_iteration=1), re.MULTILINE)
        return found[1].split(" num_class")[0].strip() if found else ""
