"""PyTorch models as exported programs (`torch.export`): the graph and its weights, without the Python class.

The class need not be there when it is loaded. Loading still reads expressions of shapes with a parser that evaluates Python,
so the format is said to run code and loads only under a digest that the ledger holds.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch

from loudly.core.seams import Floats
from loudly.errors import ModelError, one_line
from loudly.stats.threads import OneThread

EXAMPLE_ROWS = 3


class TorchModel:
    """A module as a fitted model: return `TorchModel(module, columns)` from the train function.

    The module takes (n, columns) in the type of its weights and gives probabilities (n, k), a score (n, 1) or (n,).
    Raises: ModelError for a module that torch cannot export with any number of rows.
    Cost: seconds, once, for the export.
    """

    def __init__(self, module: torch.nn.Module, columns: int) -> None:
        example = torch.zeros(EXAMPLE_ROWS, columns, dtype=_type_of(module))
        rows = {0: torch.export.Dim("rows")}
        try:
            self.program = torch.export.export(module.eval(), (example,), dynamic_shapes=(rows,))
        except Exception as wrong:
            said = one_line(wrong)
            raise ModelError("torch cannot export this module.", seen=said, do="See torch.export, or export it to ONNX.") from wrong
        self._run: Any = None

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        """As it is stored: programs do not pickle, and a worker's must come back."""
        return TorchFormat().restore, (TorchFormat().dump(self),)

    def predict(self, X: Floats) -> Floats:
        if self._run is None:
            self._run = LoadedProgram(self.program)
        return np.asarray(self._run.predict(X), dtype=np.float64)


class TorchFormat:
    """Stores `TorchModel`s as .pt2 archives."""

    name = "torch"
    executes_code = True

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, TorchModel)

    def dump(self, fitted: object) -> bytes:
        if not isinstance(fitted, TorchModel):
            raise ModelError(
                "This is no torch model of ours.", seen=type(fitted).__name__, do="Return TorchModel(module, columns)."
            )
        buffer = io.BytesIO()
        torch.export.save(fitted.program, buffer)
        return buffer.getvalue()

    def load(self, data: bytes) -> LoadedProgram:
        return LoadedProgram(_program(data))

    def restore(self, data: bytes) -> TorchModel:
        """The program again; its weights train on by `program.module()`."""
        made = TorchModel.__new__(TorchModel)
        made.program, made._run = _program(data), None
        return made


class LoadedProgram:
    """An exported program that answers, on one thread and without gradients."""

    def __init__(self, program: Any) -> None:
        self._module = program.module()
        self._type = _type_of(self._module)
        self._threads = OneThread()

    def predict(self, X: Floats) -> Floats:
        """(n,) or (n, k); of two columns the second."""
        torch.get_num_threads()  # the first call of a thread sets its number; it must come before ours
        with self._threads.held(), torch.no_grad():
            made = self._module(torch.tensor(X, dtype=self._type)).numpy()
        found = np.asarray(made, dtype=np.float64)
        if found.ndim == 2 and found.shape[1] <= 2:
            return np.ascontiguousarray(found[:, -1])
        return found


def _type_of(module: Any) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float32)


def _program(data: bytes) -> Any:
    try:
        return torch.export.load(io.BytesIO(data))
    except Exception as wrong:
        raise ModelError("These bytes are no exported program.", seen=one_line(wrong)) from wrong
