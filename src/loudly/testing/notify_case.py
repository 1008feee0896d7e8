"""What every notifier owes: run these against yours, with a fixture `notify`.

A fixture `shut` closes its door: the address that does not answer, the folder that is not there.
"""

from __future__ import annotations

from typing import Any

import pytest

from loudly.core.values import Decision, Evidence, Verdict

ALARM = Verdict(Decision.FAIL, "temp", "the feed is 5 °F off, [bold]really[/]", (Evidence("unit", 1.5, None, None, 100),))


class NotifyCase:
    """Conformance of a notifier: it takes any verdict, raises nothing, and an alarm is never lost in silence."""

    @pytest.mark.usefixtures("shut")
    def test_where_its_door_is_shut_the_alarm_is_said_on_standard_error(self, notify: Any, capfd: Any) -> None:
        assert notify(ALARM) is None
        told = " ".join(capfd.readouterr().err.split())
        assert "LOUD" in told
        assert "the feed is 5 °F off" in told
        assert "[bold]really[/]" in told, "what a reason says is not markup"

    @pytest.mark.usefixtures("shut")
    def test_every_decision_is_taken(self, notify: Any, capfd: Any) -> None:
        for decision in Decision:
            assert notify(Verdict(decision, "window", "", missing="labels", expected_at=5)) is None
        assert capfd.readouterr().out == "", "standard output belongs to the command"
