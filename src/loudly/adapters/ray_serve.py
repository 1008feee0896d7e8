"""The same user file behind Ray Serve: many doors answer on many machines, one wheel logs, folds and decides.

Doors are a Serve deployment that autoscales and mounts our ASGI application, with spans where the user's file sets a tracer
provider, as behind uvicorn; the wheel is one named actor that Ray starts again
where it dies. Blobs must be reachable from every machine (a shared folder, or `[store] blobs = "fsspec"`), the ledger and the
traffic log from the wheel alone. `serve run` takes what `application` returns.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any

import polars as pl
import ray
from ray import serve

from loudly.app import verbs
from loudly.app.door import Door
from loudly.app.project import load_app
from loudly.app.server import application as application_of
from loudly.app.server import ask_front, open_wheel
from loudly.core.saying import loud
from loudly.errors import WheelAway, one_line
from loudly.loop.outpost import Told, routing_of
from loudly.loop.taking import outcome_of, take
from loudly.store.segments import Record

FOLLOW_SECONDS = 1.0
ACK_SECONDS = 5.0
STOP_SECONDS = 60.0
LOOK_SECONDS = 0.2
THREADS = 32
APPLICATION = "loudly"


class Wheel:
    """The one Live of an application: it takes what the doors answered, and tells them the routing."""

    def __init__(self, file: str) -> None:
        self._wheel = open_wheel(load_app(Path(file)))
        self._wheel.start()

    def told(self) -> Told | None:
        """The routing of now."""
        return routing_of(self._wheel.live)

    def take(self, kind: str, payload: bytes) -> None:
        """An answered batch."""
        take(self._wheel.live, [Record(0, kind, payload)])

    def label(self, table: pl.DataFrame) -> Mapping[str, Any]:
        """Labels of clients."""
        return outcome_of(self._wheel.live.feedback(table))

    def ask(self, what: str, given: tuple[Any, ...]) -> Any:
        """Anything else that a server asks of the wheel."""
        return ask_front(self._wheel.front, what, given)

    def stop(self) -> None:
        """Nothing comes any more: what was answered is in the log, synced, and what has gone wrong is said."""
        self._wheel.stop()


class RayLine:
    """The wheel over Ray. An answered batch waits until the wheel has it."""

    lost = 0
    refused = ""

    def __init__(self, wheel: Any) -> None:
        self._wheel = wheel

    def told(self) -> Told | None:
        told: Told | None = self._asked(self._wheel.told)
        return told

    def check(self) -> None:
        """`told` has asked the wheel already."""

    def hand_over(self, kind: str, payload: bytes) -> None:
        self._asked(self._wheel.take, kind, payload)

    def labels(self, table: pl.DataFrame) -> Mapping[str, Any]:
        return dict(self._asked(self._wheel.label, table))

    def ask(self, what: str, *given: Any) -> Any:
        return self._asked(self._wheel.ask, what, given)

    def flush(self) -> None:
        """What was answered is with the wheel already."""

    @staticmethod
    def _asked(method: Any, *given: Any) -> Any:
        try:
            return ray.get(method.remote(*given), timeout=ACK_SECONDS)
        except ray.exceptions.RayTaskError as wrong:
            raise wrong.as_instanceof_cause() from wrong
        except ray.exceptions.RayError as wrong:
            raise WheelAway("The wheel cannot be reached.", seen=type(wrong).__name__) from wrong


def application(file: str, most: int = 2, processors: float = 1.0) -> Any:
    """The Serve application of a user's file. most: doors at most; processors: that each door asks for."""
    path = str(Path(file).resolve())

    def door() -> Any:
        app = load_app(Path(path))
        stores, config = verbs.open_stores(app.name, app.folder)
        front = Door(app.system, stores, verbs.private_key(config), RayLine(wheel_of(path)), "a door", FOLLOW_SECONDS)
        front.start()
        return application_of([(front, lambda: None, front.stop, config.server)], None)

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
    """Serves until it is told to stop; then the doors finish what they have, and the wheel writes what they answered."""
    if not ray.is_initialized():
        ray.init(address=None, include_dashboard=False, logging_level="ERROR")
    serve.start(http_options={"host": host, "port": port})
    stop = Event()
    for word in (signal.SIGTERM, signal.SIGINT):  # Ray has set its own, which abort
        signal.signal(word, lambda *_: stop.set())
    serve.run(application(file, workers), name=APPLICATION)
    while not stop.wait(LOOK_SECONDS):
        pass
    serve.delete(APPLICATION)
    wheel = wheel_of(str(Path(file).resolve()))
    try:
        ray.get(wheel.stop.remote(), timeout=STOP_SECONDS)
    except ray.exceptions.RayError as wrong:
        loud("", f"the wheel did not end in order, what it had not written yet is lost: {one_line(wrong)}")
    ray.kill(wheel)
    ray.shutdown()
