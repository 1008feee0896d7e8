"""What the commands and the notebook verbs do: open the stores, turn the wheel one notch, tell what is true."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from loudly.config import Config, StoreConfig, needed, read_config, secret
from loudly.core.clock import DAY, WallClock, instant, stopwatch
from loudly.core.seams import FastForm, ModelFormat, Notify
from loudly.core.values import Recorded, Verdict, verdict_of
from loudly.core.whence import whence_of
from loudly.data.read import read_table
from loudly.errors import ConfigError, LoudlyError, NotFound, RolloutError, UserFileError
from loudly.loop.founding import found, reasons, reopen
from loudly.loop.live import Live
from loudly.loop.mirror import Mirrored
from loudly.loop.mirror import mirror as mirror_of
from loudly.loop.plan import Plan
from loudly.loop.replay import Progress, Replayed
from loudly.loop.replay import replay as replay_history
from loudly.loop.restart import catch_up, insist, persist
from loudly.loop.sampling import Sample
from loudly.loop.state import State, fold_all
from loudly.loop.stores import MakeSearch, Stores
from loudly.loop.system import System
from loudly.loop.tuning import Tuning
from loudly.loop.why import DecisionRecord
from loudly.loop.why import why as why_of
from loudly.plugins import available, names, resolve
from loudly.register.lazy_format import LazyFormat
from loudly.store.segments import SegmentWriter
from loudly.store.shelf import Shelf

Opened = tuple[Stores, Config]
Made = TypeVar("Made")
GRAPHS = frozenset({"graph", "graph-with-code"})


def open_stores(name: str, folder: Path | None, *, traffic: bool = False) -> Opened:
    """The parts that `loudly.toml` of the folder names, ready to use. `traffic`: open the log of requests for writing.

    Where one of them cannot be opened none stays open.
    """
    config = read_config(folder)
    with ExitStack() as undo:
        stores = _opened(name, config, traffic, undo)
        undo.pop_all()
    return stores, config


def _opened(name: str, config: Config, traffic: bool, undo: ExitStack) -> Stores:
    root = config.root
    url = needed("store", "url", config.store.url)
    notify = tuple(_notify(kind, config) for kind in config.notify.kinds)
    ledger_kind = resolve("ledger", config.store.ledger)
    ledger = {"sqlite": lambda: ledger_kind(root / "ledger.db"), "memory": ledger_kind}.get(
        config.store.ledger, lambda: ledger_kind(url)
    )()
    undo.callback(ledger.close)
    blob_kind = resolve("blobs", config.store.blobs)
    blobs = {"files": lambda: blob_kind(root / "blobs"), "memory": blob_kind}.get(config.store.blobs, lambda: blob_kind(url))()
    tracker_kind = resolve("tracker", config.tracker.kind)
    tracker_url = needed("tracker", "url", config.tracker.url) or f"sqlite:///{(root / 'mlflow.db').resolve()}"
    tracker = tracker_kind() if config.tracker.kind == "none" else tracker_kind(tracker_url, root / "mlflow", name)
    executor_kind = resolve("executor", config.executor.kind)
    executor = executor_kind() if config.executor.kind == "here" else executor_kind(config.executor.workers)
    fast = fast_forms() if config.server.fast_forms else {}
    log = SegmentWriter(root / "traffic") if traffic else None
    sample, shelf = Sample(config.server.log_sample), Shelf(root, config.store.rows_in_memory) if traffic else None
    return Stores(ledger, blobs, tracker, executor, formats(), notify, log, searches(), fast, sample, shelf)


def _notify(kind: str, config: Config) -> Notify:
    """A door for alarms, with its address. Raises: ConfigError for a webhook without one."""
    door: Callable[..., None] = resolve("notify", kind)
    match kind:
        case "file":
            return partial(door, path=config.folder / needed("notify", "file", config.notify.file))
        case "webhook":
            address = needed("notify", "webhook", config.notify.webhook)
            if not address.startswith(("http://", "https://")):
                do = 'Say webhook = "env:ALARM_WEBHOOK", and set it to the address.'
                raise ConfigError("[notify] webhook wants an address that alarms can be posted to.", seen=repr(address), do=do)
            return partial(door, address=address)
        case _:
            return door


@contextmanager
def using_stores(name: str, folder: Path | None, *, traffic: bool = False) -> Iterator[Opened]:
    """The same for a while: closed at the end."""
    opened = open_stores(name, folder, traffic=traffic)
    try:
        yield opened
    finally:
        opened[0].close()


def memory_stores(name: str) -> Stores:
    """Stores that leave nothing behind: for replays and rehearsals."""
    return Stores(
        resolve("ledger", "memory")(),
        resolve("blobs", "memory")(),
        resolve("tracker", "none")(),
        resolve("executor", "here")(),
        formats(),
        (),
        None,
        searches(),
        fast_forms(),
    )


def formats() -> tuple[ModelFormat, ...]:
    """The model formats in the order in which they are tried; a library is imported when its turn comes."""
    alone = {name: LazyFormat(name, partial(_format, name)) for name in names("format")}
    parts = tuple(form for name, form in alone.items() if name not in GRAPHS)
    return tuple(_format(name).over(parts) if name in GRAPHS else form for name, form in alone.items())


def _format(name: str) -> Any:
    return resolve("format", name)()


def fast_forms() -> dict[str, Callable[[], FastForm | None]]:
    """Makers of the fast forms, in the order in which they are tried; a library is imported when its turn comes."""
    return {name: partial(_fast_form, name) for name in names("fast")}


def _fast_form(name: str) -> FastForm | None:
    return resolve("fast", name)() if available("fast", name) else None


def searches() -> dict[str, MakeSearch]:
    """The searches whose libraries are installed."""
    return {name: resolve("search", name) for name in names("search") if available("search", name)}


def private_key(config: Config) -> bytes:
    """The key of pseudonyms: from the environment (LOUDLY_KEY), or a file of the store that only its owner may read.

    Raises: ConfigError for a variable that is named and not set, and for a file without a key.
    """
    named = config.store.key != StoreConfig().key
    given = needed("store", "key", config.store.key) if named else secret(config.store.key)
    if given:
        return given.encode()
    path = config.root / "key"
    if not path.exists():
        _make_key(path)
    if not (known := path.read_text().strip()):
        do = "Bring it back from a backup; delete the file only if nothing private was logged."
        raise ConfigError("The key of pseudonyms is empty.", seen=str(path), do=do)
    return known.encode()


def _make_key(path: Path) -> None:
    """Whole or not at all; where another process makes one meanwhile, the first holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, key = path.with_name(f"key.{secrets.token_hex(8)}"), secrets.token_hex(32)
    _write_new(draft, key)
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links: a crash now may leave it empty, and that is refused
        with suppress(FileExistsError):
            _write_new(path, key)
    finally:
        draft.unlink(missing_ok=True)


def _write_new(path: Path, text: str) -> None:
    """On disk when this returns, for its owner alone. Raises: FileExistsError."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def open_live(system: System, opened: Opened) -> Live:
    """The wheel as the ledger left it, on the wall's clock."""
    stores, config = opened
    live = Live(system, stores, WallClock(), key=private_key(config), timer=stopwatch)
    reopen(live)
    return live


def table_of(system: System) -> pl.DataFrame:
    """What the user's data function gives. Raises: UserFileError where it fails, DataError where it is no table."""
    try:
        return read_table(system.data())
    except LoudlyError:
        raise
    except (Exception, SystemExit) as wrong:
        do = "Fix it, or call it by itself to see."
        raise UserFileError("@app.data failed.", seen=whence_of(wrong, system.data), do=do) from wrong


def mending(blocking: Sequence[Verdict]) -> str:
    """What to do where a table is refused for these."""
    if any(verdict.subject.startswith("leakage of ") for verdict in blocking):
        return "List what leaks in @app.data(ignored=[...]), or what is known before the event in @app.data(known_before=[...])."
    return "Mend the table."


def train(system: System, opened: Opened, *, tuning: Tuning | None = None) -> str:
    """Versions and judges the table, fits, gates and registers a candidate. Returns its reference.

    tuning: whether to search for parameters again, and who is told of the progress.

    Raises: LoudlyError with the reasons where the table is refused or no model came of it.
    """
    live = open_live(system, opened)
    live.retraining.tuning = tuning or Tuning()
    live.retraining.tuning.progress("reading and judging the table", 0, None)
    blocking = found(live, table_of(system))
    if blocking:
        raise LoudlyError("The table is refused.", seen="\n        ".join(reasons(blocking)), do=mending(blocking))
    version = live.retrain("by hand", "somebody asked for it", offer=False)
    live.stores.tracker.flush()
    if version is None:
        failed = [r.event for r in live.stores.ledger.read() if r.event.kind == "retrain_failed"][-1]
        raise LoudlyError(f"No model came of it: {failed.data['reason']}")
    return version


def ship(system: System, opened: Opened, version: str | None, beside: Sequence[str] = ()) -> Verdict:
    """Starts the rollout of a version whose gate has passed; where nothing answers yet it becomes champion.

    beside: further candidates, by name.
    """

    def offered(live: Live) -> Verdict:
        ref = full_name(live.state, system.name, version)
        if live.state.killed:
            raise RolloutError("The kill switch is on: nothing is shipped.", do="loudly kill --off --reason ...")
        verdict = gate_of(live, ref)
        if verdict.passed:
            live.offer(ref, "somebody asked for it", [full_name(live.state, system.name, other) for other in beside])
        return verdict

    return _decided(open_live(system, opened), offered)


def status(opened: Opened) -> State:
    """What is true now."""
    return fold_all(opened[0].ledger.read())


def events(opened: Opened) -> tuple[Recorded, ...]:
    """Everything that happened."""
    return tuple(opened[0].ledger.read())


def why(opened: Opened, version: str | None) -> DecisionRecord:
    """The decision record of a version; of the champion by default."""
    state = status(opened)
    name = next(iter(state.versions.values())).name if state.versions else ""
    return why_of(events(opened), full_name(state, name, version) if version else None)


def plan(system: System, opened: Opened) -> Plan:
    """What the policy would do now."""
    return caught_up(system, opened).plan()


def apply(system: System, opened: Opened) -> Plan:
    """Does it."""

    def applied(live: Live) -> Plan:
        made = live.plan()
        live.apply(made)
        return made

    return _decided(caught_up(system, opened), applied)


def mirror(opened: Opened) -> Mirrored:
    """Makes the tracker's mirror anew from the ledger.

    Raises: ConfigError where loudly.toml names no tracker.
    """
    stores, config = opened
    if config.tracker.kind == "none":
        raise ConfigError("There is no tracker to mirror to.", seen='[tracker] kind = "none"', do='Set kind = "mlflow".')
    return mirror_of(stores.ledger.read(), stores.blobs, stores.tracker)


def rollback(system: System, opened: Opened, reason: str) -> str:
    """Ends the running rollout, or gives the traffic back to the champion before. Returns who answers now."""

    def rolled_back(live: Live) -> str:
        state = live.state
        if state.rollout is not None:
            live.roll_back(state.rollout.version, reason)
        elif state.previous is not None:
            live.promote(state.previous, f"rolled back by hand: {reason}")
        else:
            raise RolloutError("There is nothing to go back to.", seen=f"champion: {state.champion or 'none'}")
        return live.state.champion or ""

    return _decided(open_live(system, opened), rolled_back)


def _decided(live: Live, decide: Callable[[Live], Made]) -> Made:
    """What somebody decides beside a server that turns. Raises: as `persist`."""
    made = persist(live, partial(decide, live))
    live.stores.tracker.flush()
    return made


def kill(system: System, opened: Opened, reason: str, on: bool) -> None:
    """Sets or releases the kill switch."""
    insist(open_live(system, opened), "kill_switch_set", on=on, reason=reason)


def replay(system: System, *, since: str | None, until: str | None, step: int = DAY, progress: Progress | None = None) -> Replayed:
    """History through the live code, in memory. Without `since` the older half of the rows trains."""
    table = table_of(system)
    at = table[system.time].dt.epoch("us")
    start = instant(since) if since else int(at.quantile(0.5) or 0) // DAY * DAY
    end = instant(until) if until else None
    return replay_history(system, table, memory_stores(system.name), since=start, until=end, step=step, progress=progress)


def full_name(state: State, name: str, version: str | None) -> str:
    """`3`, `flights/3` or nothing (the newest) as a reference. Raises: NotFound."""
    if version is None:
        if not state.versions:
            raise NotFound("There is no version yet.", do="Run `loudly train`.")
        return list(state.versions)[-1]
    ref = version if "/" in version or not name else f"{name}/{version}"
    if ref not in state.versions:
        raise NotFound(f"There is no version {ref!r}.", seen=", ".join(state.versions) or "none yet")
    return ref


def gate_of(live: Live, ref: str) -> Verdict:
    """What the gate said of a version."""
    said = [
        r.event.data["verdict"]
        for r in live.stores.ledger.read()
        if r.event.kind == "gate_judged" and r.event.data["version"] == ref
    ]
    return verdict_of(said[-1])  # type: ignore[arg-type]


def caught_up(system: System, opened: Opened) -> Live:
    """The wheel with the statistics of its logged traffic folded in again."""
    live = open_live(system, opened)
    catch_up(live, opened[1].root / "traffic")
    return live
