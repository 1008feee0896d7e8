"""Charts: what is drawn is what was given, legible in light and in dark."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loudly.web.chart import DARK, LIGHT, Interval, bars, dots, lines, nice_ticks, style

PAPER = {"light": "#ffffff", "dark": "#12161c"}


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize(("mode", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_every_colour_can_be_read_on_its_paper(mode: str, colours: dict[str, str]) -> None:
    """WCAG 2.1: contrast of at least 4.5."""
    paper = _luminance(PAPER[mode])
    for name, colour in colours.items():
        high, low = max(paper, _luminance(colour)), min(paper, _luminance(colour))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (mode, name)
    assert set(LIGHT) == set(DARK)
    assert all(f"--{name}:{colour}" in style() for name, colour in colours.items())


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_are_even_and_enclose(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    slack = 1e-8 * max(steps) + 1e-9
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack
    assert 2 <= len(ticks) <= 14
    assert max(steps) - min(steps) <= 1e-6 * max(steps) + 1e-9


def test_a_higher_value_stands_higher() -> None:
    drawn = lines({"a": [0.1, 0.9]}, ["x", "y"], "t")
    (path,) = re.findall(r'class="line" d="M([\d.]+) ([\d.]+) L([\d.]+) ([\d.]+)', drawn)
    assert float(path[0]) < float(path[2])
    assert float(path[1]) > float(path[3])


def test_bars_are_as_long_as_their_values() -> None:
    widths = [
        float(w) for w in re.findall(r'width="([\d.]+)" height="20"', bars({"a": {"p": 4.0, "q": 1.0}, "b": {"p": 2.0}}, "t", "s"))
    ]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)
    assert widths[0] == pytest.approx(2 * widths[2], rel=0.01)


def test_names_cannot_write_markup() -> None:
    assert "<b>" not in lines({"<b>": [1.0, 2.0]}, ["<b>", "y"], "<b>") + dots([Interval("<b>", 0.0, -1.0, 1.0)], "<b>")


def test_an_axis_of_counts_begins_at_nothing() -> None:
    def lowest(drawn: str) -> float:
        return min(float(t) for t in re.findall(r'text-anchor="end">([\d.]+)<', drawn))

    assert lowest(lines({"a": [90.0, 100.0]}, ["x", "y"], "t")) > 80
    assert lowest(lines({"a": [90.0, 100.0]}, ["x", "y"], "t", zero=True)) == 0


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (12, 12), (13, 7), (28, 10), (36, 12)])
def test_a_long_axis_shows_some_of_its_labels(count: int, shown: int) -> None:
    drawn = lines({"a": [float(i) for i in range(count)]}, [f"day {i}" for i in range(count)], "t")
    assert drawn.count(">day ") == shown
