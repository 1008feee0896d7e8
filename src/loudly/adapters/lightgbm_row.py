"""LightGBM's own path for one row: the C library called with the row, without the Python wrapper's 500 µs.

The library is loaded without the wrapper, which imports scikit-learn and pandas wherever they are installed.
Cost: about 5 µs for one row. Answers are those of the wrapper to the last bit: it is the same code behind.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.errors import ModelError

lgb = late("lightgbm")

FLOAT64, NORMAL, ALL, ROW_MAJOR = 1, 0, -1, 1
SETTINGS = b"num_threads=1"
# Of what ctypes can load; beside it may lie what only linkers read (.lib, .a).
SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}


@cache
def library() -> ctypes.CDLL:
    """LightGBM's C library, from its package. Raises: ModelError."""
    spec = find_spec("lightgbm")
    made = load_library(spec.submodule_search_locations or () if spec is not None else ())
    made.LGBM_GetLastError.restype = ctypes.c_char_p
    return made


def load_library(folders: Sequence[str], platform: str = sys.platform) -> ctypes.CDLL:
    """The library that lies in or below these folders by the name that it has on this platform.

    Raises: ModelError where there is none, or it cannot be loaded.
    """
    name = f"lib_lightgbm{SUFFIXES.get(platform, '.so')}"
    file = next((path for folder in folders for path in Path(folder).rglob(name)), None)
    do = "Install LightGBM anew: pip install --force-reinstall lightgbm."
    if file is None:
        raise ModelError("LightGBM's package has no C library.", seen=f"no {name} in {', '.join(folders) or 'no folder'}", do=do)
    try:
        return ctypes.CDLL(str(file))
    except OSError as wrong:
        raise ModelError("LightGBM's C library cannot be loaded.", seen=str(wrong), do=do) from wrong


class LightGBMRow:
    """A LightGBM model by its text, answered by the C library."""

    name = "lightgbm-row"
    runs = ""

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, lgb.Booster | lgb.LGBMModel)

    def compile(self, fitted: Any, width: int) -> bytes:
        booster = fitted.booster_ if isinstance(fitted, lgb.LGBMModel) else fitted
        if booster.num_feature() != width:
            raise ModelError("The model reads other columns.", seen=f"{booster.num_feature()} against {width}")
        return str(booster.model_to_string()).encode()

    def cuts(self, fitted: Any) -> tuple[tuple[int, float], ...]:
        """Numerical thresholds; sets of categories are probed by values never seen."""
        booster = fitted.booster_ if isinstance(fitted, lgb.LGBMModel) else fitted
        found: list[tuple[int, float]] = []
        for tree in booster.dump_model()["tree_info"]:
            _cuts(tree["tree_structure"], found)
        return tuple(found)

    def load(self, data: bytes) -> RowModel:
        return RowModel(data)


class RowModel:
    """A handle of the C library. One row takes the prepared path, more rows the general one, both on one thread."""

    def __init__(self, text: bytes) -> None:
        handle, trees = ctypes.c_void_p(), ctypes.c_int()
        _call("LGBM_BoosterLoadModelFromString", text, ctypes.byref(trees), ctypes.byref(handle))
        weakref.finalize(self, library().LGBM_BoosterFree, handle)
        width, outputs = ctypes.c_int(), ctypes.c_int()
        _call("LGBM_BoosterGetNumFeature", handle, ctypes.byref(width))
        _call("LGBM_BoosterGetNumClasses", handle, ctypes.byref(outputs))
        self._handle, self._width, self._outputs = handle, width.value, outputs.value
        self._row = ctypes.c_void_p()
        _call(
            "LGBM_BoosterPredictForMatSingleRowFastInit",
            handle, NORMAL, 0, ALL, FLOAT64, ctypes.c_int32(width.value), SETTINGS, ctypes.byref(self._row),
        )  # fmt: skip
        weakref.finalize(self, library().LGBM_FastConfigFree, self._row)

    def predict(self, X: Floats) -> Floats:
        """(n,) or (n, k). Raises: ModelError for rows of another width."""
        X = np.ascontiguousarray(X, dtype=np.float64)
        n, width = X.shape
        if width != self._width:
            raise ModelError("The model reads other columns.", seen=f"{width} for {self._width}")
        made = np.empty(n * self._outputs, dtype=np.float64)
        length = ctypes.c_int64()
        rows, out = ctypes.c_void_p(X.ctypes.data), ctypes.c_void_p(made.ctypes.data)
        if n == 1:
            _call("LGBM_BoosterPredictForMatSingleRowFast", self._row, rows, ctypes.byref(length), out)
        elif n:
            _call(
                "LGBM_BoosterPredictForMat",
                self._handle, rows, FLOAT64, ctypes.c_int32(n), ctypes.c_int32(width), ROW_MAJOR, NORMAL, 0, ALL, SETTINGS,
                ctypes.byref(length), out,
            )  # fmt: skip
        return made if self._outputs == 1 else made.reshape(n, self._outputs)


def _call(name: str, *given: Any) -> None:
    if getattr(library(), name)(*given) != 0:
        raise ModelError("LightGBM's library refused.", seen=library().LGBM_GetLastError().decode()[:200])


def _cuts(node: Any, found: list[tuple[int, float]]) -> None:
    if "split_feature" not in node:
        return
    if node["decision_type"] == "<=":
        found.append((int(node["split_feature"]), float(node["threshold"])))
    _cuts(node["left_child"], found)
    _cuts(node["right_child"], found)
