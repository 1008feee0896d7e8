"""The same file behind a real Ray Serve: the same answers, one log, one wheel that comes back when it dies."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

SCRIPT = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import httpx, ray
from ray import serve
from loudly.adapters.ray_serve import application, wheel_of
from pathlib import Path

port, rows, labels = int(sys.argv[1]), json.loads(Path("rows.json").read_text()), json.loads(Path("labels.json").read_text())
path = str(Path("app.py").resolve())
ray.init(num_cpus=3, include_dashboard=False, logging_level="ERROR")
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(application("app.py", most=2, processors=0.5), name="loudly")
told = {}
with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
    told["ready"] = client.get("/ready").status_code
    told["answers"] = client.post("/predict", json=rows).json()["answers"]
    for _ in range(10):  # the first one loads the model
        why = client.post("/explain", json=rows[:2])
        if why.status_code != 503:
            break
    told["why"] = why.json()
    told["bad"] = client.post("/predict", json={**rows[0], "income": "much"}).status_code
    told["labels"] = client.post("/feedback", json=labels).json()
    told["argo"] = client.get("/analysis/argo").json()["result"]
    ray.kill(wheel_of(path), no_restart=False)
    told["while"] = [client.post("/predict", json=row).status_code for row in rows[:5]]
    for _ in range(120):
        try:
            told["after"] = client.get("/status").json()
            if not told["after"]["wheel_away"]:
                break
        except Exception:
            pass
        time.sleep(1)
    told["again"] = client.post("/feedback", json=labels).json()
    more = [{**row, "loan_id": f"more-{i}"} for i, row in enumerate(rows[:20])]
    client.post("/predict", json=more)
    told["more"] = client.post("/feedback", json=[{"loan_id": r["loan_id"], "late": True} for r in more]).json()
Path("told.json").write_text(json.dumps(told))
serve.shutdown()
ray.shutdown()
"""


def here(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_many_doors_answer_as_one_server_and_the_wheel_comes_back(tmp_path: Path) -> None:
    for name in ("ray", "grpc_reflection", "httpx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"LOUD: {name} is not installed, Ray Serve is not tested: pip install 'loudly[ray-serve]'")
    loudly = "import sys; from loudly.cli.main import main; sys.argv[0] = 'loudly'; main()"
    for words in (["init", "."], ["train"], ["ship"]):
        here(tmp_path, "-c", loudly, *words)
    rows = pl.read_csv(tmp_path / "loans.csv", try_parse_dates=True).tail(100)
    rows.drop("late").write_parquet(tmp_path / "rows.parquet")
    here(tmp_path, "-c", loudly, "predict", "rows.parquet", "-o", "out.parquet")
    sent = [{**row, "asked_at": row["asked_at"].isoformat()} for row in rows.drop("late").to_dicts()]
    (tmp_path / "rows.json").write_text(json.dumps(sent))
    (tmp_path / "labels.json").write_text(json.dumps(rows.select("loan_id", "late").to_dicts()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here(tmp_path, "-c", SCRIPT, str(port))
    told: dict[str, Any] = json.loads((tmp_path / "told.json").read_text())
    assert told["ready"] == 200
    batch = pl.read_parquet(tmp_path / "out.parquet")
    # a door serves the fast form, as the server does; the batch asks the original
    assert [a["prediction"] for a in told["answers"]] == pytest.approx(batch["prediction"].to_list(), rel=1e-12)
    assert {a["version"] for a in told["answers"]} == {"loans/1"}
    assert "explanations" in told["why"], told["why"]
    for why, answer in zip(told["why"]["explanations"], told["answers"], strict=False):
        assert why["base"] + sum(why["contributions"].values()) == pytest.approx(why["score"])
        assert why["prediction"] == pytest.approx(answer["prediction"])
    assert len(told["why"]["explanations"]) == 2
    assert told["bad"] == 422
    assert told["labels"] == {"joined": 100, "unknown": 0, "repeated": 0}
    assert told["argo"] == "UNDECIDED"
    assert told["while"] == [200] * 5, "answers go on while the wheel is away"
    assert told["after"]["champion"] == "loans/1"
    assert told["again"]["repeated"] == 100, "it has read its log again"
    assert told["more"]["joined"] == 20
