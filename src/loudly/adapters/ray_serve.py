"""The same user file behind Ray Serve: many doors answer on many machines, one wheel logs, folds and decides.

Doors are a Serve deployment that autoscales and mounts our ASGI application; the wheel is one named actor that Ray starts again
where it dies. Blobs must be reachable from every machine (a shared folder, or `[store] blobs = "fsspec"`), the ledger and the
traffic log from the wheel alone. `serve run` takes what `application` returns.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from rich.console import Console

from loudly.app import operate, verbs
from loudly.app.project import load_app
from loudly.app.server import LiveFront, Ticker, answered_of
from loudly.config import read_config
from loudly.core.values import Schema, Verdict
from loudly.errors import DataError, LoudlyError
from loudly.loop.outpost import Outpost, Told, routing_of, take
from loudly.loop.restart import catch_up
from loudly.plugins import resolve
from loudly.serve.attempt import Attempt
from loudly.serve.front import Answered
from loudly.serve.rows import Rows

FOLLOW_SECONDS = 1.0
ACK_SECONDS = 5.0
THREADS = 32


class Wheel:
    """The one Live of an application: it takes what the doors answered, and tells them the routing."""

    def __init__(self, file: str) -> None:
        app = load_app(Path(file))
        opened = verbs.open_stores(app.name, app.folder, traffic=True)
        self._live = verbs.open_live(app.system, opened)
        catch_up(self._live, opened[1].root / "traffic")
        self._front = LiveFront(self._live)
        house = operate.House(self._live, opened, operate.retention(app.system, opened))
        self._ticker = Ticker(self._live, opened[1].server.tick, house.tidy)
        self._ticker.start()

    def told(self) -> Told | None:
        """The routing of now."""
        return routing_of(self._live)

    def take(self, rows: Any, replies: Any, rollout: int) -> None:
        """An answered batch."""
        take(self._live, rows, replies, rollout)

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Labels of clients."""
        return self._front.label(labels)

    def example(self) -> Mapping[str, Any]:
        """A row as a request would send it."""
        return self._front.example()

    def status(self) -> Mapping[str, Any]:
        """What is true."""
        return self._front.status()

    def verdict(self, version: str | None) -> Verdict:
        """On a version."""
        return self._front.verdict(version)

    def flush(self) -> None:
        """All that was taken is on disk."""
        self._front.flush()


class DoorFront:
    """The wheel as a door's HTTP sees it: rows are answered here, all else is asked of the wheel."""

    def __init__(self, file: str, wheel: Any) -> None:
        app = load_app(Path(file))
        opened = verbs.open_stores(app.name, app.folder)
        self._system, self._wheel = app.system, wheel
        self._outpost = Outpost(app.system, opened[0], verbs.private_key(opened[1]), self._hand_over)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_following, name="loudly-door", daemon=True)
        self._lost = 0

    def start(self) -> None:
        """Follows the wheel from now on."""
        self._outpost.follow(self._asked("told"))
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stop.set()

    @property
    def name(self) -> str:
        return self._system.name

    @property
    def key(self) -> str:
        return self._system.key

    @property
    def label_name(self) -> str:
        return self._system.label

    def schema(self) -> Schema | None:
        return self._outpost.schema

    def example(self) -> Mapping[str, Any]:
        return dict(self._asked("example"))

    def version(self) -> str | None:
        return self._outpost.version

    def answer(self, rows: Rows, attempt: Attempt) -> Answered:
        replies, fitted = self._outpost.answer(rows.table(), lambda: _kept(attempt))
        if fitted.aside.height:
            raise DataError("A row could not be cast.", seen="; ".join(fitted.aside["reason"].to_list()))
        return answered_of(replies, attempt)

    def give_up(self, rows: Rows, attempt: Attempt) -> Answered:
        return answered_of(self._outpost.give_up(rows.table(), attempt.scoring), attempt)

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        self._outpost.lost += rows.height

    def settle(self) -> None:
        """Nothing waits here: what was answered is with the wheel."""

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        return dict(self._asked("label", labels))

    def verdict(self, version: str | None) -> Verdict:
        made: Verdict = self._asked("verdict", version)
        return made

    def status(self) -> Mapping[str, Any]:
        return {**self._asked("status"), "door_lost": self._outpost.lost}

    def flush(self) -> None:
        """What was answered is with the wheel already."""

    def _asked(self, what: str, *given: Any) -> Any:
        return ray.get(getattr(self._wheel, what).remote(*given), timeout=ACK_SECONDS)

    def _hand_over(self, rows: Any, replies: Any, rollout: int) -> None:
        self._asked("take", rows, replies, rollout)

    def _keep_following(self) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            try:
                self._outpost.follow(self._asked("told"))
            except (ray.exceptions.RayError, LoudlyError) as wrong:
                self._say(f"the wheel is away; answers go on as told last: {type(wrong).__name__}")
            if self._outpost.lost != self._lost:
                self._lost = self._outpost.lost
                self._say(f"{self._lost:,} answered rows could not be handed to the wheel: they are in no log")

    def _say(self, text: str) -> None:
        Console(stderr=True).print(f"[bold red]LOUD[/] {text}", highlight=False)


def _kept(attempt: Attempt) -> Any:
    """The rows whose requests were not given up; None for all of them."""
    late = attempt.close()
    if not late:
        return None
    given_up = np.isin(np.arange(len(attempt.sizes)), late)
    return np.flatnonzero(~np.repeat(given_up, attempt.sizes))


def application(file: str, most: int = 2, processors: float = 1.0) -> Any:
    """The Serve application of a user's file. most: doors at most; processors: that each door asks for."""
    path = str(Path(file).resolve())

    def door() -> Any:
        front = DoorFront(path, wheel_of(path))
        front.start()
        settings = read_config(Path(path).parent).server
        return resolve("server", settings.kind)(front, lambda: None, front.stop, settings)

    scaling = {"min_replicas": 1, "max_replicas": most, "target_ongoing_requests": 8}
    kind = serve.deployment(name="Door", autoscaling_config=scaling, max_ongoing_requests=64)(serve.ingress(door)())
    return kind.options(ray_actor_options={"num_cpus": processors}).bind()


def wheel_of(path: str) -> Any:
    """The wheel of a file, started where there is none."""
    kind = ray.remote(Wheel).options(
        name=f"loudly {path}",
        namespace="loudly",
        get_if_exists=True,
        lifetime="detached",
        max_restarts=-1,
        max_concurrency=THREADS,
        num_cpus=0,
    )
    return kind.remote(path)


def run(file: str, host: str, port: int, workers: int) -> None:
    """Serves until it is told to stop."""
    if not ray.is_initialized():
        ray.init(address=None, include_dashboard=False, logging_level="ERROR")
    serve.start(http_options={"host": host, "port": port})
    serve.run(application(file, workers), name="loudly", blocking=True)
