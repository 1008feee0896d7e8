"""Schemathesis, which knows the server by its OpenAPI document alone: no 5xx, answers as documented, wrong data refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")

from conftest import make_world  # noqa: E402
from live_server import Server, make_live  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.newest, pytest.mark.timeout(400)]
TOOL = Path(sys.executable).with_name("schemathesis")
INFER = "/v2/models/world/infer"
# 413 refuses what has too many rows, 425 is Flagger's "not yet"; the tool counts neither of its own accord.
SETTINGS = """
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "408", "413", "422", "429"]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "425", "5xx"]
"""


@pytest.fixture(scope="module", autouse=True)
def tool() -> None:
    if not TOOL.exists():
        pytest.skip("LOUD: schemathesis is not installed; the document is not held against the server")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(make_live(make_world(days=50))[0]) as running:
        yield running


def run(folder: Path, server: Server, document: dict[str, object], *options: str) -> None:
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(SETTINGS)
    command = [str(TOOL), "run", "openapi.json", "-u", server.url, "--seed", "1", "--max-examples", "20", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=380, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_whole_document(server: Server, tmp_path: Path) -> None:
    """All paths, valid and invalid data, all checks but one: a JSON Schema cannot say that columns are of one length, nor which
    tensors a model takes, so that not all data that is valid by it is accepted."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    assert INFER in document["paths"]
    run(tmp_path, server, document, "--checks", "all", "--exclude-checks", "positive_data_acceptance")


def test_what_the_document_can_say_whole_is_accepted_too(server: Server, tmp_path: Path) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    for path in (INFER, INFER.replace("/infer", "/versions/{version}/infer")):
        del document["paths"][path]
    del document["paths"]["/explain"]  # what a model cannot score has an answer, the fallback's, and no explanation
    bodies = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert bodies.pop() == {"$ref": "#/components/schemas/Columns"}
    run(tmp_path, server, document, "--checks", "all")
