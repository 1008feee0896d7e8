"""A model of an MLflow registry, by its URI: its folder is copied into the artefact, so that a moved alias changes nothing.

Most flavours hold pickles, so the format is said to run code and loads only under a digest that the ledger holds.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from loudly.core.seams import Floats
from loudly.errors import ModelError
from loudly.register.bundle import EPOCH
from loudly.register.skops_format import SklearnModel
from loudly.stats.threads import OneThread

ABOUT = "MLmodel"


class MlflowModel:
    """`MlflowModel("models:/flights@champion")` as a fitted model: return it from the train function.

    The URI is read once, here. scikit-learn's flavour answers with probabilities; any other with what its pyfunc predicts.
    Raises: ModelError where the registry has no such model.
    """

    def __init__(self, uri: str) -> None:
        with TemporaryDirectory() as folder:
            try:
                copied = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
            except (MlflowException, OSError) as wrong:
                raise ModelError(f"MLflow has no model at {uri}.", seen=str(wrong)[:200], do="Set the tracking URI.") from wrong
            self.archive = _packed(Path(copied))
        self._run: Any = None

    def predict(self, X: Floats) -> Floats:
        if self._run is None:
            self._run = LoadedMlflow(self.archive)
        return np.asarray(self._run.predict(X), dtype=np.float64)


class MlflowUriFormat:
    """Stores `MlflowModel`s as the folder that MLflow keeps."""

    name = "mlflow-uri"
    executes_code = True

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, MlflowModel)

    def dump(self, fitted: object) -> bytes:
        if not isinstance(fitted, MlflowModel):
            raise ModelError(
                "This is no MLflow model of ours.", seen=type(fitted).__name__, do='Return MlflowModel("models:/...").'
            )
        return fitted.archive

    def load(self, data: bytes) -> LoadedMlflow:
        return LoadedMlflow(data)

    def restore(self, data: bytes) -> MlflowModel:
        _checked(data)
        made = MlflowModel.__new__(MlflowModel)
        made.archive, made._run = data, None
        return made


class LoadedMlflow:
    """The copied folder, loaded by MLflow; a call runs on one thread."""

    def __init__(self, data: bytes) -> None:
        with TemporaryDirectory() as folder, _checked(data) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow compares installed versions, and its dependencies warn about themselves
            archive.extractall(folder)
            loaded = mlflow.pyfunc.load_model(folder)
        flavors, self._names = loaded.metadata.flavors, _names(loaded)
        raw = loaded.get_raw_model() if "sklearn" in flavors else None
        self._sklearn = SklearnModel(raw) if hasattr(raw, "predict") else None
        self._pyfunc = loaded
        self._threads = OneThread()

    def predict(self, X: Floats) -> Floats:
        """(n,) or (n, k); of two columns the second."""
        if self._sklearn is not None:
            return self._sklearn.predict(X)
        given = {name: X[:, i] for i, name in enumerate(self._names)} if self._names else X
        with self._threads.held(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = np.asarray(self._pyfunc.predict(given), dtype=np.float64)
        return np.ascontiguousarray(found[:, -1]) if found.ndim == 2 and found.shape[1] <= 2 else found


def _names(loaded: Any) -> list[str]:
    schema = loaded.metadata.get_input_schema()
    return list(schema.input_names()) if schema is not None and schema.has_input_names() else []


def _packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix(), EPOCH), path.read_bytes())
    return buffer.getvalue()


def _checked(data: bytes) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as wrong:
        raise ModelError("These bytes are no MLflow model.", seen=str(wrong)) from wrong
    if ABOUT not in archive.namelist():
        raise ModelError(
            "These bytes are no MLflow model.", seen=", ".join(archive.namelist()[:5]), do=f"There is no {ABOUT} file."
        )
    return archive
