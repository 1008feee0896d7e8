"""The decision record of a version: evidence -> run -> gate -> rollout -> verdict, each with its link in the chain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loudly.core.clock import iso
from loudly.core.values import Recorded
from loudly.errors import NotFound, nearest
from loudly.loop.state import State, fold_all
from loudly.loop.tell import tell

# What stands at the head of the record: the last trigger before the run that made the version.
CAUSES = ("retrain_triggered", "system_loaded")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the record. `chain` proves that it is what the ledger held."""

    position: int
    at: int
    kind: str
    text: str
    chain: str


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """Why a version answers, answered or never did."""

    version: str
    standing: str
    entries: tuple[Entry, ...]

    def lines(self) -> tuple[str, ...]:
        """The record as text, one line an entry."""
        head = f"{self.version}: {self.standing}"
        return (head, *(f"  {e.position:>5}  {iso(e.at):<16}  {e.chain[:10]}  {e.text}" for e in self.entries))


def why(events: Iterable[Recorded], version: str | None = None) -> DecisionRecord:
    """The record of a version; of the champion by default, or of the newest version while there is none.

    Raises: NotFound for a version the ledger has never seen.
    """
    recorded = tuple(events)
    state = fold_all(recorded)
    ref = version or state.champion or (list(state.versions)[-1] if state.versions else None)
    if ref is None or ref not in state.versions:
        known = ", ".join(state.versions) or "none yet"
        raise NotFound(
            f"There is no version {ref!r}." if ref else "There is no version yet.",
            seen=f"versions: {known}",
            do=nearest(ref or "", state.versions) if state.versions else "Run `loudly train`.",
        )
    mine = set(state.evidence.get(ref, ()))
    first = min(mine)
    cause = [r for r in recorded if r.position < first and r.event.kind in CAUSES][-1:]
    about = [r for r in recorded if r.position in mine]
    return DecisionRecord(ref, standing(state, ref), tuple(map(_entry, [*cause, *about])))


def standing(state: State, ref: str) -> str:
    """What a version is now: champion, candidate in a rollout, the version before, or out of traffic."""
    if ref == state.champion:
        return f"champion since {iso(state.champion_since)}"
    if state.rollout is not None and ref in state.rollout.dropped:
        return "dropped from the rollout that runs"
    if state.rollout is not None and ref in (state.rollout.version, *state.rollout.others):
        return f"candidate in stage {state.rollout.stage + 1}, {state.rollout.strategy}, since {iso(state.rollout.stage_at)}"
    if ref == state.previous:
        return "the champion before, kept warm for a rollback"
    return "out of traffic"


def _entry(recorded: Recorded) -> Entry:
    event = recorded.event
    return Entry(recorded.position, event.at, event.kind, tell(event), recorded.chain)
