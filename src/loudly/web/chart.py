"""Charts as inline SVG: small pure functions from numbers to text, legible in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 54, 150, 14, 30
COLOURS = ("#8a8f98", "#d9822b", "#2f6fdd", "#1f9d72")


def lines(series: Mapping[str, Sequence[float | None]], labels: Sequence[str], title: str) -> str:
    """Several series over the same labels, each named at its end. None leaves a gap."""
    values = [v for row in series.values() for v in row if v is not None]
    if not values or not labels:
        return ""
    low, high = _round_out(min(values), max(values))
    body = [*_grid(low, high), *_labels(labels)]
    ends = _apart([(_y(_last(row), low, high), name) for name, row in series.items()])
    for colour, (name, row) in zip(COLOURS, series.items(), strict=False):
        points = [(_x(i, len(labels)), _y(v, low, high)) for i, v in enumerate(row) if v is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
        body.append(f'<text x="{WIDTH - RIGHT + 10}" y="{ends[name] + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    return _svg(body, HEIGHT, title)


def strip(rows: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> str:
    """Moments of a year as marks, one line a row. Positions are shares of the year in [0, 1]; marks by kind."""
    step, height = 34, 34 * len(rows) + BOTTOM
    marks = {"refit": ("M0 -6 L5 5 L-5 5 Z", "#2f6fdd"), "alarm": ("M-4 -4 L4 -4 L4 4 L-4 4 Z", "#c0392b")}
    body = []
    for index, (name, kinds) in enumerate(rows.items()):
        y = 18 + index * step
        body.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        body.append(f'<text x="{WIDTH - RIGHT + 10}" y="{y + 4}">{escape(name)}</text>')
        for kind, places in kinds.items():
            path, colour = marks[kind]
            for place in places:
                x = LEFT + place * (WIDTH - LEFT - RIGHT)
                body.append(f'<path transform="translate({x:.1f},{y})" d="{path}" fill="{colour}"/>')
    body += _labels(("Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), height)
    return _svg(body, height, title)


def _svg(body: Sequence[str], height: int, title: str) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
    return head + "".join(body) + "</svg>"


def _grid(low: float, high: float) -> list[str]:
    made = []
    for i in range(6):
        value = low + (high - low) * i / 5
        y = _y(value, low, high)
        made.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        made.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    return made


def _labels(labels: Sequence[str], height: int = HEIGHT) -> list[str]:
    return [
        f'<text x="{_x(i, len(labels)):.1f}" y="{height - 8}" text-anchor="middle">{escape(text)}</text>'
        for i, text in enumerate(labels)
    ]


def _x(index: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / count


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)


def _round_out(low: float, high: float) -> tuple[float, float]:
    """The range widened to steps of 0.05."""
    step = 0.05
    return (low // step) * step, (high // step + 1) * step


def _last(row: Sequence[float | None]) -> float:
    return next(v for v in reversed(row) if v is not None)


def _apart(ends: list[tuple[float, str]]) -> dict[str, float]:
    """Label heights at least 16 apart, in their order."""
    made: dict[str, float] = {}
    before = -100.0
    for y, name in sorted(ends):
        before = max(y, before + 16)
        made[name] = before
    return made
