"""What a program says while it runs, on standard error: lines for people, or one JSON object a line for machines.

All of it goes through `logging`, to loggers under "loudly"; LOUD is a warning. Where nobody has given the logger "loudly" a handler
by the first word, it gets ours. So an application that mounts a server, and has a handler there, hears it in its own way.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from threading import Lock

from loudly.core.canon import Json

FORMATS = ("text", "json")
ROOT, OTHERS = "loudly", ("uvicorn",)
LOG = logging.getLogger(ROOT)
# What a record may be about, beside its words.
ABOUT = ("project", "request_id", "trace_id", "path", "status", "seconds")
LOUD = "LOUD "
_LOCK = Lock()


def speak(form: str) -> None:
    """From now on all is said in this form, one of FORMATS, by whatever of ours or of uvicorn."""
    made = logging.Handler()
    made.emit = _in_words if form == "text" else _as_json  # type: ignore[method-assign]
    for name in (ROOT, *OTHERS):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [made], False
    LOG.setLevel(logging.INFO)


def say(project: str, text: str, about: Mapping[str, Json] | None = None) -> None:
    """One line. about: of ABOUT, for machines."""
    _tell(logging.INFO, project, text, about)


def loud(project: str, text: str) -> None:
    """One LOUD line: something is wrong, or a guarantee is weakened. project: "" where it is nobody's alone."""
    _tell(logging.WARNING, project, text, None)


def _tell(level: int, project: str, text: str, about: Mapping[str, Json] | None) -> None:
    with _LOCK:
        if not LOG.handlers:
            made = logging.Handler()
            made.emit = _in_words  # type: ignore[method-assign]
            LOG.addHandler(made)
        if LOG.level == logging.NOTSET:
            LOG.setLevel(logging.INFO)
    LOG.log(level, "%s", text, extra={**(about or {}), **({"project": project} if project else {})})


def _in_words(record: logging.LogRecord) -> None:
    text = record.getMessage().removeprefix(LOUD)
    project = getattr(record, "project", "")
    if record.levelno >= logging.WARNING:
        colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        text = f"{_painted('LOUD') if colour else 'LOUD'} {f'{project}: ' if project else ''}{text}"
    elif project:
        text = f"loudly {project}: {text}"
    _write("\n".join([text, *_trace(record)]))


def _painted(text: str) -> str:
    return f"\x1b[1;31m{text}\x1b[0m"


def _as_json(record: logging.LogRecord) -> None:
    """at: UTC.  level: info or loud.  error: the trace of what was raised."""
    about: dict[str, Json] = {name: getattr(record, name) for name in ABOUT if hasattr(record, name)}
    line: dict[str, Json] = {
        "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": "loud" if record.levelno >= logging.WARNING else "info",
        "process": record.process,
        **about,
        "text": record.getMessage().removeprefix(LOUD),
        **({"error": "\n".join(_trace(record))} if record.exc_info else {}),
    }
    _write(json.dumps(line, ensure_ascii=False, default=str))


def _trace(record: logging.LogRecord) -> list[str]:
    return [logging.Formatter().formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []


def _write(line: str) -> None:
    """In one piece, so that lines of several threads and processes stay whole."""
    with suppress(OSError, ValueError):  # nobody listens any more
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
