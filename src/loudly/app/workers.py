"""`loudly serve --workers N`: one port, N processes that answer, one process that is the wheel, and this one, which starts them.

The parent holds the listening socket and nothing else that could fail: it starts the wheel, then the workers, starts again who
dies, and stops all of them. A child that finds its parent gone finishes what it has and ends, so that nothing answers unwatched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loudly.app.address import expect_free, open_door, pages
from loudly.app.pipe import CANNOT, ask
from loudly.app.server import Project, warn_of_strangers
from loudly.config import read_config
from loudly.core.clock import stopwatch
from loudly.core.saying import loud, say, speak
from loudly.errors import ConfigError, LoudlyError

LOOK_SECONDS = 0.1
GRACE_SECONDS = 40.0
WHEEL_SECONDS = 120.0
LONGEST_WAIT = 30.0
QUIET_SECONDS = 10.0
METERS = "PROMETHEUS_MULTIPROC_DIR"
WHEEL = "wheel"


@dataclass(slots=True)
class Child:
    """A process: what it is called, since when it runs, and how often in a row it died young.

    due, reason: when it is started again, and why, once it has died.
    """

    name: str
    process: subprocess.Popen[bytes]
    begun: float
    deaths: int = 0
    due: float | None = None
    reason: str = ""


class Supervisor:
    """Starts the processes of a project, and starts them again, but for workers that cannot even begin when all does."""

    def __init__(self, file: Path, project: Project, door: socket.socket, count: int) -> None:
        self._file, self._project, self._door, self._count = file.resolve(), project, door, count
        self._drain = read_config(project.folder).server.drain
        self._folder = Path(tempfile.mkdtemp(prefix="loudly-"))
        (self._folder / "meters").mkdir()
        self._life, self._held = os.pipe()
        self._children: dict[str, Child] = {}
        self._news: list[tuple[str, str]] = []
        self._signals = 0
        self._begun = stopwatch()
        self._woken = threading.Event()

    def run(self) -> None:
        """Until it is told to stop. Raises: SystemExit where the wheel, or a worker, cannot be started at all."""
        for word in (signal.SIGTERM, signal.SIGINT):
            signal.signal(word, self._told_to_stop)
        try:
            self._start(WHEEL, 0)
            if self._await_wheel():
                self._begun = stopwatch()
                for number in range(1, self._count + 1):
                    self._start(f"worker {number}", 0)
                host, port = self._door.getsockname()[:2]
                for told in (f"{self._count} workers, one wheel", pages(host, port)):
                    say(self._project.name, told)
                while not self._signals:
                    self._look()
                    self._woken.wait(LOOK_SECONDS)
        finally:
            self._stop()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _told_to_stop(self, *_: Any) -> None:
        self._signals += 1
        self._woken.set()

    def _start(self, name: str, deaths: int, reason: str = "") -> None:
        said = {
            "file": str(self._file),
            "folder": str(self._folder),
            "door": self._door.fileno(),
            "host": self._door.getsockname()[0],
            "life": self._life,
            "name": name,
            "reason": reason,
        }
        module = "loudly.app.wheel" if name == WHEEL else "loudly.app.worker"
        environment = dict(os.environ)
        if name != WHEEL:
            environment[METERS] = str(self._folder / "meters")
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(said)],
            pass_fds=(self._life,) if name == WHEEL else (self._life, self._door.fileno()),
            start_new_session=True,
            env=environment,
        )
        self._children[name] = Child(name, process, stopwatch(), deaths)

    def _await_wheel(self) -> bool:
        """Whether the wheel turns; False where we are told to stop meanwhile. Raises: SystemExit where it ended."""
        child = self._children[WHEEL]
        while not self._signals:
            if child.process.poll() is not None:
                raise SystemExit(child.process.returncode or 1)
            try:
                ask(self._folder / WHEEL, "ready")
            except LoudlyError:
                self._woken.wait(LOOK_SECONDS)
            else:
                return True
        return False

    def _look(self) -> None:
        """Who has died is started again: at once the first time, later and later where it dies young."""
        now = stopwatch()
        for child in tuple(self._children.values()):
            code = child.process.poll()
            if code is None:
                continue
            if code == CANNOT and child.name != WHEEL and now - self._begun < QUIET_SECONDS:
                self._say(f"{child.name} cannot begin, so nobody would answer: all of it ends")
                raise SystemExit(1)
            if child.due is None:
                young = now - child.begun < QUIET_SECONDS
                child.deaths = child.deaths + 1 if young else 1
                wait = 0.0 if child.deaths == 1 else min(LONGEST_WAIT, LOOK_SECONDS * 2**child.deaths)
                child.due = now + wait
                child.reason = f"ended with {code}" if code >= 0 else f"killed by signal {-code}"
                later = f" in {wait:.1f} s" if wait else ""
                self._say(f"{child.name} (process {child.process.pid}) {child.reason}; started again{later}")
                self._forget_gauges(child.process.pid)
                if child.name != WHEEL:  # a wheel writes down its own return
                    self._news.append((child.name, child.reason))
            if child.due <= now:
                self._start(child.name, child.deaths, child.reason)
        self._tell()

    def _tell(self) -> None:
        """The wheel writes down who died; what it cannot be told now it is told later."""
        while self._news:
            try:
                ask(self._folder / WHEEL, "died", *self._news[0], patience=1.0)
            except LoudlyError:
                return
            self._news.pop(0)

    def _forget_gauges(self, process: int) -> None:
        """What a dead process measured of itself counts no more; what it counted stays."""
        for path in (self._folder / "meters").glob(f"gauge_live*_{process}.db"):
            path.unlink(missing_ok=True)

    def _stop(self) -> None:
        """Workers first, so that the wheel takes over all that they answered; a second signal hurries."""
        self._end([c for c in self._children.values() if c.name != WHEEL], self._drain + GRACE_SECONDS)
        self._end([c for c in self._children.values() if c.name == WHEEL], WHEEL_SECONDS)
        os.close(self._held)
        os.close(self._life)
        self._door.close()

    def _end(self, children: list[Child], patience: float) -> None:
        for child in children:
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        told, begun = self._signals, stopwatch()
        while any(child.process.poll() is None for child in children):
            if stopwatch() - begun > patience or self._signals > max(1, told):
                for child in children:
                    self._kill(child)
            self._woken.clear()
            self._woken.wait(LOOK_SECONDS)

    def _kill(self, child: Child) -> None:
        if child.process.poll() is None:
            self._say(f"{child.name} does not stop and is killed; what it acknowledged is in its spool")
            child.process.kill()
            child.process.wait()

    def _say(self, text: str) -> None:
        loud(self._project.name, text)


def run_workers(file: Path, project: Project, host: str | None, port: int | None, count: int) -> None:
    """Serves a project by `count` workers until it is told to stop.

    Raises: ConfigError where the system cannot hand sockets to processes, or the address is taken.
    """
    if sys.platform == "win32":
        raise ConfigError("Workers share a listening socket, which Windows does not hand on.", do="Serve without --workers.")
    settings = read_config(project.folder).server
    speak(settings.log_format)
    where = host or settings.host
    warn_of_strangers(project, where)
    expect_free(where, port or settings.port, settings.grpc_port)
    Supervisor(file, project, open_door(where, port or settings.port), count).run()
