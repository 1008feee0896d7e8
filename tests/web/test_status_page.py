"""The status page: whole, safe whatever names say, and true to what it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browser import drawn, whole
from loudly.web.status_page import render

DIFFERENCE = {"method": "cs", "about": "candidate - control", "effect": -0.01, "low": -0.03, "high": 0.01, "tolerance": -0.02}
VERDICT = {"decision": "UNDECIDED", "reason": "too few labels", "missing": "400 labels, about 2 d", "evidence": [DIFFERENCE]}
CONFIRMED = {"method": "cs", "about": "performance", "effect": 0.8123, "low": 0.79, "high": 0.83, "tolerance": None}
STATUS = {
    "champion": "loans/1",
    "arms": {
        "control": {"version": "loans/1", "answers": 1200, "share": 0.95},
        "candidate": {"version": "loans/2", "answers": 60, "share": 0.05},
        "candidate 2": {"version": "loans/3", "answers": 7, "dropped": "surely worse than control"},
    },
    "served_from": {"loans/1": {"form": "onnx-trees", "why": "equal"}},
    "alarms": {"feed: temp": "temp changed units"},
    "held_back": {"shift: dewp": "harmless", "shift: new": "a word of tomorrow"},
    "heard": {"request": "2026-11-20 10:00", "label": "2026-11-20 09:30"},
    "waiting_for_labels": 4321,
    "catching_up": {"rows": 500, "of": 2000},
    "log": {"refused": "No space left on device", "lost": 3, "unlogged": 2, "uncounted": 1, "sample": 0.1},
    "wheel_away": True,
    "door_lost": 5,
}
SEEN: dict[str, Any] = {
    "name": "loans",
    "now": "2026-01-09 10:00",
    "killed": True,
    "champion_since": "2026-01-02",
    "status": STATUS,
    "rollout": {
        "versions": ["loans/2", "loans/3"],
        "strategy": "canary",
        "stage": 2,
        "stages": ["shadow", "canary"],
        "since": "2026-01-08",
        "deadline": "2026-01-22",
        "verdict": VERDICT,
    },
    "quality": {
        "metric": "roc_auc",
        "expected": 0.82,
        "windows": [
            {"at": f"2026-01-0{d}", "rows": 90, "value": 0.8 + d / 100 if d != 3 else None, "own": d > 2} for d in range(1, 8)
        ],
        "verdict": {"decision": "PASS", "reason": "as expected", "missing": "", "evidence": [CONFIRMED]},
    },
    "windows": [{"at": f"2026-01-0{d}", "rows": 100 * d} for d in range(1, 8)],
    "versions": [
        {
            "version": "loans/2",
            "standing": "candidate",
            "format": "skops",
            "rows": None,
            "expected": None,
            "registered": "2026-01-08",
        },
        {
            "version": "loans/1",
            "standing": "champion",
            "format": "skops",
            "rows": 6000,
            "expected": 0.82,
            "registered": "2026-01-02",
        },
    ],
    "alarms": [{"cause": "feed: temp", "at": "2026-01-05", "reason": "temp changed units", "blame": {"rules": ["carrier is EV"]}}],
    "story": [{"at": f"2026-01-0{1 + i % 7} 10:00", "kind": "held", "text": f"held promotion {i}"} for i in range(30)],
}
COUNTED: dict[str, Any] = {
    "requests": [("/predict", "200", 12345), ("/predict", "422", 2)],
    "rows": [("loans/1", "control", 1200)],
    "labels": [("joined", 44)],
    "fallbacks": 6,
    "stuck": 1,
    "p50": 0.0005,
    "p99": 0.01,
}


def hostile(value: Any) -> Any:
    """The same data, of which every text is an attack."""
    match value:
        case str():
            return "<script>alert(1)</script>\"'><img src='//x'>"
        case dict():
            return {name: hostile(one) for name, one in value.items()}
        case list() | tuple():
            return [hostile(one) for one in value]
        case _:
            return value


def test_all_that_it_is_given_is_shown() -> None:
    page = render(SEEN, COUNTED)
    whole(page)
    for said in (
        "<b>loans/1</b> answers since <time>2026-01-02</time>, served from onnx-trees", "UNDECIDED", "too few labels",
        "Missing: 400 labels, about 2 d.", "candidate - control: -0.0100 [-0.0300, +0.0100]", "→ <b>canary</b>", "1,200", "95.0%",
        "0.8123", "roc_auc as labels confirm, expected 0.8200", "4,321", "last label came 2026-11-20 09:30",
        "0.5 / 10 ms", "carrier is EV", "no harm, as labels",
        "a word of tomorrow", "12,345", "6 rows by a fallback; labels: 44 joined.", "held promotion 29", "10 before", "01-09 10:00",
    ):  # fmt: skip
        assert said in page, said
    assert "candidate 2 has left the rollout: surely worse than control" in page


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        ("wheel_away", True, "the wheel is away"),
        ("door_lost", 5, "5 answers could not be handed over"),
        ("catching_up", {"rows": 500, "of": 2000}, "500 of about 2,000 logged rows"),
        (
            "catching_up",
            {"rows": 1, "of": 2, "stopped": "LogCorrupt: x"},
            "folded no further, and nothing is decided: LogCorrupt: x",
        ),
        ("log", {"refused": "No space left"}, "the disk refuses the traffic log: No space left"),
        ("log", {"lost": 3}, "3 records of traffic had no room"),
        ("log", {"unlogged": 2}, "2 answered rows could not be logged"),
        ("log", {"uncounted": 1}, "1 answered rows are logged and could not be counted"),
        ("log", {"sample": 0.1}, "0.1 of the units are followed"),
    ],
)
def test_every_weakened_guarantee_is_loud(where: str, value: Any, said: str) -> None:
    calm = {"name": "loans", "status": {"champion": "loans/1"}}
    assert "LOUD" not in render(calm, {})
    page = render({**calm, "status": {**calm["status"], where: value}}, {})  # type: ignore[dict-item]
    assert page.count("LOUD") == 1
    assert said in page


def test_the_kill_switch_and_threads_that_hang_are_loud() -> None:
    page = render({"name": "loans", "killed": True}, {"stuck": 2})
    assert page.count("LOUD") == 2
    assert "the kill switch is on" in page
    assert "2 threads are held" in page


def test_whatever_names_say_nothing_is_run_and_nothing_fetched() -> None:
    page = render(hostile(SEEN), hostile(COUNTED))
    whole(page)
    assert "<img" not in page


def test_a_server_that_knows_nothing_yet_says_so() -> None:
    page = render({"name": "loans", "status": {}}, {})
    whole(page)
    assert "No champion" in page
    assert "<svg" not in page


def test_the_tab_says_how_it_stands() -> None:
    def title(seen: dict[str, Any]) -> str:
        return render(seen, {}).split("<title>")[1].split("</title>")[0]

    calm = {"name": "loans", "status": {"champion": "loans/1"}}
    assert title(calm) == "● loans"
    assert title({**calm, "rollout": {**SEEN["rollout"], "verdict": None}}) == "▲ loans"
    assert title(SEEN) == "■ loans"


def test_a_browser_draws_the_status(tmp_path: Path) -> None:
    page = tmp_path / "status.html"
    page.write_text(render(SEEN, COUNTED))
    assert len(drawn(page, tmp_path)) > 60_000
