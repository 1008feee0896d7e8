"""XGBoost in its own binary JSON: no code runs on load; answers on one thread."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xgboost as xgb

from loudly.core.seams import Contributions, Floats
from loudly.errors import ModelError

SPACES = {
    "binary:logistic": "log-odds",
    "multi:softprob": "logits",
    **dict.fromkeys(("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror"), "output"),
}


class XGBoostFormat:
    """Stores Boosters and the scikit-learn wrappers of XGBoost as UBJSON."""

    name = "xgboost"
    executes_code = False

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, xgb.Booster | xgb.XGBModel)

    def dump(self, fitted: object) -> bytes:
        booster = fitted.get_booster() if isinstance(fitted, xgb.XGBModel) else fitted
        if not isinstance(booster, xgb.Booster):
            raise ModelError("This is no XGBoost model.", seen=type(fitted).__name__)
        return bytes(booster.save_raw("ubj"))

    def load(self, data: bytes) -> XGBoostModel:
        return XGBoostModel(self.restore(data))

    def restore(self, data: bytes) -> Any:
        """The Booster, to continue from (`xgb_model=`)."""
        booster = xgb.Booster()
        if not data.startswith(b"{"):
            raise ModelError("These bytes are no XGBoost model.", seen=repr(data[:20]))
        try:
            booster.load_model(bytearray(data))
        except (xgb.core.XGBoostError, ValueError) as wrong:
            raise ModelError("These bytes are no XGBoost model.", seen=str(wrong).splitlines()[0][:200]) from wrong
        return booster


class XGBoostModel:
    """A loaded Booster on one thread, up to its best iteration where training stopped early."""

    def __init__(self, booster: Any) -> None:
        booster.set_param({"nthread": 1})
        self._booster = booster
        best = booster.attr("best_iteration")
        self._rounds = (0, int(best) + 1) if best is not None else (0, 0)

    def contributions(self, X: Floats, _: Floats) -> Contributions | None:
        """Exact TreeSHAP over the training rows that the trees remember; None for an objective whose link is another."""
        said = json.loads(self._booster.save_config())
        space = SPACES.get(said["learner"]["objective"]["name"])
        if space is None:
            return None
        rows = xgb.DMatrix(np.asarray(X, dtype=np.float32))
        made = self._booster.predict(rows, pred_contribs=True, iteration_range=self._rounds, validate_features=False)
        made = np.asarray(made, dtype=np.float64).reshape(len(X), -1, X.shape[1] + 1)
        return Contributions("tree-shap", space, made[0, :, -1], made[:, :, :-1].transpose(0, 2, 1))

    def predict(self, X: Floats) -> Floats:
        """(n,) or (n, k). XGBoost itself rounds rows to float32."""
        made = self._booster.inplace_predict(np.asarray(X, dtype=np.float32), iteration_range=self._rounds, validate_features=False)
        return np.asarray(made, dtype=np.float64)
