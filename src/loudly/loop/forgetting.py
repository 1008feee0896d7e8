"""Forgetting a subject: asked for in the ledger, then carried out by whoever owns the traffic log, again after a crash.

A subject is a key, or a value of a private column; the ledger holds its keyed pseudonym only. First the wish and who saw the
subject are recorded, then the rows go: from a new version of the dataset, from the sealed segments, from memory. Each of these
may be done twice, so a crash anywhere is mended by doing all of it again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from loudly.core.clock import iso
from loudly.core.values import Dataset, Event, dataset_of, plain
from loudly.data.pseudonym import pseudonym
from loudly.data.snapshot import holding, without
from loudly.errors import StoreError
from loudly.loop import traffic
from loudly.loop.calls import CALLS, told_of
from loudly.loop.host import Host
from loudly.loop.misfits import ASIDES, Aside, aside_of
from loudly.loop.restart import insist
from loudly.store.erasing import Disk, Expired, Rewritten, expire, rewrite
from loudly.store.segments import Record

Gone = Callable[[pl.DataFrame], pl.Series]


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked: the subject's pseudonym, and who has seen it. versions, datasets: trained on it, or on a fit that was.

    named: positions of ledger events that show the key itself (labels that met no prediction); the chain keeps these.
    """

    subject: str
    versions: tuple[str, ...]
    datasets: tuple[str, ...]
    named: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Erased:
    """What went: rows of traffic in segments, rows of the newest dataset; damaged: segments that could not be read to the end."""

    subject: str
    rows: int
    segments: int
    dataset_rows: int
    damaged: tuple[str, ...]
    stays: str


def ask(live: Host, name: str, reason: str, *, hidden: bool = False, purge: bool = False) -> Wish:
    """Records the wish to forget. name: the key or private value, or its pseudonym where `hidden`.

    purge: whether parts of older dataset versions that hold the subject are deleted too; these versions cannot be rebuilt then.
    Raises: StoreError where the reason itself names the subject.
    Cost: reads every part of every dataset version once.
    """
    if name in reason:
        raise StoreError("The reason names the subject, and the ledger forgets nothing.", do="Give a reason without it.")
    subject = name if hidden else pseudonym(name, live.key)
    datasets, versions = _seen(live, _gone(live, subject))
    named = tuple(r.position for r in live.stores.ledger.read() if not hidden and name in r.event.data.get("examples", ()))  # type: ignore[operator]
    live.event(
        "subject_forgotten",
        subject=subject,
        reason=reason,
        purge=purge,
        datasets=list(datasets),
        versions=list(versions),
        named_at=list(named),
    )
    return Wish(subject, versions, datasets, named)


def carry_out(live: Host, root: Path, seal: Callable[[], object], disk: Disk | None = None) -> tuple[Erased, ...]:
    """Erases every subject that waits for it. root: the folder of the segments.  seal: closes what is open there."""
    return tuple(_erase(live, subject, purge, root, seal, disk) for subject, purge in tuple(live.state.forgetting.items()))


def retain(live: Host, root: Path, keep: int, disk: Disk | None = None) -> Expired:
    """Deletes sealed segments that are older than `keep` (µs), and says so in the ledger."""
    before = live.clock.now() - keep
    made = expire(root, before, _logged_at, _emptied, disk) if root.exists() else Expired(0, 0)
    if made.segments:
        insist(live, "segments_expired", segments=made.segments, bytes=made.bytes, before=iso(before))
    return made


def _erase(live: Host, subject: str, purge: bool, root: Path, seal: Callable[[], object], disk: Disk | None) -> Erased:
    gone = _gone(live, subject)
    fewer = _leave_dataset(live, gone)
    seal()
    rows, names = [0], (subject, secrets.token_hex(12))
    done = rewrite(root, lambda record: _without(record, names, gone, rows), disk) if root.exists() else Rewritten(0, 0, ())
    with live.lock:
        live.answering.fold()
        live.book.forget(gone)
        live.pins.book.forget(gone)
        live.unmatched.forget(gone, live.system.key)
        for waiting in (live.untaught, live.unripe, live.confirming):
            waiting.forget(gone)
    deleted = _purge(live, gone) if purge else 0
    stays = _stays(done, purge, deleted)
    insist(
        live,
        "subject_erased",
        subject=subject,
        rows=rows[0],
        segments=done.segments,
        dataset_rows=fewer,
        damaged=list(done.damaged),
        stays=stays,
    )
    return Erased(subject, rows[0], done.segments, fewer, done.damaged, stays)


def _gone(live: Host, subject: str) -> Gone:
    """Which rows of a table are the subject's: the pseudonym of their key, or a private column, is the subject."""
    key, private, secret = live.system.key, live.system.private, live.key

    def gone(table: pl.DataFrame) -> pl.Series:
        found = pl.repeat(False, table.height, dtype=pl.Boolean, eager=True)
        for name in private:
            if name in table.columns:
                found |= (table[name].cast(pl.String) == subject).fill_null(False)
        if key in table.columns and key not in private:
            text = table[key].cast(pl.String)
            theirs = [v for v in text.unique().to_list() if v is not None and pseudonym(v, secret) == subject]
            found |= text.is_in(theirs).fill_null(False)
        return found

    return gone


def _seen(live: Host, gone: Gone) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The dataset versions that hold the subject, and the model versions that were fitted on these, or went on from such a fit."""
    known: dict[str, bool] = {}
    datasets = []
    for digest, dataset in _datasets(live).items():
        for part in dataset.parts:
            if part.digest not in known:
                known[part.digest] = live.stores.blobs.has(part.digest) and bool(
                    holding(Dataset(dataset.name, (part,), dataset.schema), live.stores.blobs, gone)
                )
        if any(known[part.digest] for part in dataset.parts):
            datasets.append(digest)
    versions: list[str] = []
    for ref, version in live.state.versions.items():
        run: Mapping[str, Any] = live.state.runs.get(version.run, {})
        if version.dataset in datasets or run.get("start") in versions:
            versions.append(ref)
    return tuple(datasets), tuple(versions)


def _datasets(live: Host) -> dict[str, Dataset]:
    events = (r.event for r in live.stores.ledger.read() if r.event.kind == "dataset_versioned")
    return {str(e.data["digest"]): dataset_of(e.data["dataset"]) for e in events}  # type: ignore[arg-type]


def _leave_dataset(live: Host, gone: Gone) -> int:
    """A dataset version without the subject, which later fits go on from. Returns the rows that it has less."""
    with live.lock:
        dataset = live.retraining.dataset or live.state.dataset
        if dataset is None:
            return 0
        made = without(dataset, live.stores.blobs, gone)
        live.retraining.forget(made, gone)
        if made != live.state.dataset:
            live.record(Event("dataset_versioned", live.clock.now(), {"dataset": plain(made), "digest": made.digest}))
        return dataset.rows - made.rows


def _purge(live: Host, gone: Gone) -> int:
    """Deletes the parts that hold the subject, of every dataset version."""
    blobs, deleted = live.stores.blobs, set()
    for dataset in _datasets(live).values():
        there = tuple(p for p in dataset.parts if p.digest not in deleted and blobs.has(p.digest))
        for part in holding(Dataset(dataset.name, there, dataset.schema), blobs, gone):
            blobs.delete(part.digest)
            deleted.add(part.digest)
    return len(deleted)


def _stays(done: Rewritten, purge: bool, deleted: int) -> str:
    """What forgetting cannot undo, in words."""
    data = (
        f"{deleted} old parts of training data deleted" if purge else "parts of older dataset versions stay (--purge deletes them)"
    )
    damaged = f"; LOUD damaged segments were not rewritten: {', '.join(done.damaged)}" if done.damaged else ""
    return f"{data}; models that were fitted on it, counts of closed windows and backups stay{damaged}"


def _without(record: Record, names: tuple[str, str], gone: Gone, rows: list[int]) -> bytes:
    """names: of the subject, and by which it is counted from now on."""
    if record.kind == CALLS:
        return told_of(record.payload).without(*names).to_bytes()
    if record.kind == ASIDES:
        return record.payload
    table = traffic.from_bytes(record.payload)
    found = gone(table)
    if not found.any():
        return record.payload
    rows[0] += int(found.sum())
    return traffic.to_bytes(table.filter(~found))


def _logged_at(record: Record) -> int | None:
    if record.kind == CALLS:
        return told.at if (told := told_of(record.payload)).entries else None
    if record.kind == ASIDES:
        return aside.at if (aside := aside_of(record.payload)).reasons else None
    table = traffic.from_bytes(record.payload)
    return None if table.is_empty() else int(table["_at"][-1])


def _emptied(record: Record) -> bytes:
    if record.kind == CALLS:
        return replace(told_of(record.payload), entries=()).to_bytes()
    if record.kind == ASIDES:
        return Aside(aside_of(record.payload).at).to_bytes()
    return traffic.to_bytes(traffic.from_bytes(record.payload).clear())
