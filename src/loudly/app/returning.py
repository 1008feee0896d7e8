"""What a server that returns says while it folds its past in behind its answers: LOUD, in the ledger, by a bar on a terminal."""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from rich.console import Console
from rich.progress import Progress

from loudly.core.clock import iso
from loudly.core.saying import loud, say
from loudly.errors import one_line
from loudly.loop.catching_up import CatchUp
from loudly.loop.live import Live
from loudly.loop.restart import insist
from loudly.loop.state import CatchingUp
from loudly.loop.taking import Taking

# A log that is folded within this moment is folded before the first answer, and nothing need be said.
MOMENT_SECONDS = 0.25


def progress_bar() -> Progress:
    """One bar for all projects of a process, on standard error where that is a terminal."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def told(known: CatchingUp | None, serving: bool) -> str:
    """Whether the past is folded, as the ledger knows it; "" where it is. serving: whether a server writes the log.

    >>> told(CatchingUp(0), serving=True)
    'LOUD the past is being folded since 1970-01-01, nothing is decided meanwhile'
    """
    if known is None:
        return ""
    if known.stopped:
        return f"LOUD the past could not be folded since {iso(known.since)}, and nothing is decided: {known.stopped}"
    if not serving:
        return f"the past was being folded since {iso(known.since)} when the server ended; the next start begins again"
    return f"LOUD the past is being folded since {iso(known.since)}, nothing is decided meanwhile"


class Returning:
    """The catching up of one Live, as people hear of it."""

    def __init__(self, live: Live, taking: Taking, bar: Progress) -> None:
        self._live, self._taking, self._bar = live, taking, bar
        self._console = bar.console
        self._one = Lock()

    def begin(self, folder: Path, taken: dict[str, int]) -> None:
        """Folds the log of a folder from now on. taken: as of `CatchUp`."""
        log = self._live.stores.traffic
        assert log is not None
        if not self._bar.disable:
            self._bar.start()
        task = self._bar.add_task(f"loudly {self._live.system.name} folds its logged traffic in again")

        def progress(done: int, of: int) -> None:
            self._bar.update(task, completed=done, total=of)

        def ended() -> None:
            self._bar.remove_task(task)
            if not self._bar.tasks:
                self._end_bar()
            self._tell_end()

        self._catch_up = CatchUp(self._live, log, folder, taken, progress, ended)
        self._catch_up.start()

    def wait(self) -> None:
        """Gives a short log its moment; of a longer one it is said what waits for it, and it rests until answers are given."""
        if self._catch_up.wait(MOMENT_SECONDS):
            return
        self._catch_up.pause()
        with self._one:
            if self._live.past.open and not self._live.past.wrong:
                size = self._live.past.size
                told = "answers are logged; nothing is promoted, rolled back or retrained, no alarm is raised, and labels wait"
                self._say(f"{size:,} bytes of logged traffic are folded in again behind the answers; until then {told}")
                insist(self._live, "catch_up_begun", bytes=size)

    def go_on(self) -> None:
        """Answers are given: the rest of the log is folded behind them."""
        self._catch_up.go_on()

    def stop(self) -> None:
        """What is not folded yet is left to the next start."""
        self._catch_up.stop()
        self._end_bar()

    def _end_bar(self) -> None:
        if not self._bar.disable:
            self._bar.stop()

    def _tell_end(self) -> None:
        with self._one:
            past, name = self._live.past, self._live.system.name
            try:
                if past.wrong:
                    what = "the traffic of before could not be folded in again; answers are logged, and nothing is decided"
                    self._say(f"{what}: {past.wrong}")
                    insist(self._live, "catch_up_stopped", reason=past.wrong)
                    return
                spooled = self._taking.drain()
                told = f"; {spooled:,} records of workers taken over" if spooled else ""
                say(name, f"{past.rows:,} logged rows folded in again{told}")
                if self._live.state.catching_up is not None:  # of this start, or of one before it
                    insist(self._live, "caught_up", rows=past.rows)
            except Exception as wrong:  # noqa: BLE001 - whatever it is, all is folded
                self._say(one_line(wrong))

    def _say(self, text: str) -> None:
        loud(self._live.system.name, text)
