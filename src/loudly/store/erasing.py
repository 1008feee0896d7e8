"""Erasing from sealed segments: records rewritten, old segments deleted whole. A crash leaves the old or the new, never half.

A rewritten segment is written beside, synced, then renamed over the old one. Records keep their sequence, so the numbers of
a log never begin again; the newest segment is never deleted, only emptied but for its last record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from loudly.store.segments import SEALED, Record, framed, parse

DRAFT = ".draft"
Change = Callable[[Record], bytes]


class Disk(Protocol):
    """What erasing does to a disk, operation by operation, so that each can be made to fail."""

    def write(self, path: Path, data: bytes) -> None: ...

    def replace(self, draft: Path, path: Path) -> None: ...

    def unlink(self, path: Path) -> None: ...


class FileDisk:
    """The real one: each operation is durable when it returns."""

    def write(self, path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def replace(self, draft: Path, path: Path) -> None:
        os.replace(draft, path)
        _sync_folder(path.parent)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What a rewrite did: segments and records that changed; damaged: names of segments that could not be read to their end."""

    segments: int
    records: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expired:
    """What a retention deleted: segments and their bytes."""

    segments: int
    bytes: int


def rewrite(root: Path, change: Change, disk: Disk | None = None) -> Rewritten:
    """Puts `change(record)` in the place of each record's payload, in all sealed segments; those that stay equal are not touched.

    Cost: reads every sealed segment, one at a time.
    """
    disk = disk or FileDisk()
    segments = records = 0
    damaged = []
    for draft in sorted(root.glob(f"*{DRAFT}")):
        disk.unlink(draft)
    for path in sorted(root.glob(f"*{SEALED}")):
        data = path.read_bytes()
        whole, found = parse(data)
        if whole < len(data):
            damaged.append(path.name)
            continue
        made = [change(record) for record in found]
        changed = sum(a != b.payload for a, b in zip(made, found, strict=True))
        if changed:
            _put(path, [replace(r, payload=p) for r, p in zip(found, made, strict=True)], disk)
            segments, records = segments + 1, records + changed
    return Rewritten(segments, records, tuple(damaged))


def expire(root: Path, before: int, told: Callable[[Record], int | None], empty: Change, disk: Disk | None = None) -> Expired:
    """Deletes sealed segments whose every record is older than `before` (event time, µs).

    told: when a record was logged, None where it holds no row any more.  empty: a payload without rows, of the record's kind.
    The newest sealed segment, where it is that old, keeps its last record, emptied: the sequence goes on from it.
    """
    disk = disk or FileDisk()
    paths = sorted(root.glob(f"*{SEALED}"))
    gone = size = 0
    for path in paths:
        data = path.read_bytes()
        whole, found = parse(data)
        if whole < len(data) or not _older(found, before, told):
            break
        if path != paths[-1]:
            disk.unlink(path)
        elif len(found) > 1 or told(found[-1]) is not None:
            _put(path, [replace(found[-1], payload=empty(found[-1]))], disk)
        else:
            break
        gone, size = gone + 1, size + len(data)
    return Expired(gone, size)


def _older(records: Sequence[Record], before: int, told: Callable[[Record], int | None]) -> bool:
    """By the newest record that still says when it was: a log is in the order of its clock."""
    newest = next((at for record in reversed(records) if (at := told(record)) is not None), None)
    return newest is None or newest < before


def _put(path: Path, records: Sequence[Record], disk: Disk) -> None:
    draft = path.with_suffix(DRAFT)
    disk.write(draft, b"".join(framed(r.sequence, r.kind, r.payload, r.origin) for r in records))
    disk.replace(draft, path)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
