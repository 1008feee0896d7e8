"""scikit-learn pipelines without trees as ONNX graphs in doubles, by skl2onnx."""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline

from loudly.adapters.onnx_format import OnnxModel
from loudly.core.late import late
from loudly.core.seams import Model

skl2onnx = late("skl2onnx")


class OnnxSklearn:
    """Linear models, neural networks and their scalers. Doubles, or not at all: float32 moves answers by up to 1e-4.

    Tree ensembles are left to `onnx-trees`: skl2onnx 1.20 cannot write them with onnx 1.23, and its cuts are float32.
    """

    name = "onnx-sklearn"
    runs = "onnx"

    def accepts(self, fitted: object) -> bool:
        last = fitted.steps[-1][1] if isinstance(fitted, Pipeline) else fitted
        return isinstance(last, BaseEstimator) and type(last).__module__.startswith(
            ("sklearn.linear_model", "sklearn.neural_network", "sklearn.naive_bayes", "sklearn.discriminant_analysis")
        )

    def compile(self, fitted: Any, width: int) -> bytes:
        options = {"zipmap": False} if hasattr(fitted, "predict_proba") else None
        with warnings.catch_warnings():  # the library warns about its own dependencies, when it is imported too
            warnings.simplefilter("ignore")
            kinds = [("x", skl2onnx.common.data_types.DoubleTensorType([None, width]))]
            made = skl2onnx.to_onnx(fitted, initial_types=kinds, options=options, name="sklearn")
        return bytes(made.SerializeToString(deterministic=True))

    def cuts(self, fitted: object) -> tuple[tuple[int, float], ...]:
        return ()

    def load(self, data: bytes) -> Model:
        return OnnxModel(data)
