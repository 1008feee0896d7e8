"""Traffic in append-only segments: framed records, synced within a stated bound, recovered after a kill.

A record is: length (4 bytes), CRC-32 of the rest (4), sequence (8), kind (1 + n), payload; a kind "labels@NAME:7" says that the
record is the 7th of another log, NAME, and was taken over. A writer puts records into a buffer (about a µs); a thread writes every
2.5 ms (survives `kill -9`) and syncs every 50 ms (survives a power cut); where nothing comes it sleeps. A writer that is `through`
writes before `append` returns. A torn tail is cut at the first bad record and reported. Segments rotate by size; whole
ones are sealed by name.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

from loudly.core.clock import stopwatch
from loudly.core.late import late
from loudly.errors import Conflict, SegmentUnreadable, one_line

fcntl: Any = late("fcntl") if sys.platform != "win32" else None

LOG = logging.getLogger("loudly.store")
WRITE_EVERY, SYNC_EVERY, LOOK_EVERY = 0.0025, 0.050, 0.5
# After so many rounds in which nothing came the thread sleeps: all is written and synced then, and an idle server is idle.
QUIET_ROUNDS = 2 * round(SYNC_EVERY / WRITE_EVERY)
ASK_EVERY, ASKS = 0.01, 100
ROTATE_BYTES = 64 * 2**20
BUFFER_BYTES = 64 * 2**20
FRAME_BYTES = 17  # of a record, beside its kind and payload
OPEN, SEALED, WRITERS = ".open", ".seg", "writers"


@dataclass(frozen=True, slots=True)
class Record:
    """One append: its sequence over all segments, its kind and its payload; origin: where it was taken over from, "NAME:7"."""

    sequence: int
    kind: str
    payload: bytes
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening an interrupted segment found: bytes that were no whole record were cut."""

    bytes_lost: int
    records: int


class SegmentWriter:
    """Appends records. Where the disk refuses, serving goes on and records wait in memory, 64 MiB at most.

    `refused` says why the disk refuses now ("" while it takes what comes); `lost` counts records that had no room.
    rotate, seal_every: bytes and seconds after which a segment is sealed.  through: `append` writes before it returns.
    before: what is called before each write, to append what somebody has kept back until then: the whole of it, or what is old.
    most: bytes that the segments may have together; beyond it records are lost until somebody takes segments away.
    A log has one writer: two would seal each other's segments. Raises: Conflict where there is one already.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        rotate: int = ROTATE_BYTES,
        through: bool = False,
        seal_every: float = math.inf,
        most: float = math.inf,
    ) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.lost, self.refused = 0, ""
        self.before: Callable[[bool], None] = lambda whole: None
        self._present = _only_writer(self.root)
        self._rotate, self._through, self._seal_every, self._most = rotate, through, seal_every, most
        self._sealed, self._unsealed = 0, False
        self._lock, self._disk = threading.Lock(), threading.Lock()
        self._buffer: list[bytes] = []
        self._waiting = 0
        self._stirred = self._asleep = self._unsynced = False
        self._wake = threading.Event()
        self.recovery = _recover(self.root)
        self._sequence = _last(self.root)
        self._file = self._begin()
        self._size = self._file.tell()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="loudly-segments", daemon=True)
        self._thread.start()

    @property
    def sequence(self) -> int:
        """Of the newest record that was taken."""
        return self._sequence

    @property
    def untaken(self) -> int:
        """Records that wait in memory."""
        return len(self._buffer)

    def append(self, kind: str, payload: bytes, origin: str = "") -> int:
        """Takes a record; it is on disk within 5 ms, synced within 50 ms, or at `flush`. Returns its sequence, 0 if it is lost."""
        with self._lock:
            if self._waiting > BUFFER_BYTES or self._sealed > self._most:
                self.lost += 1
                return 0
            self._sequence += 1
            sequence = self._sequence
            frame = framed(sequence, kind, payload, origin)
            self._buffer.append(frame)
            self._waiting += len(frame)
        if self._through:
            self._write(sync=False)
        self.stir()
        return sequence

    def stir(self) -> None:
        """Something was appended, or is kept back for `before` to append: the thread is not to sleep on."""
        self._stirred = True
        if self._asleep:
            self._wake.set()

    def flush(self) -> None:
        """Everything taken so far is on disk and synced when this returns."""
        self.before(True)
        self._write(sync=True)

    def seal(self) -> Path | None:
        """Closes the segment under its final name and begins another; None where it was empty. Raises: OSError where it cannot."""
        self.flush()
        with self._disk:
            return self._seal()

    def close(self) -> None:
        """Flushes, seals and stops."""
        self._closed.set()
        self._wake.set()
        self._thread.join()
        self.seal()
        with self._disk:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
        self._present.close()

    def _keep_writing(self) -> None:
        rounds = failed = quiet = 0
        sealed = looked = stopwatch()
        while not self._closed.wait(WRITE_EVERY):
            rounds += 1
            if stirred := self._stirred:  # never cleared unseen: it may be set in between
                self._stirred = False
            failed = self._ask_before(failed)
            self._write(sync=self._unsynced and rounds % round(SYNC_EVERY / WRITE_EVERY) == 0)
            now = stopwatch()
            if self._most < math.inf and now - looked >= LOOK_EVERY:
                self._sealed, looked = bytes_in(self.root), now
            if now - sealed >= self._seal_every:
                sealed = now
                self.flush()
                with self._disk:
                    self._try_to_seal()
            quiet = 0 if stirred or failed or self._waiting or self._unsynced else quiet + 1
            if quiet >= QUIET_ROUNDS:
                self._sleep()

    def _sleep(self) -> None:
        """Until something comes, or a look at the segments or their sealing is due."""
        self._asleep = True
        if not self._stirred:
            every = min(self._seal_every, LOOK_EVERY if self._most < math.inf else math.inf)
            self._wake.wait(None if every == math.inf else every)
        self._asleep = False
        self._wake.clear()

    def _ask_before(self, failed: int) -> int:
        """Asks for what is kept back; a failure is told once, until it goes well again. Returns how often it has failed so far."""
        try:
            self.before(False)
        except Exception:
            if not failed:
                LOG.exception("LOUD what was kept back for the log was not appended; the log goes on")
            return failed + 1
        if failed:
            LOG.warning("LOUD what is kept back for the log is appended again, after %d attempts that failed", failed)
        return 0

    def _write(self, *, sync: bool) -> None:
        with self._disk:
            with self._lock:
                frames, self._buffer = self._buffer, []
            if frames and not self._put(b"".join(frames)):
                with self._lock:
                    self._buffer = frames + self._buffer
                return
            with self._lock:
                self._waiting -= sum(map(len, frames))
            if sync or self._size >= self._rotate:
                self._sync()
            if self._size >= self._rotate and not self.refused:
                self._try_to_seal()

    def _sync(self) -> None:
        self._unsynced = False
        try:
            os.fdatasync(self._file.fileno())
        except OSError as wrong:
            self.refused, self._unsynced = one_line(wrong), True

    def _put(self, data: bytes) -> bool:
        """Writes all of it or, where the disk refuses, none of it. Does not ask the file where it stands: whatever lets go of the
        interpreter here waits for it, and holds up who answers meanwhile.
        """
        try:
            written = self._file.write(data)
            self.refused = "" if written == len(data) else f"short write: {written:,} of {len(data):,} bytes"
        except OSError as wrong:
            self.refused = one_line(wrong)
        if self.refused:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            return False
        self._size += len(data)
        self._unsynced = True
        return True

    def _seal(self) -> Path | None:
        """Raises: OSError where there can be no next segment, or none under the final name; then this one grows on."""
        if not self._size:
            return None
        name, following = Path(self._file.name), self._begin()
        try:
            self._file.close()
            os.replace(name, name.with_suffix(SEALED))
        except OSError:
            following.close()
            Path(following.name).unlink(missing_ok=True)
            self._file = FileIO(name, "ab")
            raise
        self._file, self._size = following, 0
        return name.with_suffix(SEALED)

    def _try_to_seal(self) -> None:
        """Where it cannot be, for want of a file or of leave, that is told once, and tried again."""
        try:
            self._seal()
        except OSError as wrong:
            if not self._unsealed:
                LOG.warning("LOUD a segment of the log cannot be sealed and grows on: %s: %s", type(wrong).__name__, wrong)
            self._unsealed = True
        else:
            self._unsealed = False

    def _begin(self) -> FileIO:
        """Named by the first record that it will hold, which may wait already: a name by a later one could come again."""
        with self._lock:
            first = self._sequence + 1 - len(self._buffer)
        return FileIO(self.root / f"{first:020d}{OPEN}", "ab")


def read_segments(root: Path | str, after: int = 0) -> Iterator[Record]:
    """Records of all segments in order, from `after` on; an open segment is read up to its last whole record.

    Raises: SegmentUnreadable for a damaged sealed segment, naming the file, the offset and what was readable.
    """
    files = segment_files(Path(root))
    first = max((path.stem for path in files if path.stem <= f"{after + 1:020d}"), default="")
    for path in files:
        if path.stem < first:
            continue
        data = _bytes_of(path)
        whole, records = parse(data)
        yield from (r for r in records if r.sequence > after)
        if whole < len(data) and path.suffix == SEALED:
            raise SegmentUnreadable(
                f"The segment {path.name} is damaged.",
                seen=f"offset {whole:,} of {len(data):,}; {len(records):,} records before it are whole",
                do="Restore it from a backup, or move it away to go on without its rest.",
            )


def newest_first(root: Path) -> Iterator[Record]:
    """Records of sealed segments, the newest first; a damaged one is read as far as it goes. Cost: one segment at a time."""
    for path in sorted(root.glob(f"*{SEALED}"), reverse=True):
        yield from reversed(parse(path.read_bytes())[1])


def _last(root: Path) -> int:
    """The sequence that a log goes on after: of its newest record, or behind damage one that none there can have."""
    path = max(root.glob(f"*{SEALED}"), default=None)
    if path is None:
        return 0
    whole, records = parse(data := path.read_bytes())
    return max([int(path.stem), *(r.sequence for r in records[-1:])]) + (len(data) - whole) // FRAME_BYTES


def segment_files(root: Path, first: str = "") -> list[Path]:
    """Segments from the stem `first` on, in order; one that is seen under both its names, for it is sealed just now, only once."""
    found = {path.stem: path for suffix in (OPEN, SEALED) for path in root.glob(f"*{suffix}") if path.stem >= first}
    return [found[stem] for stem in sorted(found)]


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # sealed just now
        return path.with_suffix(SEALED).read_bytes()


def being_written(root: Path | str) -> bool:
    """Whether a writer is at work there, in this process or another (never known on Windows, where nothing is locked)."""
    path = Path(root) / WRITERS
    if not path.exists():
        return False
    with path.open("ab") as file:
        return not _lock(file, alone=False)


def _only_writer(root: Path) -> IO[bytes]:
    """The lock of the one writer. Who only asks whether there is one holds it for a moment, so it is tried for a second."""
    file = (root / WRITERS).open("ab")
    wait = threading.Event()
    for _ in range(ASKS):
        if _lock(file, alone=True):
            return file
        wait.wait(ASK_EVERY)
    file.close()
    raise Conflict(
        "Another process writes this log of traffic.",
        seen=str(root),
        do="Stop the other `loudly serve`, or give this one stores of its own: [store] root.",
    )


def _lock(file: IO[bytes], *, alone: bool) -> bool:
    """A lock that ends with the file or the process: alone for the writer, shared by all who ask whether there is one."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def framed(sequence: int, kind: str, payload: bytes, origin: str = "") -> bytes:
    """A record as it stands in a segment."""
    name = f"{kind}@{origin}".encode() if origin else kind.encode()
    body = struct.pack("<QB", sequence, len(name)) + name + payload
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def parse(data: bytes) -> tuple[int, list[Record]]:
    """Whole records from the start, and where they end."""
    at, found = 0, []
    while at + 8 <= len(data):
        length, crc = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length or length < 9 or zlib.crc32(body) != crc:
            break
        sequence, size = struct.unpack_from("<QB", body)
        kind, _, origin = body[9 : 9 + size].decode().partition("@")
        found.append(Record(sequence, kind, body[9 + size :], origin))
        at += 8 + length
    return at, found


def bytes_in(root: Path) -> int:
    """Of all segments; one that is renamed or deleted just now counts as none."""
    size = 0
    for path in root.iterdir():
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def _recover(root: Path) -> Recovery:
    """Seals what a killed writer left open, without its torn tail."""
    lost = kept = 0
    for path in sorted(root.glob(f"*{OPEN}")):
        data = path.read_bytes()
        whole, records = parse(data)
        lost, kept = lost + len(data) - whole, kept + len(records)
        if whole == 0:
            path.unlink()
            continue
        with open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
        os.replace(path, path.with_suffix(SEALED))
    return Recovery(lost, kept)
