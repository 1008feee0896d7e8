"""`loudly.toml`: where things are, and nothing else. Embedded defaults: everything under `.loudly/`.

    [store]    root = ".loudly", ledger = "sqlite", blobs = "files", url = "env:DATABASE_URL", retention = "90d"
    [tracker]  kind = "none" | "mlflow", url = "sqlite:///..."
    [server]   host = "127.0.0.1", port = 8000, keys = ["predict=env:PREDICT_KEY"], rate = 100, deadline = 2.5, fast_forms = true
    [executor] kind = "here" | "processes" | "ray", workers = 2
    [notify]   kinds = ["terminal"], file = "alarms.jsonl", webhook = "env:ALARM_WEBHOOK"

A value "env:NAME" is read from the environment: secrets never stand in the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from loudly.core.clock import is_duration
from loudly.core.saying import FORMATS
from loudly.errors import ConfigError, nearest

FILE = "loudly.toml"


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where the ledger, blobs and traffic are. `url`: a database's or bucket's address, where they need one.

    retention: how long logged traffic is kept, such as "90d"; "" keeps it for ever.
    rows_in_memory: how many rows that wait for their label, and as many that wait for the next fit, a server holds in memory; the
    others wait in files without a name under root.
    """

    root: str = ".loudly"
    ledger: str = "sqlite"
    blobs: str = "files"
    url: str = ""
    key: str = "env:LOUDLY_KEY"
    retention: str = ""
    rows_in_memory: int = 100_000


@dataclass(frozen=True, slots=True)
class TrackerConfig:
    """The mirror of runs and versions. `url`: MLflow's tracking store; under the root by default."""

    kind: str = "none"
    url: str = ""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where `loudly serve` listens, and what it takes.

    kind: the server.  tick: seconds between two tellings of the time.  keys: "role+role=env:NAME"; without any, everybody may
    ask.  rate: requests a second and key (0: no limit), `burst` of them at once.  batch: rows answered together at most.
    queue: rows that may wait; more are refused with 429.  deadline: seconds until a request is answered with 503, or with the
    fallback where late = "fallback".  inline: ask the model on the event loop instead of a thread: quicker where it takes some
    microseconds, but while it hangs so does the server.  most_bytes, most_rows: of one request; explain_rows of one to
    be explained.  slow: seconds a body may take.
    grpc_port: where gRPC listens beside HTTP; 0 for nowhere.
    drain: seconds that answers say "Connection: close" after SIGTERM before the doors shut, for clients to leave unhurt.
    workers: processes that answer; 1 answers in the process of the wheel.  most_spooled: bytes that each keeps while the wheel is
    away; what comes then is answered, counted and lost.  max_versions: how many may be loaded at once, the routed ones among them.
    log_format: of what is said on standard error: "text", or "json", an object a line.  access_log: which requests have a line
    there: "none", those "refused" (400 and more), or "all".
    log_sample: share of the units whose traffic is logged, meets its labels and is judged; the others are answered alone.
    fast_forms: whether models are compiled when registered, and served so where the fast form answers as the original does.
    """

    kind: str = "asgi"
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 0
    tick: float = 5.0
    keys: tuple[str, ...] = ()
    rate: float = 0.0
    burst: float = 0.0
    batch: int = 64
    queue: int = 4096
    deadline: float = 10.0
    late: str = "refuse"
    inline: bool = False
    most_bytes: int = 16 * 2**20
    most_rows: int = 10_000
    explain_rows: int = 32
    slow: float = 30.0
    drain: float = 5.0
    fast_forms: bool = True
    max_versions: int = 8
    workers: int = 1
    most_spooled: int = 2**30
    log_sample: float = 1.0
    log_format: str = "text"
    access_log: str = "none"


@dataclass(frozen=True, slots=True)
class ExecutorConfig:
    """Where points of a search are judged and models are fitted; `loudly predict` scores its row groups there, where it is Ray.

    kind: "here" is the process that asks, "processes" some of this machine, "ray" the cluster of RAY_ADDRESS or a local Ray.
    workers: how many work side by side; "here" is one. A search asks for as many points at once, so its result goes by it.
    """

    kind: str = "here"
    workers: int = 2


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """Where alarms go."""

    kinds: tuple[str, ...] = ("terminal",)
    file: str = "alarms.jsonl"
    webhook: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file."""

    folder: Path = Path()
    store: StoreConfig = field(default_factory=StoreConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    notify: NotifyConfig = field(default_factory=NotifyConfig)

    @property
    def root(self) -> Path:
        """The folder of the stores."""
        return self.folder / self.store.root


SECTIONS: dict[str, type[Any]] = {
    "store": StoreConfig,
    "tracker": TrackerConfig,
    "server": ServerConfig,
    "executor": ExecutorConfig,
    "notify": NotifyConfig,
}


TYPES: dict[type[Any], str] = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    tuple: "a list of texts",
}

BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "port": (lambda port: 0 <= port < 65_536, "a port"),
    "grpc_port": (lambda port: 0 <= port < 65_536, "a port, or 0 for none"),
    "tick": (lambda seconds: seconds > 0, "seconds above 0"),
    "rate": (lambda rate: rate >= 0, "requests a second, or 0 for no limit"),
    "burst": (lambda burst: burst >= 0, "a number of requests"),
    "batch": (lambda rows: rows >= 1, "at least one row"),
    "queue": (lambda rows: rows >= 1, "at least one row"),
    "deadline": (lambda seconds: seconds > 0, "seconds above 0"),
    "retention": (lambda text: not text or is_duration(text), 'a duration such as "90d", or "" to keep all for ever'),
    "late": (lambda word: word in ("refuse", "fallback"), '"refuse" or "fallback"'),
    "most_bytes": (lambda size: size >= 1, "at least one byte"),
    "explain_rows": (lambda rows: rows >= 1, "at least one row"),
    "most_rows": (lambda rows: rows >= 1, "at least one row"),
    "workers": (lambda count: count >= 1, "at least one process"),
    "rows_in_memory": (lambda rows: rows >= 0, "a number of rows"),
    "most_spooled": (lambda size: size >= 2**20, "at least a MiB"),
    "log_format": (lambda word: word in FORMATS, '"text" or "json"'),
    "access_log": (lambda word: word in ("none", "refused", "all"), '"none", "refused" or "all"'),
    "log_sample": (lambda share: 0 < share <= 1, "a share above 0, and 1 at most"),
    "max_versions": (lambda count: count >= 2, "at least two, a champion and a candidate"),
    "slow": (lambda seconds: seconds > 0, "seconds above 0"),
    "drain": (lambda seconds: seconds >= 0, "seconds, or 0 to shut the doors at once"),
}


def read_config(folder: Path | None = None) -> Config:
    """The configuration of a folder; defaults where there is no file.

    Raises: ConfigError for a file that is no TOML, an unknown section or key (with the nearest), a value of a wrong type.
    """
    folder = folder or Path()
    path = folder / FILE
    if not path.exists():
        return Config(folder)
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise ConfigError(f"{FILE} is no TOML.", seen=str(wrong)) from wrong
    sections = {}
    for name, values in said.items():
        if name not in SECTIONS:
            raise ConfigError(f"{FILE} has no section [{name}].", do=nearest(name, SECTIONS))
        sections[name] = _section(name, SECTIONS[name], values)
    return Config(folder, **sections)


def secret(value: str) -> str:
    """The value, or what the environment says where it is "env:NAME" (empty where the variable is not set)."""
    return os.environ.get(value[4:], "") if value.startswith("env:") else value


def needed(section: str, key: str, value: str) -> str:
    """The same of a value that somebody has named. Raises: ConfigError where its variable is not set."""
    found = secret(value)
    if value.startswith("env:") and not found:
        raise ConfigError(f"[{section}] {key} is not in the environment.", seen=value, do=f"Set {value[4:]}.")
    return found


def _section(name: str, kind: type[Any], values: Mapping[str, Any]) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"[{name}] is a section, not a value.", seen=repr(values))
    known = {f.name: getattr(kind(), f.name) for f in fields(kind)}
    given = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"[{name}] has no key {key!r}.", do=nearest(key, known))
        wanted = type(known[key])
        value = tuple(value) if wanted is tuple and isinstance(value, list) else value
        if isinstance(value, int) and wanted is float:
            value = float(value)
        texts = not isinstance(value, tuple) or all(isinstance(one, str) for one in value)
        endless = isinstance(value, float) and not isfinite(value)
        if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool) or not texts or endless:
            raise ConfigError(f"[{name}] {key} wants {TYPES[wanted]}.", seen=repr(value))
        given[key] = value
        if key in BOUNDS and not BOUNDS[key][0](value):
            raise ConfigError(f"[{name}] {key} wants {BOUNDS[key][1]}.", seen=repr(value))
    return kind(**given)
