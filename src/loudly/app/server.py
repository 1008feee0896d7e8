"""`loudly serve`: the wheel behind HTTP, with time told by a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape

from loudly.app import operate, verbs
from loudly.config import read_config
from loudly.core.canon import Json
from loudly.core.clock import iso
from loudly.core.values import Schema, Verdict
from loudly.errors import LoudlyError
from loudly.loop.arms import arms_of
from loudly.loop.explaining import Explaining
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.loop.serving import ORIGINAL
from loudly.loop.standing import standing_verdict
from loudly.loop.system import System
from loudly.plugins import available, resolve
from loudly.serve.attempt import Attempt
from loudly.serve.explanation import Explanation
from loudly.serve.front import Answered
from loudly.serve.router import Replies
from loudly.serve.rows import Rows
from loudly.store.segments import SegmentWriter


class LiveFront:
    """The wheel as the server sees it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self._explaining = Explaining(live)

    @property
    def name(self) -> str:
        return self.live.system.name

    @property
    def key(self) -> str:
        return self.live.system.key

    @property
    def label_name(self) -> str:
        return self.live.system.label

    def schema(self) -> Schema | None:
        champion = self.live.state.champion
        return self.live.ready[champion].schema if champion else None

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

    def answer(self, rows: Rows, attempt: Attempt) -> Answered:
        return answered_of(self.live.answering.answer(rows, attempt))

    def give_up(self, rows: Rows, attempt: Attempt) -> Answered:
        return answered_of(self.live.answering.give_up(rows, attempt))

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        self.live.answering.lose(rows, attempt)

    def settle(self) -> None:
        self.live.answering.settle()

    def explain(self, rows: Rows, seconds: float) -> Sequence[Explanation]:
        return self._explaining.explain(rows, seconds)

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        system = self.live.system
        table = pl.DataFrame(
            {system.key: [str(row[system.key]) for row in labels], system.label: [row[system.label] for row in labels]},
            strict=False,
        )
        arrival = self.live.feedback(table)
        repeated = len(arrival.duplicate) + len(arrival.changed)
        return {"joined": arrival.joined.height, "unknown": len(arrival.unknown), "repeated": repeated}

    def verdict(self, version: str | None) -> Verdict:
        return standing_verdict(self.live, version)

    def status(self) -> Mapping[str, Any]:
        with self.live.lock:
            self.live.answering.fold()
        state, log = self.live.state, self.live.stores.traffic
        return {
            "champion": state.champion,
            "candidate": state.rollout.version if state.rollout else None,
            "arms": self._arms(),
            "served_from": {ref: {"form": ready.served, "why": ready.told} for ref, ready in self.live.ready.items()},
            "alarms": {cause: alarm["reason"] for cause, alarm in state.alarms.items()},
            "held_back": dict(state.held),
            "waiting_for_labels": self.live.book.waiting,
            "ledger": state.position,
            "log": {"refused": log.refused, "lost": log.lost} if log is not None else {},
        }

    def _arms(self) -> dict[str, Json]:
        """The arms of the running rollout: their version, their share where a strategy keeps one, and the answers given."""
        live = self.live
        arms, shares = arms_of(live) if live.strategy is not None else (), live.rollout_state.get("shares")
        told: dict[str, Json] = {}
        for index, arm in enumerate(arms):
            share: dict[str, Json] = {"share": shares[index]} if shares else {}
            told[arm.name] = {"version": arm.version, "answers": live.given.get(arm.name, 0), **share}
        return told

    def flush(self) -> None:
        if self.live.stores.traffic is not None:
            self.live.stores.traffic.flush()


def answered_of(replies: Replies) -> Answered:
    """Replies as a server tells them, row by row."""
    arm, names = replies.arm.tolist(), replies.names
    versions, arms = [replies.versions[a] for a in arm], [names[a] for a in arm]
    return Answered(replies.answer.tolist(), versions, arms, replies.propensity.tolist(), replies.fallback.tolist())


class Ticker:
    """Tells the wheel that time passes, every few seconds, until stopped; an error is said and does not end it."""

    def __init__(self, live: Live, every: float, keep_house: Callable[[], object] = lambda: None) -> None:
        self._live, self._every, self._keep_house = live, every, keep_house
        self._told: tuple[str, int] = ("", 0)
        self._spared = (0, 0)
        self._console = Console(stderr=True)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loudly-ticker", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the tick under way."""
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._attempt(self._look_at_the_log, "the state of the traffic log could not be recorded")
            self._attempt(self._look_at_the_shadows, "what a shadow missed could not be recorded")
            self._attempt(self._read_sides, "the side tables were not read again")
            self._attempt(self._live.tick, "the wheel stood still")
            self._attempt(self._keep_house, "what is to be forgotten is not erased yet")

    def _attempt(self, work: Callable[[], object], otherwise: str) -> None:
        try:
            work()
        except LoudlyError as wrong:
            self._say(f"{otherwise}: {wrong}")

    def _read_sides(self) -> None:
        self._live.sides.refresh(self._live.clock.now())

    def _look_at_the_log(self) -> None:
        """Says and records it once when the disk begins to refuse, when records are lost, and when it takes them again."""
        log = self._live.stores.traffic
        if log is None or (log.refused, log.lost) == self._told:
            return
        self._told = (log.refused, log.lost)
        waits = f"{log.refused}; answers go on, records wait in memory, {log.lost:,} are lost"
        reason = waits if log.refused else f"the disk takes records again; {log.lost:,} are lost"
        self._say(f"traffic log: {reason}")
        self._live.event("guarantee_weakened", what="traffic log", reason=reason)

    def _look_at_the_shadows(self) -> None:
        """Says and records it when a shadow hangs, or is spared rows because it cannot keep up."""
        shadows = self._live.answering.shadows
        if (shadows.shed, shadows.stuck) == self._spared:
            return
        self._spared = (shadows.shed, shadows.stuck)
        reason = f"{shadows.shed:,} rows were not scored, for it could not keep up; {shadows.stuck} of its calls did not come back"
        self._say(f"shadow: {reason}")
        self._live.event("guarantee_weakened", what="shadow", reason=reason)

    def _say(self, text: str) -> None:
        self._console.print(f"[bold red]LOUD[/] {escape(text)}", highlight=False)


def run_server(system: System, name: str, folder: Path | None, host: str | None, port: int | None) -> None:
    """Serves until it is told to stop. Raises: ExtraMissing without the `serve` extra."""
    config = read_config(folder)
    build = resolve("server", config.server.kind)
    run = resolve("server", "uvicorn")
    opened = verbs.open_stores(name, folder, traffic=True)
    keep = operate.retention(system, opened)
    live = verbs.open_live(system, opened)
    _tell_recovery(live)
    rows = catch_up(live, config.root / "traffic")
    console = Console(stderr=True)
    standing = f"champion {live.state.champion} since {iso(live.state.champion_since)}" if live.state.champion else "no champion"
    console.print(f"loudly {name}: {standing}; {rows:,} logged rows folded in again", highlight=False)
    _tell_forms(live, console)
    ticker = Ticker(live, config.server.tick, operate.House(live, opened, keep).tidy)
    where = host or config.server.host
    if not config.server.keys and where not in ("127.0.0.1", "::1", "localhost"):
        console.print(f"[bold red]LOUD[/] {where} may be reached from elsewhere, and [server] names no keys", highlight=False)
    spans = resolve("spans", "otel")() if available("spans", "otel") else None
    front = LiveFront(live) if spans is None else spans.front(LiveFront(live))
    app = build(front, ticker.start, ticker.stop, config.server)
    app = app if spans is None else spans.app(app)
    if config.server.grpc_port:
        app = resolve("server", "grpc")(app, where, config.server)
    run(app, where, port or config.server.port, config.server.drain)


def _tell_forms(live: Live, console: Console) -> None:
    """What each version is served from; a fast form that passed and cannot be read here is said aloud and recorded."""
    for ref, ready in live.ready.items():
        console.print(f"loudly {live.system.name}: {ref} is served from {ready.served}: {ready.told}", highlight=False)
        lost = live.stores.fast and ready.served == ORIGINAL and ready.bundle.meta.get("fast", {}).get("passed")
        if lost:
            console.print(f"[bold red]LOUD[/] {ref}: {escape(ready.told)}", highlight=False)
            live.event("guarantee_weakened", version=ref, what="serving from a fast form", reason=ready.told)


def _tell_recovery(live: Live) -> None:
    """What a killed server left of its last segment goes into the ledger, where bytes had to be cut."""
    log = live.stores.traffic
    if isinstance(log, SegmentWriter) and log.recovery.bytes_lost:
        live.event("segment_recovered", records=log.recovery.records, bytes_lost=log.recovery.bytes_lost)
