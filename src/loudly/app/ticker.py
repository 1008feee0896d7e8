"""Time told to a wheel that serves, and said aloud what has gone wrong beside its answers."""

from __future__ import annotations

import threading
from collections.abc import Callable

from loudly.app.narrator import Narrator
from loudly.core.clock import DAY
from loudly.core.saying import loud
from loudly.errors import LoudlyError
from loudly.loop.live import Live
from loudly.loop.restart import insist


class Ticker:
    """Tells the wheel that time passes, every few seconds, until stopped; an error is said and does not end it."""

    def __init__(self, live: Live, every: float, keep_house: Callable[[], object] = lambda: None) -> None:
        self._live, self._every, self._keep_house = live, every, keep_house
        self._told: tuple[str, int] = ("", 0)
        self._spared, self._unshelved = (0, 0), ""
        self._overdue = 0
        self._narrator = Narrator(live)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loudly-ticker", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends after the tick under way."""
        self._stop.set()
        self._thread.join(timeout=30)
        self._attempt(self._live.end, "what was odd since the last tick could not be recorded")
        self._narrate()

    def say_last(self) -> None:
        """After the last write to the log: what has gone wrong since the last tick, and what ends with this process."""
        self._look()
        self._attempt(self._look_at_what_is_lost, "what the traffic log loses could not be recorded")
        self._narrate()

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._look()
            self._attempt(self._read_sides, "the side tables were not read again")
            self._attempt(self._look_back, "the windows of the training rows taught nothing")
            self._attempt(self._live.tick, "the wheel stood still")
            self._attempt(self._keep_house, "what is to be forgotten is not erased yet")
            self._narrate()

    def _look(self) -> None:
        self._attempt(self._look_at_the_log, "the state of the traffic log could not be recorded")
        self._attempt(self._look_at_the_shelf, "what the disk did not take could not be recorded")
        self._attempt(self._look_at_the_shadows, "what a shadow missed could not be recorded")
        self._attempt(self._look_at_the_models, "what a model raised could not be recorded")
        self._attempt(self._look_at_the_labels, "labels that never came could not be recorded")

    def _narrate(self) -> None:
        self._attempt(self._narrator.go_on, "what the ledger has learned could not be said")

    def _attempt(self, work: Callable[[], object], otherwise: str) -> None:
        try:
            work()
        except Exception as wrong:  # noqa: BLE001 - a feature or a library may raise anything; the wheel must go on
            kind = "" if isinstance(wrong, LoudlyError) else f"{type(wrong).__name__}: "
            self._say(f"{otherwise}: {kind}{wrong}")

    def _read_sides(self) -> None:
        self._live.sides.refresh(self._live.clock.now())

    def _look_back(self) -> None:
        """Who folds the past does it himself."""
        if not self._live.past.open:
            self._live.watch.feed.look_back()

    def _look_at_the_log(self) -> None:
        """Says and records it once when the disk begins to refuse, when records are lost, and when it takes them again."""
        log = self._live.stores.traffic
        if log is None or (log.refused, log.lost) == self._told:
            return
        self._told = (log.refused, log.lost)
        waits = f"{log.refused}; answers go on, records wait in memory, {log.lost:,} are lost"
        reason = waits if log.refused else f"the disk takes records again; {log.lost:,} are lost"
        self._weaken("traffic log", reason)

    def _look_at_what_is_lost(self) -> None:
        log = self._live.stores.traffic
        if log is not None and log.refused and log.untaken:
            reason = f"{log.untaken:,} records that the disk did not take are lost with this process: {log.refused}"
            self._weaken("traffic log", reason)

    def _look_at_the_shelf(self) -> None:
        """Says and records it once when rows that wait stay in memory, for the disk refuses them, and when it takes them again."""
        shelf = self._live.stores.shelf
        if shelf is None or shelf.refused == self._unshelved:
            return
        self._unshelved = shelf.refused
        reason = f"{shelf.refused}; rows that wait for labels stay in memory" if shelf.refused else "the disk takes rows again"
        self._weaken("bounded memory", reason)

    def _look_at_the_shadows(self) -> None:
        """Says and records it when a shadow hangs, or is spared rows because it cannot keep up."""
        shadows = self._live.answering.shadows
        if (shadows.shed, shadows.stuck) == self._spared:
            return
        self._spared = (shadows.shed, shadows.stuck)
        reason = f"{shadows.shed:,} rows were not scored, for it could not keep up; {shadows.stuck} of its calls did not come back"
        self._weaken("shadow", reason)

    def _look_at_the_models(self) -> None:
        """Says and records once what each version raises, and what keeps answers out of the log or the counts, by kind."""
        answering = self._live.answering
        for what, text, raised in (
            ("answers of a model", "a model failed, the fallback answers", answering.raised),
            ("traffic log", "answers are not logged", answering.raised_by_log),
            ("monitor", "answers are not counted", answering.raised_by_fold),
        ):
            for reason in raised.fresh():
                self._weaken(what, reason, text)

    def _look_at_the_labels(self) -> None:
        """Says and records when answers are forgotten that waited too long for their label, and when their number has doubled."""
        overdue = self._live.book.overdue
        if overdue <= 2 * self._overdue:
            return
        self._overdue = overdue
        days = self._live.system.labels.keep / DAY
        reason = f"{overdue:,} answers waited {days:.0f} days for their label and are forgotten; a label of theirs is unknown now"
        self._weaken("late labels", reason)

    def _weaken(self, what: str, reason: str, text: str = "") -> None:
        """Said at once, for the ledger may be what fails, and recorded."""
        self._say(f"{text or what}: {reason}")
        self._narrator.expect(reason)
        insist(self._live, "guarantee_weakened", what=what, reason=reason)

    def _say(self, text: str) -> None:
        loud(self._live.system.name, text)
