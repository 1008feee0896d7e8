"""What the ledger learns while a server runs is said on standard error, whoever writes it: the wheel, a command, another server."""

from __future__ import annotations

from loudly.core.saying import LOUD, loud, say
from loudly.core.values import Decision, Event
from loudly.loop.host import Host
from loudly.loop.tell import tell
from loudly.monitor.notify import PAGING, terminal

# Said by whoever does it, when it is done; and windows, of which there are many and the alarms tell.
SAID_ELSEWHERE = ("window_judged", "catch_up_begun", "catch_up_stopped", "caught_up", "process_restarted", "segment_recovered")
BAD = ("version_rolled_back", "retrain_failed", "arm_dropped", *PAGING)


class Narrator:
    """Says each event after the newest at its making once: LOUD where it is bad, a line otherwise. Cost: a read of what is new."""

    def __init__(self, live: Host) -> None:
        self._live, self._position = live, live.state.position
        self._said: set[str] = set()

    def expect(self, reason: str) -> None:
        """A weakened guarantee is recorded for a reason that is said already."""
        self._said.add(reason)

    def go_on(self) -> None:
        """What is new. Raises: as the ledger."""
        for recorded in self._live.stores.ledger.read(self._position):
            self._position = recorded.position
            self._tell(recorded.event)

    def _tell(self, event: Event) -> None:
        paged = event.kind in PAGING and terminal in self._live.stores.notify
        if paged or event.kind in SAID_ELSEWHERE or event.data.get("reason") in self._said:
            self._said.discard(str(event.data.get("reason")))
            return
        told, name = tell(event), self._live.system.name
        if told.startswith(LOUD) or event.kind in BAD or _failed(event):
            loud(name, told.removeprefix(LOUD))
        else:
            say(name, told)


def _failed(event: Event) -> bool:
    verdict = event.data.get("verdict")
    return isinstance(verdict, dict) and verdict.get("decision") == Decision.FAIL
