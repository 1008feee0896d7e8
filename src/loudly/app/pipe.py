"""A line between processes of one machine: a socket in a folder that only its owner may enter, one question a connection.

Answers and errors of ours travel as they are; anything else that goes wrong is a WheelAway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from loudly import errors
from loudly.errors import LoudlyError, WheelAway, one_line

PATIENCE_SECONDS = 30.0
CANNOT = 2  # a worker ends so where its file, its settings or its stores do not let it begin
Work = Callable[[str, tuple[Any, ...]], Any]


def ask(path: Path, what: str, *given: Any, patience: float = PATIENCE_SECONDS) -> Any:
    """Asks whoever listens there. Raises: WheelAway where nobody answers in time, and what the other side raises of ours."""
    try:
        with Client(str(path), family="AF_UNIX") as line:
            line.send((what, given))
            if not line.poll(patience):
                raise WheelAway("The wheel does not answer.", seen=f"{what!r}, for {patience:g} s")
            wrong, told = line.recv()
    except (OSError, EOFError) as gone:
        raise WheelAway("The wheel cannot be reached.", seen=type(gone).__name__) from gone
    if wrong == "TimeoutError":
        raise TimeoutError(told[0])
    if wrong:
        raise _error(wrong, told)
    return told


def listen(path: Path, work: Work) -> Callable[[], None]:
    """Answers questions on threads from now on; returns what ends that."""
    path.unlink(missing_ok=True)
    listener = Listener(str(path), family="AF_UNIX", backlog=128)
    threading.Thread(target=_accept, args=(listener, work), name="loudly-pipe", daemon=True).start()
    return listener.close


def _accept(listener: Listener, work: Work) -> None:
    while True:
        try:
            line = listener.accept()
        except OSError:  # it is closed
            return
        threading.Thread(target=_answer, args=(line, work), daemon=True).start()


def _answer(line: Connection[Any, Any], work: Work) -> None:
    with line:
        try:
            what, given = line.recv()
        except (OSError, EOFError):
            return
        try:
            told: tuple[str, Any] = ("", work(what, given))
        except LoudlyError as wrong:
            told = (type(wrong).__name__, (wrong.what, wrong.seen, wrong.do))
        except TimeoutError as late:
            told = ("TimeoutError", (str(late), "", ""))
        except Exception as wrong:  # noqa: BLE001 - whatever it is, who asked is told
            told = ("WheelAway", (f"The wheel failed: {one_line(wrong)}", "", ""))
        try:
            line.send(told)
        except OSError:
            return


def _error(name: str, told: tuple[str, str, str]) -> LoudlyError:
    kind = getattr(errors, name, LoudlyError)
    made = LoudlyError.__new__(kind if isinstance(kind, type) and issubclass(kind, LoudlyError) else LoudlyError)
    LoudlyError.__init__(made, told[0], seen=told[1], do=told[2])
    return made
