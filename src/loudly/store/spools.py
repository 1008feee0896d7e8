"""Spools: logs of other processes, read while they are written, each record once.

Every writer has a folder of its own, written through, so that what was acknowledged can be read although the writer was killed. A
reader remembers how far it is; what it has read and handed on safely, `drop` deletes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loudly.store.segments import SEALED, Record, being_written, bytes_in, parse, segment_files

SPOOLS = "spools"
GONE_LOOKS = 50  # a writer that has just made its folder has not locked it yet


@dataclass(slots=True)
class _Place:
    """How far a spool is read: whole files, and the offset in the next. gone: looks in a row that found no writer.

    kept: whether a file of it is damaged.
    """

    done: list[Path] = field(default_factory=list)
    stem: str = ""
    offset: int = 0
    gone: int = 0
    kept: bool = False


class Spools:
    """Reads all the spools under a folder. taken: origins ("NAME") -> the last sequence taken over before, asked at each look.

    damaged: where sealed files could not be read to their end; these are kept.
    """

    def __init__(self, root: Path, taken: Mapping[str, int] | None = None) -> None:
        self._root, self._taken = root, {} if taken is None else taken
        self._places: dict[str, _Place] = {}
        self.damaged: list[str] = []

    def read(self) -> list[Record]:
        """All that is new, spool by spool, in the order in which it was written; each record tells its origin."""
        if not self._root.exists():
            return []
        return [record for folder in sorted(self._root.iterdir()) if folder.is_dir() for record in self._read(folder)]

    def drop(self) -> None:
        """Deletes what is sealed and was read, and spools that were read to the end and whose writer is gone."""
        for name, place in tuple(self._places.items()):
            folder = self._root / name
            for path in place.done:
                path.unlink(missing_ok=True)
            place.done.clear()
            if place.gone >= GONE_LOOKS and not (place.kept or self._left(folder, place)):
                shutil.rmtree(folder, ignore_errors=True)
                del self._places[name]

    def _read(self, folder: Path) -> list[Record]:
        place = self._places.setdefault(folder.name, _Place())
        place.gone = 0 if being_written(folder) else place.gone + 1
        found: list[Record] = []
        for path in segment_files(folder, place.stem):
            try:
                with path.open("rb") as file:
                    file.seek(place.offset if path.stem == place.stem else 0)
                    data = file.read()
            except FileNotFoundError:  # sealed just now: under its final name the next time
                break
            begun = place.offset if path.stem == place.stem else 0
            whole, records = parse(data)
            place.stem, place.offset = path.stem, begun + whole
            found += records
            if path.suffix == SEALED:
                if whole < len(data):
                    self.damaged.append(f"{folder.name}/{path.name}: offset {begun + whole:,} of {begun + len(data):,} bytes")
                    place.kept = True
                else:
                    place.done.append(path)
                place.stem, place.offset = f"{path.stem}~", 0
            elif not place.gone:  # what comes after it is of the next time, when it has its final name
                break
        return [Record(r.sequence, r.kind, r.payload, f"{folder.name}:{r.sequence}") for r in found if self._new(folder.name, r)]

    def _new(self, name: str, record: Record) -> bool:
        return record.sequence > self._taken.get(lane(record.kind, name), 0)

    def _left(self, folder: Path, place: _Place) -> bool:
        """Whether there are bytes that were not read; a torn tail is none of them, for nobody was answered by it."""
        return any(path.suffix == SEALED or path.stem != place.stem for path in segment_files(folder, place.stem))


def waiting(root: Path) -> bool:
    """Whether spools under a folder hold records that may not be taken over yet."""
    return root.exists() and any(bytes_in(folder) for folder in root.iterdir() if folder.is_dir())


def lane(kind: str, name: str) -> str:
    """Records of one spool are taken over in two lanes, for labels wait for the predictions of all the others."""
    return f"{name}/labels" if kind == "labels" else name


def taken_of(record: Record, taken: dict[str, int]) -> None:
    """Notes where a record of the log came from, so that it is not taken over twice."""
    if record.origin:
        name, _, sequence = record.origin.rpartition(":")
        where = lane(record.kind, name)
        taken[where] = max(taken.get(where, 0), int(sequence))
