"""What is said while a program runs: whole lines, for people or for machines, and heard by whoever listens to `logging`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from loudly.core.saying import LOG, OTHERS, loud, say, speak


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """As a process begins; the loggers are given back as they were."""
    loggers = [LOG, *map(logging.getLogger, (*OTHERS, "uvicorn.error"))]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_people_read_lines(capsys: pytest.CaptureFixture[str]) -> None:
    say("loans", "loans/1 is served from onnx-trees: " + "x" * 200)
    say("", "all is well [bold]")
    loud("loans", "the disk is full")
    loud("", "an alarm")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "loudly loans: loans/1 is served from onnx-trees: " + "x" * 200, "no line is broken"
    assert told[1:] == ["all is well [bold]", "LOUD loans: the disk is full", "LOUD an alarm"]


def test_machines_read_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    speak("json")
    say("loans", "200 /predict", {"request_id": "a", "status": 200, "seconds": 0.001, "unknown": 3})
    loud("loans", 'größer\n"than" before')
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("loudly.serve").exception(
            "LOUD request %(request_id)s failed", {"request_id": "b"}, extra={"request_id": "b"}
        )
    logging.getLogger("uvicorn.error").warning("bad")
    logging.getLogger("uvicorn.error").info("not worth a line")
    first, second, third, fourth = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("at").endswith("+00:00")
    assert first.pop("process") > 0
    assert first == {
        "level": "info",
        "project": "loans",
        "text": "200 /predict",
        "request_id": "a",
        "status": 200,
        "seconds": 0.001,
    }
    assert (second["level"], second["text"]) == ("loud", 'größer\n"than" before')
    assert (third["text"], third["request_id"]) == ("request b failed", "b")
    assert third["error"].endswith("ValueError: odd")
    assert (fourth["level"], fourth["text"]) == ("loud", "bad")


def test_who_has_a_handler_hears_it_there_alone(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    mine = logging.Handler()
    mine.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    LOG.addHandler(mine)
    say("loans", "begun")
    loud("loans", "odd")
    assert heard == ["begun", "odd"]
    assert capsys.readouterr().err == ""


def test_a_listener_that_is_gone_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr("sys.stderr", Gone())
    loud("loans", "nobody hears it")
