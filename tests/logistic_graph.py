"""A logistic regression as an ONNX graph, written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

WEIGHTS = (1.0, 2.0, 0.0, -1.0)


def logistic_graph() -> Any:
    """The bytes of the graph; skips, aloud, without ONNX."""
    onnx = pytest.importorskip("onnx", reason="LOUD: onnx is not installed; there is no graph to test its format with")
    weights = onnx.numpy_helper.from_array(np.array(WEIGHTS, dtype=np.float32)[:, None], "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["z"]), onnx.helper.make_node("Sigmoid", ["z"], ["p"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 4])],
        [onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    return made.SerializeToString()
