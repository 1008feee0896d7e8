"""Versions that answer whoever names them, beside the routing: loaded and unloaded while the wheel turns.

What they answer is logged and marked as pinned. It is no evidence for a rollout and no part of the champion's windows; its labels
are known here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from loudly.errors import Conflict, LoudlyError, NotFound, nearest
from loudly.labels.book import Arrival, LabelBook
from loudly.loop.host import Host
from loudly.loop.label_values import as_trained, known_labels
from loudly.loop.restart import refresh
from loudly.loop.serving import Ready, open_version
from loudly.serve.replies import Served
from loudly.serve.router import Router, Routing


class Pins:
    """The versions of a Live that were loaded by name. `failed`: those that could not be loaded after a restart, and why."""

    def __init__(self, live: Host) -> None:
        self._live = live
        self._ready: dict[str, tuple[Ready, Router]] = {}
        self._following = False
        self.book = LabelBook(live.system.key, live.system.label, live.system.labels.keep, live.stores.shelf)
        self.failed: dict[str, str] = {}

    def routed(self) -> tuple[str, ...]:
        """The versions that the routing may ask: the champion, and the candidates of a rollout."""
        champion, rollout = self._live.state.champion, self._live.state.rollout
        candidates = (rollout.version, *rollout.others) if rollout is not None else ()
        return tuple(v for v in (champion, *candidates) if v is not None)

    def loaded(self) -> tuple[str, ...]:
        """All that can be asked by name: routed, or loaded."""
        return tuple(dict.fromkeys((*self.routed(), *(v for v in self._live.state.loaded if v in self._ready))))

    def of(self, version: str) -> tuple[Ready, Router]:
        """The version, and a router that knows nobody else. Raises: NotFound where it is not loaded."""
        if version not in self.loaded():
            raise missing(version, self.loaded())
        if version not in self._ready:
            self._ready[version] = self._made(version)
        return self._ready[version]

    def load(self, version: str, most: int) -> None:
        """Makes a version answer to its name, and records that. most: versions that may be loaded, the routed ones among them.

        Raises: NotFound for one that is not registered, Conflict for one too many, StaleWriter where somebody else wrote at once.
        """
        live = self._live
        if version not in live.state.versions:
            raise NotFound(f"There is no version {version!r}.", do=nearest(version, live.state.versions))
        if version in self.loaded():
            return
        if len(self.loaded()) >= most:
            full = f"{len(self.loaded())} of {most}: {', '.join(self.loaded())}"
            raise Conflict("No more versions may be loaded.", seen=full, do="Unload one, or raise [server] max_versions.")
        made = self._made(version)
        with live.lock:
            refresh(live)
            live.event("version_loaded", version=version)
            self._ready[version] = made
            self.failed.pop(version, None)

    def unload(self, version: str) -> None:
        """Lets a version go, and records that. Raises: NotFound where it is not loaded, Conflict where the routing asks it."""
        live = self._live
        with live.lock:
            refresh(live)
            if version in self.routed():
                raise Conflict(f"{version} answers by the routing.", do="Roll it back or promote another version first.")
            if version not in live.state.loaded:
                raise missing(version, self.loaded())
            live.event("version_unloaded", version=version)
            if version != live.state.previous:
                live.ready.pop(version, None)
            self.tidy()

    def follow(self) -> None:
        """Loads what the ledger says is loaded, from now on also what somebody else loads or unloads there."""
        self._following = True
        self.tidy()

    def tidy(self) -> None:
        """After news of the ledger: what is loaded no more is dropped, what is missing is loaded. The caller may hold the lock."""
        live = self._live
        wanted = (*self.routed(), *live.state.loaded)
        for gone in [v for v in self._ready if v not in wanted]:
            del self._ready[gone]
        for version in live.state.loaded if self._following else ():
            if version in self._ready:
                continue
            try:
                self._ready[version] = self._made(version)
                self.failed.pop(version, None)
            except LoudlyError as wrong:
                self.failed[version] = str(wrong)

    def predicted(self, logged: pl.DataFrame) -> None:
        """Remembers what was answered by name, for its labels."""
        self.book.predicted(logged, logged["_at"])

    def arrived(self, labels: pl.DataFrame, now: int) -> Arrival:
        """Labels joined with the answers of the routing; one of an answer by name alone, or that nobody follows, is not unknown.

        Those of a value that the champion does not know are set aside, and their answers go on waiting.
        """
        labels, strange = self._sifted(labels, now)
        arrival = self._live.book.arrived(labels, now)
        followed = self._live.stores.sample.mask(arrival.unknown)
        mine = self.book.arrived(labels, now).joined if self.book.waiting else arrival.joined.clear()
        known = set(mine[self.book.key].cast(pl.String)) if mine.height else set()
        unknown = tuple(key for key, ours in zip(arrival.unknown, followed, strict=True) if ours and key not in known)
        return replace(arrival, unknown=unknown, unfollowed=int((~followed).sum()), strange=strange)

    def _sifted(self, labels: pl.DataFrame, now: int) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """The labels by which the champion can be judged, in its type of label, and the values of the others."""
        champion = self._live.ready.get(self._live.state.champion or "")
        if champion is None:
            return labels, ()
        known = known_labels(labels[self.book.label], champion.classes, champion.schema)
        strange = () if known.all() else tuple(map(str, labels.filter(~known)[self.book.label]))
        self._live.watch.failing.labelled(labels.height, strange, now)
        labels = labels.filter(known) if strange else labels
        return labels.with_columns(as_trained(labels[self.book.label], champion)), strange

    def _made(self, version: str) -> tuple[Ready, Router]:
        live = self._live
        ready = live.ready.get(version)
        if ready is None:
            parts = live.stores
            known = live.state.versions[version]
            ready = open_version(known, live.system.features, parts.blobs, parts.formats, True, parts.fast)
        return ready, router_of(version, ready)


def router_of(version: str, ready: Ready) -> Router:
    """A router that asks one version, whoever comes."""
    return Router(Routing(Served(version, ready.predict, ready.quick), schema=ready.schema))


def missing(version: str, loaded: Sequence[str]) -> NotFound:
    """What a client is told who names a version that does not answer."""
    return NotFound(f"The version {version[:80]!r} is not loaded.", seen=f"loaded: {', '.join(loaded) or 'none'}")
