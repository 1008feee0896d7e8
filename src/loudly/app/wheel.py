"""The wheel as a process of its own: the one writer of ledger and log. Started by `loudly.app.workers`.

It takes over what the workers spool, some twenty times a second, and writes down the routing for them whenever that changes. It
answers their questions on a socket.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

from loudly.app.pipe import listen
from loudly.app.project import load_app
from loudly.app.server import Wheel, ask_front, open_wheel
from loudly.config import read_config
from loudly.core.saying import loud, speak
from loudly.errors import LoudlyError
from loudly.loop.outpost import routing_of
from loudly.loop.restart import insist

PUMP_SECONDS = 0.05
LOCK, LINE, TOLD = "wheel.lock", "wheel", "told"


class Turning:
    """A wheel that serves workers. folder: where its socket and the routing are."""

    def __init__(self, wheel: Wheel, folder: Path) -> None:
        self._wheel, self._folder = wheel, folder
        self._told = b""
        self._lock = threading.Lock()
        self._wrong = ""

    def run(self, stop: threading.Event, name: str, reason: str) -> None:
        """Until it is told to stop; then all that was spooled is taken over."""
        if reason:
            insist(self._wheel.live, "process_restarted", what=name, reason=reason)
        self._tell()
        close = listen(self._folder / LINE, self._answer)
        self._wheel.start()
        while not stop.wait(PUMP_SECONDS):
            self._pump()
        close()
        self._wheel.stop()
        self._pump()
        self._wheel.front.flush()

    def _pump(self) -> None:
        """An error is said once and ends nothing: what was not taken over waits in its spool."""
        wrong = ""
        try:
            self._wheel.taking.drain()
            self._tell()
        except Exception as failed:  # noqa: BLE001 - a wheel that stops in silence would leave every spool to grow
            wrong = f"{type(failed).__name__}: {failed}"
        if wrong and wrong != self._wrong:
            loud(self._wheel.live.system.name, f"spools are not taken over: {wrong}")
        self._wrong = wrong

    def _tell(self) -> None:
        """The routing for the workers, whole or not at all, where it has changed."""
        with self._lock:
            told = pickle.dumps(routing_of(self._wheel.live))
            if told == self._told:
                return
            draft = self._folder / f"{TOLD}.draft"
            draft.write_bytes(told)
            os.replace(draft, self._folder / TOLD)
            self._told = told

    def _answer(self, what: str, given: tuple[Any, ...]) -> Any:
        match what:
            case "ready":
                return True
            case "labels":
                return self._outcome(str(given[0]))
            case "died":
                insist(self._wheel.live, "process_restarted", what=given[0], reason=given[1])
                return True
            case "status" | "overview":
                self._wheel.taking.drain()
        told = ask_front(self._wheel.front, what, given)
        self._tell()
        return told

    def _outcome(self, origin: str) -> Any:
        made = self._wheel.taking.outcome(origin)
        if isinstance(made, LoudlyError):
            raise made
        return made


def main(words: str) -> None:
    """The process. words: what it is told, as JSON."""
    said = json.loads(words)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    follow_life(int(said["life"]), stop.set)
    app = load_app(Path(said["file"]))
    config = read_config(app.folder)
    speak(config.server.log_format)
    root = config.root
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("ab") as lock:
        wait_for(lock)
        Turning(open_wheel(app), Path(said["folder"])).run(stop, said["name"], said["reason"])


def wait_for(lock: IO[bytes]) -> None:
    """Takes the lock of the one wheel. A wheel before us may be finishing; where it is another server's, that is said."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        loud("", f"another wheel turns on {lock.name}: this one waits until it ends")
        fcntl.flock(lock, fcntl.LOCK_EX)


def follow_life(life: int, gone: Any) -> None:
    """Calls `gone` once the parent has ended, which holds the other end of the pipe `life`."""

    def wait() -> None:
        os.read(life, 1)
        gone()

    threading.Thread(target=wait, name="loudly-life", daemon=True).start()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except LoudlyError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
