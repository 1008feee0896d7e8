"""Encoders of one's own as representations of images: any ONNX file. Nothing is downloaded. For texts: `onnx_text`.

Source: Reimers & Gurevych 2019 (mean over the tokens that are there, then length one).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from loudly.core.seams import Floats
from loudly.errors import DataError, ModelError

BATCH = 32


class OnnxEncoder:
    """An ONNX graph from one batch of rows to (n, k), or to (n, tokens, k), which is averaged over the tokens that are there."""

    def __init__(self, path: str | Path) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as wrong:
            raise ModelError("This file is no ONNX graph.", seen=str(wrong)[:200], do=f"Is {path} an encoder?") from wrong
        self.inputs = tuple(i.name for i in self._session.get_inputs())
        self.types = {i.name: np.int64 if "int" in i.type else np.float32 for i in self._session.get_inputs()}

    def __call__(self, given: dict[str, Any], mask: Any = None) -> Floats:
        """The first output of the graph as one row each."""
        lacking = [name for name in self.inputs if name not in given]
        if lacking:
            raise ModelError(
                "The encoder wants inputs that it is not given.", seen=", ".join(lacking), do=f"It is given {[*given]}."
            )
        fed = {name: np.asarray(given[name], dtype=self.types[name]) for name in self.inputs}
        made = np.asarray(self._session.run(None, fed)[0], dtype=np.float64)
        if made.ndim == 3 and mask is not None:
            there = np.asarray(mask, dtype=np.float64)[:, :, None]
            made = (made * there).sum(axis=1) / np.maximum(there.sum(axis=1), 1.0)
        return made.reshape(len(made), -1)


def image_encoder(path: str | Path) -> Callable[[Any], Floats]:
    """Images by an ONNX encoder. Shapes: whatever its one input takes, as (n, 3, height, width) -> (n, k)."""
    encoder = OnnxEncoder(path)

    def embed(images: Any) -> Floats:
        rows = np.asarray(images)
        parts = [encoder({encoder.inputs[0]: rows[i : i + BATCH]}) for i in range(0, len(rows), BATCH)]
        if not parts:
            raise DataError("No images were given.")
        return np.concatenate(parts)

    return embed
