"""Names to objects, in one place. A new part is one new file and one line here.

Nothing is imported until a name is resolved, so a heavy library is paid for only by those who use it.
Third parties add lines through the entry-point group `loudly.plugins`: name `kind:name`, value `module:attribute`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from loudly.errors import ConfigError, ExtraMissing, nearest

# kind -> name -> (module:attribute, extra that brings its library or "")
TABLE: dict[str, dict[str, tuple[str, str]]] = {
    "ledger": {
        "sqlite": ("loudly.store.sqlite_ledger:SqliteLedger", ""),
        "memory": ("loudly.store.memory_ledger:MemoryLedger", ""),
        "postgres": ("loudly.adapters.postgres:PostgresLedger", "postgres"),
    },
    "blobs": {
        "files": ("loudly.store.file_blobs:FileBlobs", ""),
        "memory": ("loudly.store.memory_blobs:MemoryBlobs", ""),
        "fsspec": ("loudly.adapters.fsspec_blobs:FsspecBlobs", "s3"),
    },
    "executor": {
        "here": ("loudly.store.executors:Here", ""),
        "processes": ("loudly.store.executors:Processes", ""),
        "ray": ("loudly.adapters.ray_executor:RayExecutor", "ray"),
    },
    "batch": {
        "here": ("loudly.loop.batch:run_here", ""),
        "ray": ("loudly.adapters.ray_data:run", "ray"),
    },
    "format": {
        "lightgbm": ("loudly.adapters.lightgbm_format:LightGBMFormat", "lightgbm"),
        "onnx": ("loudly.adapters.onnx_format:OnnxFormat", "onnx"),
        "xgboost": ("loudly.adapters.xgboost_format:XGBoostFormat", "xgboost"),
        "torch": ("loudly.adapters.torch_format:TorchFormat", "torch"),
        "function": ("loudly.register.function_format:FunctionFormat", ""),
        "graph": ("loudly.register.graph_format:GraphFormat", ""),
        "skops": ("loudly.register.skops_format:SkopsFormat", ""),
        "mlflow-uri": ("loudly.adapters.mlflow_uri_format:MlflowUriFormat", "mlflow"),
        "graph-with-code": ("loudly.register.graph_format:code_graph", ""),
        "pickle": ("loudly.register.pickle_format:PickleFormat", ""),
    },
    "fast": {
        "lightgbm-row": ("loudly.adapters.lightgbm_row:LightGBMRow", "lightgbm"),
        "onnx-trees": ("loudly.adapters.onnx_trees:OnnxTrees", "fast"),
        "onnx-sklearn": ("loudly.adapters.onnx_sklearn:OnnxSklearn", "fast"),
    },
    "search": {
        "random": ("loudly.train.random_search:RandomSearch", ""),
        "optuna": ("loudly.adapters.optuna_search:OptunaSearch", "tune"),
    },
    "tracker": {
        "none": ("loudly.register.no_tracker:NoTracker", ""),
        "mlflow": ("loudly.adapters.mlflow_tracker:MlflowTracker", "mlflow"),
    },
    "strategy": {
        "shadow": ("loudly.deliver.shadow:shadow", ""),
        "canary": ("loudly.deliver.canary:Canary", ""),
        "blue-green": ("loudly.deliver.blue_green:blue_green", ""),
        "ab": ("loudly.deliver.ab:Ab", ""),
        "ab-n": ("loudly.deliver.ab_n:AbN", ""),
        "epsilon-greedy": ("loudly.deliver.epsilon_greedy:epsilon_greedy", ""),
        "thompson": ("loudly.deliver.thompson:thompson", ""),
        "ucb1": ("loudly.deliver.ucb1:ucb1", ""),
        "linucb": ("loudly.deliver.linucb:linucb", ""),
        "linear-thompson": ("loudly.deliver.linear_thompson:linear_thompson", ""),
        "ramp": ("loudly.deliver.ramp:Ramp", ""),
        "team-draft": ("loudly.deliver.interleave:team_draft", ""),
        "probabilistic": ("loudly.deliver.interleave:probabilistic", ""),
    },
    "notify": {
        "terminal": ("loudly.monitor.notify:terminal", ""),
        "file": ("loudly.monitor.notify:to_file", ""),
        "webhook": ("loudly.monitor.notify:to_webhook", ""),
    },
    "metric": {
        "roc_auc": ("loudly.metrics.table:METRICS", ""),
        "average_precision": ("loudly.metrics.table:METRICS", ""),
        "log_loss": ("loudly.metrics.table:METRICS", ""),
        "brier": ("loudly.metrics.table:METRICS", ""),
        "accuracy": ("loudly.metrics.table:METRICS", ""),
        "balanced_accuracy": ("loudly.metrics.table:METRICS", ""),
        "f1": ("loudly.metrics.table:METRICS", ""),
        "precision": ("loudly.metrics.table:METRICS", ""),
        "recall": ("loudly.metrics.table:METRICS", ""),
        "mae": ("loudly.metrics.table:METRICS", ""),
        "mse": ("loudly.metrics.table:METRICS", ""),
        "rmse": ("loudly.metrics.table:METRICS", ""),
        "r2": ("loudly.metrics.table:METRICS", ""),
    },
    "detector": {
        "rank-embedding": ("loudly.shift.detectors:RANK_EMBEDDING", ""),
        "ks": ("loudly.shift.detectors:KS", ""),
        "mmd": ("loudly.shift.detectors:MMD", ""),
        "mmd-agg": ("loudly.shift.detectors:MMD_AGG", ""),
        "mmd-fuse": ("loudly.shift.detectors:MMD_FUSE", ""),
        "energy": ("loudly.shift.detectors:ENERGY", ""),
        "mean-embedding": ("loudly.shift.detectors:MEAN_EMBEDDING", ""),
        "classifier": ("loudly.shift.detectors:CLASSIFIER", ""),
        "disagreement": ("loudly.shift.detectors:DISAGREEMENT", ""),
    },
    "representation": {
        "text": ("loudly.shift.represent.text:hashed_text", ""),
        "image": ("loudly.shift.represent.image:small_image", ""),
        "onnx-text": ("loudly.adapters.onnx_text:text_encoder", "text"),
        "onnx-image": ("loudly.adapters.onnx_encoder:image_encoder", "onnx"),
    },
    "kernel": {
        "numpy": ("loudly.shift.two_sample.mmd:on_numpy", ""),
        "torch": ("loudly.adapters.torch_kernel:TorchKernel", "torch"),
    },
    "stream": {
        "adwin": ("loudly.shift.streams.adwin:Adwin", ""),
        "conformal-martingale": ("loudly.shift.streams.conformal_martingale:ConformalMartingale", ""),
        "cusum": ("loudly.shift.streams.cusum:Cusum", ""),
        "ddm": ("loudly.shift.streams.ddm:Ddm", ""),
        "e-detector": ("loudly.shift.streams.e_detector:EDetector", ""),
        "eddm": ("loudly.shift.streams.eddm:Eddm", ""),
        "harmful-shift": ("loudly.shift.streams.risk:HarmfulShift", ""),
        "kswin": ("loudly.shift.streams.kswin:Kswin", ""),
        "page-hinkley": ("loudly.shift.streams.page_hinkley:PageHinkley", ""),
    },
    "check": {},
    "source": {
        "table": ("loudly.shift.sources:TableSource", ""),
        "parquet": ("loudly.shift.sources:ParquetSource", ""),
        "segments": ("loudly.shift.sources:RecordSource", ""),
        "kafka": ("loudly.adapters.kafka_source:KafkaSource", "kafka"),
    },
    "reduce": {
        "here": ("loudly.shift.map_reduce:here", ""),
        "ray": ("loudly.adapters.ray_profile:RayReduce", "ray"),
    },
    "server": {
        "asgi": ("loudly.adapters.asgi_server:build", "serve"),
        "models": ("loudly.adapters.asgi_models:build", "serve"),
        "uvicorn": ("loudly.adapters.uvicorn_run:run", "serve"),
        "ray": ("loudly.adapters.ray_serve:run", "ray-serve"),
        "grpc": ("loudly.adapters.grpc_server:beside", "grpc"),
    },
    "spans": {
        "otel": ("loudly.adapters.otel_spans:spans", "otel"),
    },
}


@cache
def _table() -> dict[str, dict[str, tuple[str, str]]]:
    table = {kind: dict(rows) for kind, rows in TABLE.items()}
    for point in entry_points(group="loudly.plugins"):
        kind, _, name = point.name.partition(":")
        if kind in table and name:
            table[kind].setdefault(name, (point.value, ""))
    return table


def names(kind: str) -> tuple[str, ...]:
    """The names known of a kind, in the order of the table."""
    return tuple(_table()[kind])


def resolve(kind: str, name: str) -> Any:
    """The object behind a name.

    Raises: ConfigError for an unknown name (with the nearest valid one), ExtraMissing where its library is absent.
    """
    table = _table()
    if kind not in table:
        raise ConfigError(f"There is no kind of part called {kind!r}.", do=nearest(kind, table))
    if name not in table[kind]:
        raise ConfigError(f"There is no {kind} called {name!r}.", do=nearest(name, table[kind]))
    target, extra = table[kind][name]
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as missing:
        if extra and not (missing.name or "").startswith("loudly"):
            raise ExtraMissing(f"The {kind} {name!r}", extra, missing.name or extra) from missing
        raise


def available(kind: str, name: str) -> bool:
    """Whether the name resolves here: known, and its library installed."""
    try:
        resolve(kind, name)
    except (ConfigError, ExtraMissing):
        return False
    return True
