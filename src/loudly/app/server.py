"""`loudly serve`: the wheel behind HTTP, with time told by a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from rich.progress import Progress

from loudly.app import operate, verbs
from loudly.app.address import expect_free, pages
from loudly.app.returning import Returning, progress_bar
from loudly.app.ticker import Ticker
from loudly.config import ServerConfig, read_config, secret
from loudly.core.clock import iso
from loudly.core.saying import loud, say, speak
from loudly.core.values import Schema, Verdict
from loudly.errors import ConfigError, Conflict, StaleWriter, WheelAway
from loudly.loop.arms import told
from loudly.loop.explaining import Explaining
from loudly.loop.live import Live
from loudly.loop.overview import Overview
from loudly.loop.restart import insist, refresh
from loudly.loop.serving import ORIGINAL
from loudly.loop.standing import standing_verdict
from loudly.loop.system import System
from loudly.loop.taking import Taking, outcome_of
from loudly.plugins import available, resolve
from loudly.serve.attempt import Attempt
from loudly.serve.explanation import Explanation
from loudly.serve.front import Answered, Front
from loudly.serve.replies import Replies
from loudly.serve.rows import Rows
from loudly.store.segments import SegmentWriter
from loudly.store.spools import SPOOLS, Spools


class Project(Protocol):
    """What a server needs of a user's App."""

    @property
    def name(self) -> str: ...

    @property
    def folder(self) -> Path | None: ...

    @property
    def system(self) -> System: ...


class LiveFront:
    """The wheel as the server sees it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._explaining, self._overview = Explaining(live), Overview(live)

    @property
    def name(self) -> str:
        return self.live.system.name

    @property
    def key(self) -> str:
        return self.live.system.key

    @property
    def label_name(self) -> str:
        return self.live.system.label

    def schema(self, version: str = "") -> Schema | None:
        champion = self.live.state.champion
        if version:
            return self.live.pins.of(version)[0].schema if version in self.live.pins.loaded() else None
        return self.live.ready[champion].schema if champion else None

    def classes(self, version: str = "") -> Sequence[str]:
        known = version or self.live.state.champion or ""
        if (ready := self.live.ready.get(known)) is not None:
            return ready.classes
        return self.live.pins.of(known)[0].classes if known in self.live.pins.loaded() else ()

    def loaded(self) -> Sequence[str]:
        return self.live.pins.loaded()

    def repository(self) -> Sequence[tuple[str, bool, str]]:
        pins, known = self.live.pins, self.live.state.versions
        loaded = pins.loaded()
        return [(v, v in loaded, "" if v in loaded else pins.failed.get(v, "not loaded")) for v in known]

    def load(self, version: str, most: int) -> None:
        self.live.pins.load(version, most)

    def unload(self, version: str) -> None:
        self.live.pins.unload(version)

    def example(self) -> Mapping[str, Any]:
        """The newest row of the training table, as a request would send it."""
        schema, rows = self.schema(), self.live.retraining.reference()
        if schema is None or rows.is_empty():
            return {}
        names = [f.name for f in schema.sent]
        row = rows.tail(1).select(names).to_dicts()[0]
        return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}

    def version(self) -> str | None:
        return self.live.state.champion

    def promote(self, version: str, position: int, reason: str) -> None:
        """Two who decide at once have read the same ledger: the first is heard, the second is told to read again."""
        live = self.live
        with live.lock:
            refresh(live)
            if live.state.position != position:
                seen = f"the ledger is at {live.state.position}, you have read {position}"
                raise StaleWriter("Something was decided meanwhile.", seen=seen, do="Read /status again, and decide again.")
            ref = verbs.full_name(live.state, live.system.name, version)
            gate = verbs.gate_of(live, ref)
            if live.state.killed or not gate.passed:
                seen = "the kill switch is on" if live.state.killed else f"{gate.decision} {gate.reason}"
                raise Conflict(f"{ref} may not be promoted.", seen=seen, do="Release the switch, or train another version.")
            live.promote(ref, f"promoted by hand: {reason}")

    def answer(self, rows: Rows, attempt: Attempt) -> Answered:
        return answered_of(self.live.answering.answer(rows, attempt), attempt)

    def give_up(self, rows: Rows, attempt: Attempt) -> Answered:
        return answered_of(self.live.answering.give_up(rows, attempt), attempt)

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        self.live.answering.lose(rows, attempt)

    def refuse(self, rows: int, why: str) -> None:
        self.live.asides.count.add(rows, why)

    def settle(self) -> None:
        self.live.answering.settle()

    def explain(self, rows: Rows, seconds: float) -> Sequence[Explanation]:
        return self._explaining.explain(rows, seconds)

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        return outcome_of(self.live.feedback(label_table(self.live.system, labels)))

    def verdict(self, version: str | None) -> Verdict:
        return standing_verdict(self.live, version)

    def status(self) -> Mapping[str, Any]:
        with self.live.lock:
            self.live.answering.fold()
        state, log, answering = self.live.state, self.live.stores.traffic, self.live.answering
        missed = {"unlogged": answering.unlogged, "uncounted": answering.uncounted, "sample": self.live.stores.sample.share}
        return {
            "champion": state.champion,
            "candidate": state.rollout.version if state.rollout else None,
            "strategy": state.rollout.strategy if state.rollout else None,
            "verdict": self._so_far() if state.rollout else None,
            "arms": told(self.live),
            "served_from": {ref: {"form": ready.served, "why": ready.told} for ref, ready in self.live.ready.items()},
            "loaded": list(self.live.pins.loaded()),
            "alarms": {cause: alarm["reason"] for cause, alarm in state.alarms.items()},
            "held_back": dict(state.held),
            "heard": {what: iso(at) for what, at in self.live.watch.silence.heard.items()},
            "waiting_for_labels": self.live.book.waiting,
            "labels_overdue": self.live.book.overdue,
            "catching_up": self.live.past.told(),
            "ledger": state.position,
            "log": {"refused": log.refused, "lost": log.lost, **missed} if log is not None else {},
        }

    def _so_far(self) -> dict[str, Any]:
        """On the running rollout."""
        found = self.verdict(None)
        expected = iso(found.expected_at) if found.expected_at is not None else None
        return {"decision": found.decision.value, "reason": found.reason, "missing": found.missing, "expected": expected}

    def overview(self) -> Mapping[str, Any]:
        return {"status": self.status(), **self._overview.plain()}

    def flush(self) -> None:
        if self.live.stores.traffic is not None:
            self.live.stores.traffic.flush()


def ask_front(front: LiveFront, what: str, given: Sequence[Any]) -> Any:
    """What a door may ask of a wheel that is elsewhere. Raises: WheelAway for what this wheel does not know."""
    changing = (front.load, front.unload, front.promote)
    reading = (front.example, front.status, front.overview, front.verdict, front.repository, front.explain)
    known = {f.__name__: f for f in (*reading, *changing)}
    if what not in known:
        raise WheelAway(f"This wheel cannot be asked {what!r}.", seen=", ".join(known), do="Run one version of loudly everywhere.")
    return known[what](*given)


def label_table(system: System, labels: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Labels of clients as a table of key and label."""
    keys, values = [str(row[system.key]) for row in labels], [row[system.label] for row in labels]
    return pl.DataFrame({system.key: keys, system.label: values}, strict=False)


def answered_of(replies: Replies, attempt: Attempt) -> Answered:
    """Replies as a server tells them, row by row."""
    arm, names = replies.arm.tolist(), replies.names
    versions, arms = [replies.versions[a] for a in arm], ["pinned" if attempt.version else names[a] for a in arm]
    return Answered(replies.answer.tolist(), versions, arms, replies.propensity.tolist(), replies.fallback.tolist())


def run_server(projects: Sequence[Project], host: str | None, port: int | None) -> None:
    """Serves until it is told to stop: one project at the root, several under `/models/NAME`, each with stores of its own.

    Address and drain are those of the first. Raises: ExtraMissing without the `serve` extra, ConfigError where two share a store
    or the address is taken, Conflict where another process serves from these stores.
    """
    apart(projects)
    first = read_config(projects[0].folder).server
    where = host or first.host
    speak(first.log_format)
    expect_free(where, port or first.port, first.grpc_port)  # a taken address is told before the stores are opened
    bar = progress_bar()
    app = application([_part(project, where, bar) for project in projects], where)
    for project in projects:
        root = f"/models/{project.name}" if len(projects) > 1 else ""
        say(project.name, pages(where, port or first.port, root))
    resolve("server", "uvicorn")(app, where, port or first.port, first.drain)


def apart(projects: Sequence[Project]) -> None:
    """Projects of one process share nothing. Raises: ConfigError for two of one name, one folder of stores, or one database."""
    known: set[tuple[str, str]] = set()
    for project in projects:
        store, root = read_config(project.folder).store, read_config(project.folder).root.resolve()
        ledger = secret(store.url) if store.ledger not in ("sqlite", "memory") else ""
        for what, value in (("name", project.name), ("folder of stores", str(root)), ("ledger", ledger)):
            if value and (what, value) in known:
                do = "Give each project a name, a folder and a database of its own."
                raise ConfigError(f"Two projects of one process share their {what}.", seen=project.name, do=do)
            known.add((what, value))


@dataclass(frozen=True, slots=True)
class Wheel:
    """The one Live of a project that serves. taking: takes over what workers have spooled.  returning: folds the log in again."""

    live: Live
    front: LiveFront
    ticker: Ticker
    taking: Taking
    returning: Returning

    def start(self) -> None:
        """Answers are given from now on: time is told, and the past is folded."""
        self.returning.go_on()
        self.ticker.start()

    def stop(self) -> None:
        """Nothing moves any more: what is not folded yet is in the log, and so is what the guards count of the last answers; what
        the disk does not take of it is said.
        """
        self.returning.stop()
        self.ticker.stop()
        with self.live.lock:
            self.live.answering.fold()
            self.live.asides.fold()
        self.front.flush()
        self.ticker.say_last()


def open_wheel(project: Project, bar: Progress | None = None) -> Wheel:
    """The wheel of a project as its ledger left it; it folds its log in behind the answers, and what is said at a start is said."""
    system, config = project.system, read_config(project.folder)
    opened = verbs.open_stores(project.name, project.folder, traffic=True)
    keep = operate.retention(system, opened)
    live = verbs.open_live(system, opened)
    _tell_recovery(live)
    _tell_sample(live)
    if live.state.champion:
        say(project.name, f"champion {live.state.champion} since {iso(live.state.champion_since)}")
    else:
        loud(project.name, "no champion: requests are answered with 503 until `loudly train` and `loudly ship`")
    taken: dict[str, int] = {}
    taking = Taking(live, Spools(config.root / SPOOLS, taken))
    returning = Returning(live, taking, bar or progress_bar())
    returning.begin(config.root / "traffic", taken)
    live.pins.follow()
    _tell_forms(live)
    house = operate.House(live, opened, keep)

    def keep_house() -> None:
        taking.drain()  # what is to be forgotten may stand in a spool still
        if not live.past.open:
            house.tidy()

    returning.wait()
    return Wheel(live, LiveFront(live), Ticker(live, config.server.tick, keep_house), taking, returning)


def warn_of_strangers(project: Project, where: str) -> None:
    """Says aloud where everybody may ask."""
    if not read_config(project.folder).server.keys and where not in ("127.0.0.1", "::1", "localhost"):
        loud(project.name, f"{where or 'every address'} may be reached from elsewhere, and [server] names no keys")


Part = tuple[Front, Callable[[], None], Callable[[], None], ServerConfig]


def application(parts: Sequence[Part], host: str | None) -> Any:
    """The application over fronts, each with what runs around serving: with spans where a provider is set, with gRPC on `host`
    (None: nowhere) where a port is named. Several fronts stand under their names, and what is said once is said by the first.
    """
    spans = resolve("spans", "otel")() if available("spans", "otel") else None
    servers = {
        front.name: resolve("server", settings.kind)(front if spans is None else spans.front(front), start, stop, settings)
        for front, start, stop, settings in parts
    }
    app = resolve("server", "models")(servers) if len(servers) > 1 else next(iter(servers.values()))
    app = app if spans is None else spans.app(app)
    settings = parts[0][3]
    return resolve("server", "grpc")(app, host, settings) if settings.grpc_port and host is not None else app


def _part(project: Project, where: str, bar: Progress) -> Part:
    """A project that has its wheel in the same process."""
    wheel = open_wheel(project, bar)
    warn_of_strangers(project, where)
    return wheel.front, wheel.start, wheel.stop, read_config(project.folder).server


def _tell_forms(live: Live) -> None:
    """What each version is served from; one that was loaded and cannot be, or a fast form that cannot be read, is said aloud."""
    for ref, reason in live.pins.failed.items():
        loud(live.system.name, f"{ref} was loaded and cannot be loaded again: {reason}")
        insist(live, "guarantee_weakened", version=ref, what="a loaded version", reason=reason)
    for ref, ready in live.ready.items():
        say(live.system.name, f"{ref} is served from {ready.served}: {ready.told}")
        lost = live.stores.fast and ready.served == ORIGINAL and ready.bundle.meta.get("fast", {}).get("passed")
        if lost:
            loud(live.system.name, f"{ref}: {ready.told}")
            insist(live, "guarantee_weakened", version=ref, what="serving from a fast form", reason=ready.told)


def _tell_sample(live: Live) -> None:
    """Says it where only a part of the traffic is followed. Raises: ConfigError where that cannot be."""
    share = live.stores.sample.share
    if live.stores.sample.whole:
        return
    if live.system.group:
        raise ConfigError("A list is followed whole or not at all.", seen=f"log_sample = {share:g}", do="Take it out of [server].")
    reason = f"{share:.3g} of the units are logged, meet their labels and are judged; the others are answered alone"
    loud(live.system.name, reason)
    insist(live, "guarantee_weakened", what="every answer is logged", reason=reason)


def _tell_recovery(live: Live) -> None:
    """What a killed server left of its last segment goes into the ledger, where bytes had to be cut."""
    log = live.stores.traffic
    if isinstance(log, SegmentWriter) and log.recovery.bytes_lost:
        insist(live, "segment_recovered", records=log.recovery.records, bytes_lost=log.recovery.bytes_lost)
