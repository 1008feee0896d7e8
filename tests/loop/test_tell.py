"""What events say to people."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from loudly.core.values import Event
from loudly.loop.tell import TELL, tell

PAGE = Path(__file__).parents[2] / "docs" / "all_of_loudly.md"


@pytest.mark.parametrize(
    ("kind", "data", "told"),
    [
        ("retrain_triggered", {"trigger": "by hand", "reason": "asked"}, "retrain by hand: asked"),
        ("retrain_triggered", {"trigger": "performance", "reason": "worse"}, "retrain on performance: worse"),
        ("retrain_failed", {"trigger": "first training", "reason": "none"}, "first training made no model: none"),
        ("rows_set_aside", {"rows": 1, "where": "monitor", "reasons": {"late": 1}}, "1 row set aside (monitor): late (1)"),
        (
            "rows_set_aside",
            {"rows": 1200, "where": "traffic", "reasons": {"late": 1100, "no time": 100}},
            "1,200 rows set aside (traffic): late (1,100); no time (100)",
        ),
        (
            "labels_unmatched",
            {"unknown": 2, "duplicate": 1, "changed": 0, "examples": {"a": "unknown", "b": "duplicate", "c": "unknown"}},
            "2 labels of unknown predictions, e.g. a, c; 1 label told twice, e.g. b",
        ),
        (
            "labels_unmatched",
            {"unknown": 0, "duplicate": 0, "changed": 1, "examples": {"a": "changed"}},
            "1 label changed (the first counts), e.g. a",
        ),
        ("labels_unmatched", {"unknown": 1, "duplicate": 0, "examples": ["a"]}, "1 label of unknown predictions"),
        (
            "rollout_started",
            {"version": "w/2", "champion": "w/1", "stages": ["shadow", "canary"]},
            "rollout of w/2 against w/1: shadow, then canary",
        ),
        (
            "subject_erased",
            {"subject": "x", "rows": 2, "segments": 1, "dataset_rows": 3, "stays": "models stay"},
            "x erased: 2 rows of traffic in 1 segments and 3 of the newest dataset; models stay",
        ),
        (
            "subject_erased",
            {"subject": "x", "rows": 0, "segments": 0, "stays": "-"},
            "x erased: 0 rows of traffic in 0 segments; -",
        ),
    ],
)
def test_an_event_is_a_sentence(kind: str, data: dict[str, Any], told: str) -> None:
    assert tell(Event(kind, 0, data)) == told


def test_the_page_names_every_kind_of_event_and_no_other() -> None:
    listed = set(re.findall(r"`(\w+)`", PAGE.read_text().split("## Events")[1]))
    assert listed == set(TELL)
