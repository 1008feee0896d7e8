"""`loudly serve` comes back to a long log: it answers first, and what it has folded at the end is what was ever acknowledged."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from command_line import LOUDLY, ROW, Project, free_port  # noqa: E402
from loudly.app import verbs  # noqa: E402
from loudly.app.project import load_app  # noqa: E402
from loudly.loop import traffic  # noqa: E402
from loudly.serve.attempt import Attempt  # noqa: E402
from loudly.serve.rows import rows_of  # noqa: E402
from loudly.store.segments import SegmentWriter, read_segments  # noqa: E402
from loudly.store.sqlite_ledger import SqliteLedger  # noqa: E402
from waiting import PATIENCE, until  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# Folding so many takes several times as long as a server needs for some answers, or workers to start.
LOGGED, LONG = 60_000, 300_000


@pytest.fixture(scope="module")
def lived(shipped: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose log has many records of one row, as if it had answered `logged-0` and so on, one by one."""
    made = shipped.copy(tmp_path_factory.mktemp("lived"))
    made.edit("loudly.toml", "[server]", "[server]\ndrain = 0.1")  # while a server drains it folds on
    app = load_app(made.folder / "app.py")
    with verbs.using_stores(app.name, app.folder, traffic=True) as opened:
        live = verbs.open_live(app.system, opened)
        schema = live.ready[live.state.champion or ""].schema
        live.answering.answer(rows_of([{**ROW, "loan_id": "logged-0"}], schema), Attempt((1,)))
    lengthen(made.folder, range(1, LOGGED))
    return made


def lengthen(folder: Path, numbers: range) -> None:
    """Records like the first one, of one row each, with keys of these numbers."""
    log = folder / ".loudly" / "traffic"
    first = next(read_segments(log))
    parts = msgspec.msgpack.decode(first.payload[len(traffic.MAGIC) :])
    key = [name for name, _ in parts[0]].index("loan_id")
    writer = SegmentWriter(log)
    for number in numbers:
        parts[1][key] = [f"logged-{number}"]
        writer.append(first.kind, traffic.MAGIC + traffic.ENCODER.encode(parts))
    writer.close()


class Site:
    """A project that is served, by processes that are killed and come back."""

    def __init__(self, folder: Path, words: tuple[str, ...]) -> None:
        self.folder, self.errors = folder, folder / "errors.txt"
        port = str(free_port())
        self.words = [LOUDLY, "serve", "--port", port, *words]
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
        self.acknowledged, self.labelled = 0, 0

    def start(self) -> None:
        with self.errors.open("ab") as err:
            self.process = subprocess.Popen(self.words, cwd=self.folder, stderr=err, start_new_session=True)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) in (0, -signal.SIGTERM)

    def status(self) -> dict[str, Any]:
        return dict(self.client.get("/status").json())

    def ask(self) -> bool:
        """One more row; whether it was answered."""
        key = f"asked-{self.acknowledged}"
        self.acknowledged += (done := self.client.post("/predict", json={**ROW, "loan_id": key}).status_code == 200)
        return done

    def ask_until_caught_up(self) -> None:
        until(lambda: self.ask() and self.status()["catching_up"] is None, "all is folded")

    def label(self, key: str) -> dict[str, Any]:
        told = dict(self.client.post("/feedback", json={"loan_id": key, "late": True}).json())
        self.labelled += 1
        return told

    def events(self) -> list[str]:
        ledger = SqliteLedger(self.folder / ".loudly" / "ledger.db")
        kinds = [r.event.kind for r in ledger.read()]
        ledger.close()
        return kinds


@contextmanager
def serving(lived: Project, folder: Path, *words: str) -> Iterator[Site]:
    made = Site(lived.copy(folder).folder, words)
    try:
        yield made
    finally:
        made.client.close()
        if made.process.poll() is None:
            made.kill()


def test_a_server_answers_before_its_log_is_folded_and_loses_nothing_however_it_ends(lived: Project, tmp_path: Path) -> None:
    with serving(lived, tmp_path / "site") as site:
        site.start()
        until(site.ask, "the first answer")
        told = site.status()["catching_up"]
        assert told is not None, "it answered only when all was folded"
        assert told["rows"] < LOGGED
        assert "loudly_catching_up 1.0" in site.client.get("/metrics").text
        assert site.client.get("/v2/health/ready").json() == {"ready": True}
        assert site.label("asked-0") == {"joined": 0, "unknown": 0, "repeated": 0, "spooled": 1}
        assert site.label("logged-7")["spooled"] == 1
        assert site.status()["catching_up"] is not None
        site.kill()

        site.start()
        until(site.ask, "an answer after a kill")
        assert site.label("logged-8")["spooled"] == 1
        site.client.post("/predict", json={**ROW, "loan_id": "written"})  # a label is on disk, and what was answered before it
        assert site.label("written")["spooled"] == 1
        site.acknowledged += 1
        assert site.status()["catching_up"] is not None
        site.stop()
        assert site.events().count("catch_up_begun") == 2
        assert "caught_up" not in site.events()

        site.start()
        until(site.ask, "an answer after SIGTERM")
        site.ask_until_caught_up()
        for _ in range(3):
            assert site.ask()
        told = site.status()
        assert told["waiting_for_labels"] == LOGGED + site.acknowledged - site.labelled
        assert told["log"]["unlogged"] == told["log"]["uncounted"] == 0
        assert "loudly_catching_up 0.0" in site.client.get("/metrics").text
        assert site.label(f"logged-{LOGGED - 1}") == {"joined": 1, "unknown": 0, "repeated": 0}
        assert site.label("logged-7")["repeated"] == 1
        site.stop()
        assert site.events().count("caught_up") == 1
        assert "labels_unmatched" in site.events()
        assert " ".join(site.errors.read_text().split()).count("are folded in again behind the answers") == 3


def test_workers_answer_while_the_wheel_catches_up_and_their_spools_are_taken_over_after(lived: Project, tmp_path: Path) -> None:
    with serving(lived, tmp_path / "site", "--workers", "2") as site:
        lengthen(site.folder, range(LOGGED, LONG))
        site.start()
        until(site.ask, "the first answer of a worker")
        assert site.status()["catching_up"] is not None
        assert site.label("asked-0")["spooled"] == 1
        site.ask_until_caught_up()
        expected = LONG + site.acknowledged - site.labelled
        until(lambda: site.status()["waiting_for_labels"] == expected, "all that was spooled is folded")
        assert site.label("asked-0")["repeated"] == 1
        site.stop()
