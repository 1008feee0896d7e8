"""The same file behind a real Ray Serve: the same answers, one log, one wheel that comes back when it dies."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

httpx = pytest.importorskip("httpx")

from command_line import LOUDLY, Project, free_port  # noqa: E402
from loudly.loop.traffic import from_bytes  # noqa: E402
from loudly.store.segments import read_segments  # noqa: E402
from waiting import PATIENCE, until  # noqa: E402

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
    for _ in range(240):  # the door may be there before the wheel has told it anything
        told["ready"] = client.get("/ready").status_code
        if told["ready"] == 200:
            break
        time.sleep(0.5)
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
    sent = {"traceparent": sys.argv[2], "X-Request-Id": "mine"}
    told["traced"] = client.post("/predict", json={**rows[0], "loan_id": "traced"}, headers=sent).headers["traceparent"]
    told["again"] = client.post("/feedback", json=labels).json()
    more = [{**row, "loan_id": f"more-{i}"} for i, row in enumerate(rows[:20])]
    client.post("/predict", json=more)
    told["more"] = client.post("/feedback", json=[{"loan_id": r["loan_id"], "late": True} for r in more]).json()
Path("told.json").write_text(json.dumps(told))
serve.shutdown()
ray.shutdown()
"""

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SPANS = """
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

out = Path(__file__).with_name("spans.jsonl").open("a")
provider = TracerProvider()
line = lambda span: span.to_json(indent=None) + "\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=line)))
trace.set_tracer_provider(provider)
"""


def here(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def site(shipped: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was served by Ray once, with what its clients were told, its batch, and its spans."""
    for name in ("ray", "grpc_reflection", "httpx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"LOUD: {name} is not installed, Ray Serve is not tested: pip install 'loudly[ray-serve]'")
    project = shipped.copy(tmp_path_factory.mktemp("site"))
    folder = project.folder
    rows = pl.read_csv(folder / "loans.csv", try_parse_dates=True).tail(100)
    rows.drop("late").write_parquet(folder / "rows.parquet")
    assert project.run("predict", "rows.parquet", "-o", "out.parquet").returncode == 0
    sent = [{**row, "asked_at": row["asked_at"].isoformat()} for row in rows.drop("late").to_dicts()]
    (folder / "rows.json").write_text(json.dumps(sent))
    (folder / "labels.json").write_text(json.dumps(rows.select("loan_id", "late").to_dicts()))
    if importlib.util.find_spec("opentelemetry") is not None and importlib.util.find_spec("opentelemetry.sdk") is not None:
        project.edit("app.py", "import loudly\n", f"import loudly\n{SPANS}")
    here(folder, "-c", SCRIPT, str(free_port()), f"00-{TRACE}-{PARENT}-01")
    return folder


@pytest.fixture(scope="module")
def told(site: Path) -> dict[str, Any]:
    return dict(json.loads((site / "told.json").read_text()))


def test_many_doors_answer_as_one_server_and_the_wheel_comes_back(site: Path, told: dict[str, Any]) -> None:
    assert told["ready"] == 200
    batch = pl.read_parquet(site / "out.parquet")
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


def test_a_door_goes_on_the_clients_trace_and_the_model_is_its_child(site: Path, told: dict[str, Any]) -> None:
    if not (site / "spans.jsonl").exists():
        pytest.skip("LOUD: opentelemetry-sdk is not installed; spans behind Ray Serve are not tested")
    spans = [json.loads(line) for line in (site / "spans.jsonl").read_text().splitlines()]
    (request,) = [s for s in spans if s["attributes"].get("loudly.request_id") == "mine"]
    assert (request["name"], request["context"]["trace_id"], request["parent_id"]) == ("POST /predict", f"0x{TRACE}", f"0x{PARENT}")
    own = request["context"]["span_id"]
    assert told["traced"] == f"00-{TRACE}-{own[2:]}-01"
    (model,) = [s for s in spans if s["name"] == "model" and s["parent_id"] == own]
    for span in (request, model):
        said = {name: span["attributes"][f"loudly.{name}"] for name in ("version", "arm", "rows", "fallback")}
        assert said == {"version": "loans/1", "arm": "control", "rows": 1, "fallback": False}
    predictions = [s for s in spans if s["name"] == "POST /predict" and s["attributes"]["http.response.status_code"] == 200]
    assert len(predictions) == 8, "one for each request that was answered, whichever door has answered it"


def test_sigterm_ends_it_in_order_and_what_was_answered_is_in_the_log(site: Path, shipped: Project, tmp_path: Path) -> None:
    """Ray's own handler aborts the process, and its children with it."""
    project, port = shipped.copy(tmp_path / "ends"), free_port()
    with (tmp_path / "said.txt").open("wb") as said:
        server = subprocess.Popen(
            [LOUDLY, "serve", "--ray", "--port", str(port)], cwd=project.folder, stdout=subprocess.DEVNULL, stderr=said
        )
        try:
            until(lambda: httpx.get(f"http://127.0.0.1:{port}/ready", timeout=60).status_code == 200, "a door")
            row = json.loads((site / "rows.json").read_text())[0]
            answered = [f"last-{i}" for i in range(20)]
            told = httpx.post(f"http://127.0.0.1:{port}/predict", json=[{**row, "loan_id": name} for name in answered], timeout=60)
            assert told.status_code == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == 0, (tmp_path / "said.txt").read_text()[-2000:]
        finally:
            server.kill()
    records = read_segments(project.folder / ".loudly" / "traffic")
    ids = {name for r in records if r.kind == "predictions" for name in from_bytes(r.payload)["loan_id"]}
    assert set(answered) <= ids
