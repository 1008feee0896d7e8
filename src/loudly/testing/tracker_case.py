"""What every tracker owes: run these against yours, with a fixture `tracker`."""

from __future__ import annotations

from typing import Any

from loudly.core.canon import canonical
from loudly.core.values import ModelVersion, Run, Task, plain

RUN = Run("k" * 64, "d" * 64, {"depth": 3, "kind": "good"}, 7, None, {"roc_auc": 0.8, "log_loss": None}, "m" * 64, "skops", 100)
VERSION = ModelVersion("conformance", 1, RUN.model, RUN.format, Task.BINARY, RUN.dataset, "s" * 12, RUN.key, 0)


class TrackerCase:
    """Conformance of a tracker: a mirror takes what the ledger tells, in its order, and never decides anything."""

    def test_it_takes_the_life_of_a_version_and_gives_nothing_back(self, tracker: Any) -> None:
        before = canonical(plain(RUN)), canonical(plain(VERSION))
        assert tracker.ran(RUN, {"loss": [1.0, 0.5, 0.25]}) is None
        assert tracker.registered(VERSION, RUN, b"the bytes of a model", {"gate": "PASS"}) is None
        assert tracker.aliased(VERSION.name, "champion", VERSION) is None
        assert tracker.flush() is None
        assert (canonical(plain(RUN)), canonical(plain(VERSION))) == before

    def test_an_alias_moves_and_is_taken_away(self, tracker: Any) -> None:
        tracker.ran(RUN, {})
        tracker.registered(VERSION, RUN, b"1", {})
        tracker.aliased(VERSION.name, "champion", VERSION)
        tracker.aliased(VERSION.name, "champion", VERSION)
        tracker.aliased(VERSION.name, "champion", None)
        tracker.flush()

    def test_flushing_nothing_is_nothing_and_twice_is_once(self, tracker: Any) -> None:
        tracker.flush()
        tracker.ran(RUN, {"loss": []})
        tracker.flush()
        tracker.flush()
