"""The commands as a newcomer types them, in a project that `loudly init` made."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from command_line import LOUDLY, Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("project"))
    assert made.run("init", ".").returncode == 0
    return made


@pytest.mark.timeout(400)  # several processes, each with its imports
def test_the_way_of_a_newcomer(project: Project) -> None:
    assert project.alone("status").returncode == 3, "not yet"
    early = project.run("ship")
    assert early.returncode == 1
    assert "loudly train" in early.stderr
    assert "there is no champion yet: run `loudly train`" in project.json("plan")["lines"][0]
    trained = json.loads(project.alone("train", "--json").stdout)
    assert trained["version"] == "loans/1"
    assert trained["gate"]["decision"] == "PASS"
    assert project.alone("ship").returncode == 0
    status = json.loads(project.alone("status", "--json").stdout)
    assert status["champion"] == "loans/1"
    assert project.run("why").stdout.startswith("loans/1: champion since")
    plan = project.json("plan")
    assert plan["steps"] == []
    assert "nothing to do" in plan["lines"][0]
    assert project.run("apply").returncode == 0
    assert project.run("doctor").returncode == 0


def test_a_second_version_goes_through_a_rollout_and_can_be_rolled_back(project: Project) -> None:
    project.edit("app.py", "max_iter=60", "max_iter=61")
    assert project.run("train").returncode == 0
    assert "the gate's comparison with the champion" in project.run("why", "2").stdout
    assert project.run("ship").returncode == 0
    assert project.json("status")["rollout"] == "loans/2"
    assert "rollout of loans/2 goes on" in project.json("plan")["lines"][0], "another process goes on with it"
    assert project.json("rollback", "--reason", "a test")["champion"] == "loans/1"
    assert project.json("status")["rollout"] is None
    assert project.json("kill", "--reason", "a test")["killed"] is True
    assert project.json("status")["killed"] is True
    held = project.run("ship")
    assert held.returncode == 1
    assert "The kill switch is on" in held.stderr
    assert project.json("kill", "--reason", "over", "--off")["killed"] is False


def test_tampering_is_found_by_the_doctor(project: Project) -> None:
    blob = next(p for p in (project.folder / ".loudly" / "blobs").rglob("*") if p.is_file())
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    told = project.run("doctor")
    blob.write_bytes(data)
    assert told.returncode == 1
    assert "FAIL" in told.stdout
    assert project.run("doctor").returncode == 0


def test_mistakes_are_three_lines_not_a_traceback(project: Project, tmp_path: Path) -> None:
    mistakes = (["train", "--file", "nowhere.py"], ["why", "loans/99"], ["feedback", "nowhere.csv"])
    for words, told in ((mistakes[0], project.alone(*mistakes[0])), *((words, project.run(*words)) for words in mistakes[1:])):
        assert told.returncode == 1, words
        assert "Traceback" not in told.stderr
        assert told.stderr.startswith("error: ")
    assert project.run("init", ".").returncode == 1, "never writes over a file"
    (tmp_path / "file").write_text("")
    into = project.run("export", "docker", "-o", str(tmp_path / "file"))
    assert into.returncode == 1
    assert into.stderr.startswith("error: The system refuses: ")
    assert str(tmp_path / "file") in into.stderr
    assert "not a time" in project.run("replay", "--since", "yesterday").stderr


def test_a_history_is_replayed_from_the_command_line(project: Project) -> None:
    told = project.json("replay", "--step", "7d")
    assert told["champion"].startswith("loans/")
    assert all(value is None or 0.5 < value < 1 for value in told["metric"].values())


def test_training_shows_its_progress_on_standard_error_of_a_terminal_and_not_with_json(project: Project) -> None:
    project.edit("app.py", "@app.train\n", '@app.train(tune={"learning_rate": (0.01, 0.5, "log")}, trials=3)\n')
    for words, shown in ((["train", "--tune"], True), (["train", "--json"], False)):
        ours, theirs = pty.openpty()
        run = subprocess.Popen(
            [LOUDLY, *words], cwd=project.folder, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal is gone when the program is
            while piece := os.read(ours, 4096):
                seen += piece
        os.close(ours)
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 0
        assert (b"searching" in seen) is shown, words
        assert b"searching" not in said
        assert b"\x1b" not in said
    told = project.run("train", "--tune")
    assert "search optuna: best of 3 points" in told.stdout
    assert told.stderr.strip() == "", "no bar where standard error is no terminal"
