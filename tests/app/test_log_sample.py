"""`log_sample` in loudly.toml: all are answered, a stated share of the units is logged and meets its labels, and that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from command_line import ROW, Project, free_port  # noqa: E402
from loudly.loop import traffic  # noqa: E402
from loudly.loop.sampling import Sample  # noqa: E402
from loudly.store.segments import read_segments  # noqa: E402
from loudly.store.sqlite_ledger import SqliteLedger  # noqa: E402
from waiting import PATIENCE, until  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
KEYS = [f"asked-{i}" for i in range(60)]
FOLLOWED = [key for key in KEYS if Sample(0.3).mask([key])[0]]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_share_of_the_units_is_logged_and_labelled_and_all_are_answered(shipped: Project, tmp_path: Path, workers: int) -> None:
    project = shipped.copy(tmp_path)
    project.edit("loudly.toml", "[server]", f"[server]\nlog_sample = 0.3\nworkers = {workers}")
    port = free_port()
    with (tmp_path / "errors.txt").open("wb") as err:
        process = project.serve(port, err)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            for key in KEYS[:20]:
                assert client.post("/predict", json={**ROW, "loan_id": key}).status_code == 200
            many = client.post("/predict", json=[{**ROW, "loan_id": key} for key in KEYS[20:]])
            assert len(many.json()["answers"]) == 40
            until(lambda: client.get("/status").json()["waiting_for_labels"] == len(FOLLOWED), "what was answered is known")
            assert client.get("/status").json()["log"]["sample"] == 0.3
            told = client.post("/feedback", json=[{"loan_id": key, "late": True} for key in KEYS]).json()
            assert told == {"joined": len(FOLLOWED), "unknown": 0, "repeated": 0, "unfollowed": len(KEYS) - len(FOLLOWED)}
    finally:
        process.terminate()
        process.wait(PATIENCE)
    records = [r for r in read_segments(project.folder / ".loudly" / "traffic") if r.kind == "predictions"]
    assert sorted(key for r in records for key in traffic.from_bytes(r.payload)["loan_id"]) == sorted(FOLLOWED)
    ledger = SqliteLedger(project.folder / ".loudly" / "ledger.db")
    events = [dict(r.event.data) for r in ledger.read() if r.event.kind in ("guarantee_weakened", "labels_unmatched")]
    ledger.close()
    assert [event["what"] for event in events] == ["every answer is logged"]
    assert "LOUD loans: 0.3 of the units are logged" in " ".join((tmp_path / "errors.txt").read_text().split())
