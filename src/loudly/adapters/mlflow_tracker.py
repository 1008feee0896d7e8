"""MLflow as the mirror of runs and versions: its own client and UI read them, `models:/NAME@champion` loads them.

The ledger stays the truth; what is here can be made again from it. Metrics are kept in memory and flushed in batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import save_model
from sqlalchemy import event
from sqlalchemy.engine import Engine

from loudly.core.canon import Json, canonical
from loudly.core.values import ModelVersion, Run

LOADER = "loudly.adapters.mlflow_model"
BATCH = 1000


@event.listens_for(Engine, "connect")
def _quick_sqlite(connection: object, _record: object) -> None:
    """WAL and synchronous=NORMAL: MLflow's own setting syncs twice for each metric."""
    if type(connection).__module__.startswith("sqlite3"):
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()


class MlflowTracker:
    """Mirrors into the tracking store at `url`; artefacts under `artifacts`."""

    def __init__(self, url: str, artifacts: Path, experiment: str) -> None:
        Path(artifacts).mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(url)
        mlflow.set_registry_uri(url)
        self._client = mlflow.MlflowClient(url, url)
        self._artifacts = Path(artifacts).resolve()
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment, self._artifacts.as_uri())
        self._runs: dict[str, str] = {}
        self._waiting: dict[str, list[Metric]] = {}

    def ran(self, run: Run, curves: Mapping[str, Sequence[float]]) -> None:
        known = self._client.search_runs([self._experiment], f"tags.`loudly.run` = '{run.key}'", max_results=1)
        run_id, now = (known[0].info.run_id, known[0].info.start_time) if known else self._created(run)
        self._runs[run.key] = run_id
        points = [Metric(name, value, now, step) for name, curve in curves.items() for step, value in enumerate(curve)]
        if not known:
            points += [Metric(name, value, now, 0) for name, value in run.metrics.items() if value is not None]
        self._waiting.setdefault(run_id, []).extend(points)

    def _created(self, run: Run) -> tuple[str, int]:
        tags = {"loudly.run": run.key, "loudly.dataset": run.dataset, "loudly.start": run.start or ""}
        made = self._client.create_run(self._experiment, tags=tags, run_name=run.key[:12])
        params = [Param(name, str(value)) for name, value in {**run.params, "seed": run.seed, "rows": run.rows}.items()]
        self._client.log_batch(made.info.run_id, params=params, tags=[RunTag("loudly.model", run.model)])
        return made.info.run_id, made.info.start_time

    def registered(self, version: ModelVersion, run: Run, model: bytes, context: Mapping[str, Json]) -> None:
        if self._numbered(version) is not None:
            return
        run_id = self._runs[run.key]
        with TemporaryDirectory() as folder:
            data = Path(folder) / "loudly.bundle"
            data.write_bytes(model)
            path = Path(folder) / "model"
            save_model(path, loader_module=LOADER, data_path=str(data), pip_requirements=["loudly"])
            self._client.log_artifacts(run_id, str(path), "model")
        try:
            self._client.create_registered_model(version.name)
        except MlflowException as known:
            if "already exists" not in str(known):
                raise
        source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
        tags = {"loudly.version": version.ref, "loudly.schema": version.schema, **{k: _text(v) for k, v in context.items()}}
        self._client.create_model_version(version.name, source, run_id, tags=tags)
        self.flush()
        self._client.set_terminated(run_id)

    def aliased(self, name: str, alias: str, version: ModelVersion | None) -> None:
        if version is None:
            self._client.delete_registered_model_alias(name, alias)
            return
        number = self._numbered(version)
        if number is not None:
            self._client.set_registered_model_alias(name, alias, number)

    def _numbered(self, version: ModelVersion) -> str | None:
        """MLflow's own number of a version of ours."""
        known = self._client.search_model_versions(f"name='{version.name}' and tags.`loudly.version` = '{version.ref}'")
        return str(known[0].version) if known else None

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for run_id, points in waiting.items():
            for first in range(0, len(points), BATCH):
                self._client.log_batch(run_id, metrics=points[first : first + BATCH])


def _text(value: Json) -> str:
    return value if isinstance(value, str) else canonical(value).decode()
