"""A worker: a process that answers HTTP by what the wheel told last. Started by `loudly.app.workers`.

What it answers is in its own spool, on disk, before the client hears of it; the wheel takes it over from there. So a worker that is
killed loses nothing that was acknowledged, and a wheel that is away costs nothing but room.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from loudly.app import verbs
from loudly.app.door import Door
from loudly.app.pipe import CANNOT, ask
from loudly.app.project import load_app
from loudly.app.server import application
from loudly.app.wheel import LINE, TOLD, follow_life
from loudly.core.clock import WallClock, moment
from loudly.core.saying import speak
from loudly.data.pseudonym import pseudonymise
from loudly.errors import LoudlyError, WheelAway
from loudly.loop import traffic
from loudly.loop.outpost import Told
from loudly.plugins import resolve
from loudly.store.segments import SegmentWriter
from loudly.store.spools import SPOOLS

FOLLOW_SECONDS = 0.1
ROTATE_BYTES = 4 * 2**20
SEAL_SECONDS = 5.0
CHECK_LOOKS = 10
CHECK_SECONDS = 10.0


class SpoolLine:
    """The wheel of the same machine: a spool, a file with the routing, and a socket for questions.

    private, key: columns that are pseudonyms under the key before they are written, of which the key of the rows may be one.
    """

    def __init__(self, spool: SegmentWriter, folder: Path, private: Sequence[str], key: bytes) -> None:
        self._spool, self._folder, self._private, self._key, self._clock = spool, folder, private, key, WallClock()
        self._known: tuple[tuple[int, int], Told | None] = ((0, 0), None)
        self._looks = 0
        self._gone: WheelAway | None = None

    @property
    def lost(self) -> int:
        return self._spool.lost

    @property
    def refused(self) -> str:
        return self._spool.refused

    def told(self) -> Told | None:
        """From the file, which is there while the wheel is away, too."""
        path = self._folder / TOLD
        seen = path.stat()
        changed = (seen.st_ino, seen.st_mtime_ns)
        if changed != self._known[0]:
            self._known = (changed, pickle.loads(path.read_bytes()))
        return self._known[1]

    def check(self) -> None:
        """Asks now and then; in between it is as it was."""
        self._looks += 1
        if self._looks % CHECK_LOOKS == 0:
            try:
                ask(self._folder / LINE, "ready", patience=CHECK_SECONDS)
                self._gone = None
            except WheelAway as away:
                self._gone = away
        if self._gone is not None:
            raise self._gone

    def hand_over(self, kind: str, payload: bytes) -> None:
        self._spool.append(kind, payload)

    def labels(self, table: pl.DataFrame) -> Mapping[str, Any]:
        """Where the wheel is away, or its disk refuses, they wait in the spool, and that is said.

        Raises: WheelAway where the spool does not take them either: what is acknowledged is on disk.
        """
        hidden = pseudonymise(table, self._private, self._key)
        sequence = self._spool.append("labels", traffic.labels_to_bytes(hidden, moment(self._clock)))
        if not sequence:
            raise WheelAway("The wheel is away and the spool is full.", do="Send the labels again later.")
        if self.refused:
            raise WheelAway("The disk does not take the labels.", seen=self.refused, do="Send them again later.")
        waiting = {"joined": 0, "unknown": 0, "repeated": 0, "spooled": table.height}
        try:
            told: Mapping[str, Any] = self.ask("labels", f"{self._spool.root.name}:{sequence}")
        except WheelAway:
            return waiting
        return told or waiting

    def ask(self, what: str, *given: Any) -> Any:
        return ask(self._folder / LINE, what, *given)

    def flush(self) -> None:
        self._spool.flush()


def main(words: str) -> None:
    """The process. words: what it is told, as JSON."""
    said = json.loads(words)
    app, folder = load_app(Path(said["file"])), Path(said["folder"])
    stores, config = verbs.open_stores(app.name, app.folder)
    speak(config.server.log_format)
    name = f"{said['name'].replace(' ', '-')}-{os.urandom(6).hex()}"
    spool = SegmentWriter(
        config.root / SPOOLS / name, rotate=ROTATE_BYTES, through=True, seal_every=SEAL_SECONDS, most=config.server.most_spooled
    )
    key = verbs.private_key(config)
    line = SpoolLine(spool, folder, app.system.private, key)
    door = Door(app.system, stores, key, line, said["name"], FOLLOW_SECONDS)
    server = application([(door, door.start, partial(_end, door, spool), config.server)], said["host"])
    follow_life(int(said["life"]), lambda: os.kill(os.getpid(), signal.SIGTERM))
    listening = socket.socket(fileno=int(said["door"]))
    resolve("server", "uvicorn")(server, "", 0, config.server.drain, listening)


def _end(door: Door, spool: SegmentWriter) -> None:
    door.stop()
    spool.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except LoudlyError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(CANNOT) from error
