"""ONNX models on ONNX Runtime: no code of others runs on load; one row costs microseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from loudly.core.seams import Floats
from loudly.errors import ModelError


class OnnxModel:
    """An ONNX graph as a fitted model: return `OnnxModel(graph.SerializeToString())` from the train function.

    The graph takes (n, d) float32 or float64 and gives probabilities (n, k), a score (n, 1) or (n,).
    """

    def __init__(self, graph: bytes) -> None:
        self.graph = graph
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as wrong:
            raise ModelError("These bytes are no ONNX graph.", seen=str(wrong)[:200]) from wrong
        given = self._session.get_inputs()[0]
        self._input, self._type = given.name, np.float64 if given.type == "tensor(double)" else np.float32

    def __reduce__(self) -> tuple[type[OnnxModel], tuple[bytes]]:
        """By its graph: a session cannot go to another process."""
        return OnnxModel, (self.graph,)

    def predict(self, X: Floats) -> Floats:
        """The last output that is a float array; of two columns the second."""
        made = self._session.run(None, {self._input: np.asarray(X, dtype=self._type)})
        arrays = [a for a in made if isinstance(a, np.ndarray) and a.dtype.kind == "f"]
        if not arrays:
            raise ModelError("The ONNX graph gives no float array.", do="Convert with zipmap off.")
        found = np.asarray(arrays[-1], dtype=np.float64)
        if found.ndim == 2 and found.shape[1] <= 2:
            return np.ascontiguousarray(found[:, -1])
        return found


class OnnxFormat:
    """Stores ONNX graphs as they are."""

    name = "onnx"
    executes_code = False

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, OnnxModel)

    def dump(self, fitted: object) -> bytes:
        if not isinstance(fitted, OnnxModel):
            raise ModelError("This is no ONNX model.", seen=type(fitted).__name__)
        return fitted.graph

    def load(self, data: bytes) -> OnnxModel:
        return OnnxModel(data)

    def restore(self, data: bytes) -> Any:
        return OnnxModel(data)
