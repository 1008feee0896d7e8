"""What `mlflow.pyfunc` calls to load one of our artefacts: raw columns in, scores out.

Features that are functions of the user's need the user's module: it is named by LOUDLY_APP, or `app.py` beside.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl

from loudly.app.project import load_app
from loudly.app.verbs import formats
from loudly.loop.serving import make_ready
from loudly.register.bundle import unpack
from loudly.validate.conform import conform

APP_VARIABLE = "LOUDLY_APP"


class PyfuncModel:
    """An artefact that answers pandas frames of raw columns."""

    def __init__(self, data: bytes) -> None:
        bundle = unpack(data)
        needs = set(bundle.features["columns"]) - set(bundle.schema.names)
        definitions = load_app(Path(os.environ.get(APP_VARIABLE, "app.py"))).system.features if needs else ()
        self._ready = make_ready(data, definitions, formats(), vouched=False)

    def predict(self, frame: pd.DataFrame) -> Any:
        """Scores of raw rows: (n,) or (n, k)."""
        table = pl.DataFrame({str(name): pl.Series(frame[name].to_numpy(), strict=False) for name in frame})
        return self._ready.predict(conform(table, self._ready.schema, keys=False).good)


def _load_pyfunc(path: str) -> PyfuncModel:
    """MLflow's hook."""
    return PyfuncModel(Path(path).read_bytes())
