"""Verbs of operation: forgetting a subject, retention, batches over Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loudly.app.verbs import Opened, formats, full_name, open_live, private_key, status
from loudly.core.clock import HOUR, duration, span
from loudly.core.values import Task
from loudly.errors import ConfigError, RolloutError
from loudly.loop.batch import Done, Progress, RunPieces, Work, check_columns, check_target, pieces_of, write
from loudly.loop.forgetting import Erased, Wish, ask, carry_out, retain
from loudly.loop.live import Live
from loudly.loop.ope import Progress as Seen
from loudly.loop.ope import Told, off_policy
from loudly.loop.serving import make_ready
from loudly.loop.system import System
from loudly.plugins import names, resolve
from loudly.store.erasing import Expired
from loudly.store.segments import SegmentWriter, being_written
from loudly.store.spools import SPOOLS, waiting


def forget(
    system: System, opened: Opened, name: str, reason: str, *, hidden: bool = False, purge: bool = False
) -> tuple[Wish, tuple[Erased, ...]]:
    """Forgets a subject. Nothing is erased yet where a server runs: it erases at its next tick, for the log is its own.

    Nor is it where one was killed that had not taken all spools over: what they hold comes into the log with the next server.
    """
    live, root = open_live(system, opened), opened[1].root / "traffic"
    wish = ask(live, name, reason, hidden=hidden, purge=purge)
    if being_written(root) or waiting(opened[1].root / SPOOLS):
        return wish, ()
    return wish, carry_out(live, root, lambda: _seal(root))


def retention(system: System, opened: Opened) -> int | None:
    """How long traffic is kept, µs; None for ever.

    Raises: ConfigError where it is shorter than a rollout may last or labels may take: these would be judged on nothing.
    """
    said = opened[1].store.retention
    if not said:
        return None
    keep = duration(said)
    needed = max([system.labels.arrive_within, *(spec.deadline for spec in system.rollout)])
    if keep < needed:
        raise ConfigError(
            f'[store] retention = "{said}" is shorter than a rollout and its labels may last.',
            seen=span(needed),
            do=f'Say at least retention = "{span(needed)}", or shorten deadline= and arrive_within=.',
        )
    return keep


def predict(
    system: System, opened: Opened, where: str, out: Path, version: str | None = None, progress: Progress | None = None
) -> Done:
    """Answers the rows of Parquet files by a version (the champion by default) into `out`; nothing is logged or counted.

    A running rollout is left out: every row is answered by the one version.
    Raises: RolloutError without a champion, DataError for files that cannot be used.
    """
    stores, config = opened
    state = status(opened)
    if version is None and state.champion is None:
        raise RolloutError("Nothing answers yet: there is no champion.", do="Run `loudly train`, then `loudly ship`.")
    known = state.versions[full_name(state, system.name, version) if version else state.champion or ""]
    with stores.blobs.open(known.model) as stream:
        work = Work(system, known.ref, stream.read(), private_key(config))
    pieces = pieces_of(where)
    check_target(pieces, out)
    ready = make_ready(work.artefact, system.features, formats(), vouched=True)
    check_columns(pieces, ready.schema)
    kind = config.executor.kind if config.executor.kind in names("batch") else "here"
    run: RunPieces = resolve("batch", kind)
    tables = run(work, formats, pieces, config.executor.workers)
    total = sum(piece.rows for piece in pieces)
    classes = ready.classes if ready.task is Task.MULTICLASS else ()
    return write(tables, out, known.ref, classes=classes, total=total, progress=progress)


def ope(
    system: System, opened: Opened, policies: Sequence[str] = (), rollout: int | None = None, progress: Seen = lambda rows: None
) -> Told:
    """What other policies would have earned on the traffic of a rollout; nothing is written. Raises: as `off_policy`."""
    return off_policy(open_live(system, opened), opened[1].root / "traffic", policies, rollout, progress)


class House:
    """What a server does between ticks: erases who is to be forgotten; once an hour deletes what is older than `keep` (µs)."""

    def __init__(self, live: Live, opened: Opened, keep: int | None) -> None:
        self._live, self._root, self._keep = live, opened[1].root / "traffic", keep
        self._looked: int | None = None

    def tidy(self) -> Expired:
        """Does it."""
        live, log, now = self._live, self._live.stores.traffic, self._live.clock.now()
        if live.state.forgetting:
            carry_out(live, self._root, log.seal if isinstance(log, SegmentWriter) else lambda: None)
        if self._keep is None or (self._looked is not None and now - self._looked < HOUR):
            return Expired(0, 0)
        self._looked = now
        return retain(live, self._root, self._keep)


def _seal(root: Path) -> None:
    """Seals what a killed writer has left open."""
    if root.exists():
        SegmentWriter(root).close()
