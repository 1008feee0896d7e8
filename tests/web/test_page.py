"""The page: self-contained, no script, and legible in a real browser."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from browser import drawn, whole
from loudly.web.page import render

MONTHS = [f"2013-{m:02d}" for m in range(3, 13)]
POLICY = {
    "months": {m: 0.70 + i / 500 for i, m in enumerate(MONTHS)},
    "mean": 0.7083,
    "refits": ["2013-03-22", "2013-06-15"],
    "alarms": [
        {"at": "2013-06-02", "cause": "feed: temp <units>"},
        {
            "at": "2013-07-02",
            "cause": "performance",
            "reason": "surely below what was expected; blamed: temp",
            "blame": {
                "columns": [
                    {
                        "column": "temp<",
                        "unit": "KS distance",
                        "effect": 0.5,
                        "low": 0.4,
                        "high": 0.6,
                        "since": "2013-06-29 05:00",
                        "earliest": "2013-06-29 04:00",
                        "latest": "2013-06-29 07:00",
                    }
                ],
                "slices": ["temp only in origin = EWR"],
                "rules": ["carrier is EV (loss +0.1 [+0.05, +0.15], 9% of rows)"],
                "kind": "concept shift (P(label | inputs) moved)",
            },
        },
    ],
    "held_back": [{"at": "2013-03-02", "cause": "shift: dewp", "kind": "harmless", "why": "no harm, as labels say"}],
    "worse_rows": 1234,
    "recovery_days": 14,
    "model": 10.0,
    "wheel": 9.0,
    "story": ["2013-03-22  retrain on data & more"],
    "why": ["flights/8: champion"],
}
FIGURES: dict[str, Any] = {
    "leaks": ["dep_delay alone predicts the label"],
    "policies": {
        k: {**POLICY, "name": n, "months": {m: v + d for m, v in POLICY["months"].items()}}  # type: ignore[attr-defined]
        for k, n, d in (
            ("never", "never retrain", -0.03),
            ("fortnight", "refit every two weeks", 0.01),
            ("stateless", "loudly, stateless", 0.005),
        )
    },
    "rehearsals": {
        "celsius": {"name": "°F to °C", "named": ["temp changed units"], "first": "2013-06-02", "refits_on_it": 0, "held": ["x"]}
    },
    "bad": {"bad_gate": {"name": "UA", "stopped_by": "the gate", "stopped_at": "2013-11-29", "answers": 0, "reason": "slice UA"}},
}


def test_the_page_is_whole_and_fetches_nothing() -> None:
    page = render(FIGURES)
    whole(page)
    assert "&lt;units&gt;" not in page.split("<pre>")[0] or "<units>" not in page
    assert page.count("<svg") == 1 + 1 + 3 + 1  # AUC by month, what was done, three keys of its legend, where the time went
    for policy in FIGURES["policies"].values():
        assert policy["name"] in page


def test_the_head_says_up_to_which_month_was_replayed() -> None:
    months = list(next(iter(FIGURES["policies"].values()))["months"])
    last = date.fromisoformat(f"{months[-1]}-01").strftime("%B")
    assert f"March to {last} replayed" in render(FIGURES)


def test_every_alarm_says_what_is_blamed_and_what_was_held_back_is_counted() -> None:
    page = render(FIGURES)
    for said in ("<b>temp&lt;</b>, KS distance 0.50 [0.40, 0.60], since <time>2013-06-29 05:00</time>", "temp only in origin = EWR",
                 "carrier is EV", "concept shift", "Held back, loudly: 1 times", "1 held back", "dewp"):  # fmt: skip
        assert said in page, said
    bare = {k: v for k, v in POLICY.items() if k != "held_back"} | {"alarms": POLICY["alarms"][:1], "name": "x"}  # type: ignore[index]
    assert "Every alarm" not in render({"policies": {"stateless": bare}})


def test_missing_months_leave_a_gap_and_not_an_error() -> None:
    figures = {
        **FIGURES,
        "policies": {k: {**v, "months": {**v["months"], "2013-05": None}} for k, v in FIGURES["policies"].items()},
    }
    assert "<svg" in render(figures)


def test_a_browser_draws_it(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(FIGURES))
    assert len(drawn(page, tmp_path)) > 40_000
