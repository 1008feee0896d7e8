"""What `mlflow.pyfunc` calls to load one of our artefacts: raw columns in, scores out.

Features that are functions of the user's need the user's module: it is named by LOUDLY_APP, or `app.py` beside.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from loudly.app.project import load_app
from loudly.app.verbs import formats
from loudly.data.read import read_table
from loudly.errors import DataError
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
        """Scores of raw rows: (n,) or (n, k).

        Raises: DataError where a row does not fit the schema: answers of fewer rows would be taken for those of others.
        """
        fitted = conform(read_table(frame.rename(columns=str)), self._ready.schema, keys=False)
        if fitted.aside.height:
            seen = f"{fitted.aside.height:,} of {len(frame):,} rows, the first: {fitted.aside['reason'][0]}"
            raise DataError("Rows do not fit the schema.", seen=seen, do="Mend them, or leave them out.")
        return self._ready.predict(fitted.good)


def _load_pyfunc(path: str) -> PyfuncModel:
    """MLflow's hook."""
    return PyfuncModel(Path(path).read_bytes())
