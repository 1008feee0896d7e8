"""Of a model of several classes a client is told what each score is of: in every answer, the document and the metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

httpx = pytest.importorskip("httpx")
jsonschema = pytest.importorskip("jsonschema", reason="LOUD: jsonschema is not installed; the document's examples are not checked")
pytest.importorskip("uvicorn")

from command_line import free_port  # noqa: E402
from conftest import SINCE, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly import App  # noqa: E402
from loudly.app.verbs import formats, memory_stores  # noqa: E402
from loudly.config import ServerConfig  # noqa: E402
from loudly.core.clock import DAY, DataClock  # noqa: E402
from loudly.loop.batch import Work, pieces_of, run_here, write  # noqa: E402
from loudly.loop.founding import found  # noqa: E402
from loudly.loop.live import Live  # noqa: E402
from loudly.loop.outpost import Outpost, routing_of  # noqa: E402

NAMES = ["high", "low", "middle"]


def of_three(table: pl.DataFrame) -> Live:
    """A champion that tells low, middle and high apart."""
    noisy = table["x1"].to_numpy() + np.random.default_rng(5).normal(0, 1.2, table.height)
    table = table.with_columns(y=pl.Series(np.array(["low", "middle", "high"])[np.digitize(noisy, [-1.0, 1.0])]))
    app = App("world", label="y", time="at", key="id", metric="log_loss")
    app.data(lambda: table)
    app.labels(arrive_within="1d")

    @app.train
    def fit(X: Any, y: Any) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=500).fit(X, y)

    live = Live(app.system, memory_stores("world"), DataClock(SINCE), key=b"replay")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.retrain("first training", "there is no model yet")
    if live.state.champion is None:
        live.promote("world/1", "whatever the gate says")
    return live


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(of_three(make_world(days=45)), ServerConfig(grpc_port=free_port())) as running:
        yield running


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return rows_of(make_world(days=45), SINCE, SINCE + DAY)[:5]


def test_answers_and_explanations_name_the_classes_of_their_scores(server: Server, rows: list[dict[str, Any]]) -> None:
    low, high = {**rows[0], "x1": -4.0}, {**rows[1], "x1": 4.0}
    asked = {"/predict": [low, high], "/predict?version=1": [low, high], "/explain": [low, high]}
    for path, body in asked.items():
        told = httpx.post(f"{server.url}{path}", json=body).json()
        assert told["classes"] == NAMES
        likeliest = [NAMES[int(np.argmax(one["prediction"]))] for one in told.get("answers", told.get("explanations"))]
        assert likeliest == ["low", "high"], path
    one = httpx.post(f"{server.url}/predict", json=rows[2]).json()
    assert one["classes"] == NAMES
    assert len(one["answers"]) == 1


def test_the_document_and_the_metadata_name_them_too(server: Server) -> None:
    told = httpx.get(f"{server.url}/openapi.json").json()
    assert "in this order: high, low, middle" in told["components"]["schemas"]["Answer"]["properties"]["prediction"]["description"]
    for name in ("Answers", "Explanations", "InferResponse"):
        schema = told["components"]["schemas"][name]
        checked = {**schema, "components": told["components"]}
        jsonschema.Draft202012Validator(checked).validate(schema["example"])
    assert told["components"]["schemas"]["Answers"]["example"]["classes"] == NAMES
    for path in ("/v2/models/world", "/v2/models/world/versions/1"):
        outputs = httpx.get(f"{server.url}{path}").json()["outputs"]
        assert outputs[0]["parameters"] == {"classes": NAMES}
        assert "parameters" not in outputs[1]


def test_a_client_of_grpc_still_reads_the_metadata(server: Server) -> None:
    grpc = pytest.importorskip("tritonclient.grpc", reason="LOUD: tritonclient[grpc] is not installed")
    told = grpc.InferenceServerClient(f"127.0.0.1:{server.settings.grpc_port}").get_model_metadata("world", as_json=True)
    assert told["outputs"][0]["name"] == "prediction"


def test_of_two_classes_the_document_says_whose_score_it_is_and_answers_are_as_they_were(rows: list[dict[str, Any]]) -> None:
    live, _ = make_live(make_world(days=45))
    with Server(live) as server:
        assert set(httpx.post(f"{server.url}/predict", json=rows).json()) == {"schema_version", "answers"}
        told = httpx.get(f"{server.url}/openapi.json").json()
        said = told["components"]["schemas"]["Answer"]["properties"]["prediction"]["description"]
        assert said == "How likely 'true' is, the other class being 'false'."
        assert httpx.get(f"{server.url}/v2/models/world").json()["outputs"][0]["parameters"] == {"classes": ["false", "true"]}


def test_a_worker_knows_them() -> None:
    live = of_three(make_world(days=45))
    post = Outpost(live.system, live.stores, b"key", live.clock, lambda kind, data: None)
    assert post.classes() == ()
    post.follow(routing_of(live))
    assert list(post.classes()) == list(post.classes("world/1")) == NAMES
    assert post.classes("world/7") == ()


def test_a_file_of_answers_names_them_in_its_metadata(tmp_path: Path) -> None:
    live = of_three(make_world(days=45))
    ready = live.ready["world/1"]
    table = make_world(days=45).drop("y").head(7)
    table.write_parquet(tmp_path / "rows.parquet")
    pieces = pieces_of(str(tmp_path / "rows.parquet"))
    known = live.state.versions["world/1"]
    with live.stores.blobs.open(known.model) as stream:
        work = Work(live.system, known.ref, stream.read(), b"key")
    scored = run_here(work, formats, pieces)
    done = write(scored, tmp_path / "out.parquet", known.ref, classes=ready.classes, total=7)
    assert (done.rows, list(done.classes)) == (7, NAMES)
    assert json.loads(pq.read_schema(tmp_path / "out.parquet").metadata[b"loudly.classes"]) == NAMES
    assert np.array(pl.read_parquet(tmp_path / "out.parquet")["prediction"].to_list()) == pytest.approx(ready.predict(table))
