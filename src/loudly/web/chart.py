"""Charts as inline SVG: small pure functions from numbers to text, legible in light and dark, with no script.

Colours are CSS variables of `STYLE`, so a page in the dark needs no second drawing. A series is told by its point's shape and its
name as well as by its colour. Every mark carries a `<title>`: what it is is shown on hover and read aloud.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 880, 46, 178, 12, 28
PLOT = WIDTH - LEFT - RIGHT
HEIGHT = 330
STRIP, BAR, DOT = 34, 34, 40
# More of them would run into one another: then every second is shown, or every third.
MOST_LABELS = 12

# Contrast of at least 4.5 to the paper in both modes: see tests/web/test_chart.py.
LIGHT = {"s0": "#5f6875", "s1": "#a85405", "s2": "#1d5fd0", "s3": "#0d7a57", "s4": "#8b3fb0", "good": "#0d7a57", "bad": "#b3261e"}
DARK = {"s0": "#a3adba", "s1": "#f2a65a", "s2": "#86b4ff", "s3": "#52cfa3", "s4": "#d29bf0", "good": "#52cfa3", "bad": "#ff8a80"}
SERIES = ("s0", "s1", "s2", "s3", "s4")
DASHES = {"s0": "5 4", "s1": "2 3"}
SHAPES = {"s0": "square", "s1": "diamond", "s2": "circle", "s3": "triangle", "s4": "square"}
MARKS = {"refit": ("triangle", "s2"), "promoted": ("diamond", "good"), "alarm": ("square", "bad"), "back": ("circle", "bad")}


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened. `place`: share of the axis in [0, 1]; `kind`: a key of MARKS; `says`: shown on hover."""

    place: float
    kind: str
    says: str


@dataclass(frozen=True, slots=True)
class Interval:
    """An effect with its interval, and the tolerance it is held against (None: no tolerance is drawn)."""

    name: str
    effect: float
    low: float
    high: float
    tolerance: float | None = None


def style() -> str:
    """The style sheet of every chart: one variable a colour, in light and dark."""
    light = "".join(f"--{name}:{value};" for name, value in LIGHT.items())
    dark = "".join(f"--{name}:{value};" for name, value in DARK.items())
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        "svg{display:block;width:100%;height:auto;font:12.5px system-ui,sans-serif;font-variant-numeric:tabular-nums}"
        "svg text{fill:var(--soft)}svg .name{fill:var(--ink)}svg .grid{stroke:var(--line)}svg .zero{stroke:var(--soft)}"
    )


def lines(series: Mapping[str, Sequence[float | None]], labels: Sequence[str], title: str, *, zero: bool = False) -> str:
    """Several series over the same labels, each named at its end. A None leaves a gap; a series of None alone is left out.

    zero: the axis begins there, as it should for counts.

    >>> lines({"a": [1.0, None, 2.0]}, ["x", "y", "z"], "t").count("<path class=")
    2
    >>> lines({"a": [None]}, ["x"], "t")
    ''
    """
    kept = {name: row for name, row in series.items() if any(v is not None for v in row)}
    values = [v for row in kept.values() for v in row if v is not None]
    if not values:
        return ""
    ticks = nice_ticks(min(0.0, *values) if zero else min(values), max(values))
    body = [*_rules(ticks), *_axis(labels, HEIGHT)]
    ends = _apart({name: _y(_last(row), ticks) for name, row in kept.items()})
    order = {name: SERIES[i % len(SERIES)] for i, name in enumerate(series)}
    for name, row in kept.items():
        body += _series(name, row, labels, ticks, order[name])
        body.append(_text(WIDTH - RIGHT + 12, ends[name] + 4, name, colour=order[name], weight=600))
    return _svg(body, HEIGHT, title)


def strip(rows: Mapping[str, Sequence[Mark]], labels: Sequence[str], title: str) -> str:
    """One line a row with what happened on it, over the same axis as `lines`.

    >>> strip({"a": [Mark(0.5, "alarm", "why")]}, ["x"], "t").count("<title>why</title>")
    1
    """
    height = STRIP * len(rows) + BOTTOM
    body = list(_axis(labels, height))
    for index, (name, marks) in enumerate(rows.items()):
        y = STRIP * (index + 0.5)
        body.append(_line(LEFT, y, WIDTH - RIGHT, y, "grid"))
        body.append(_text(WIDTH - RIGHT + 12, y + 4, name, "name"))
        body += [_mark(mark, y) for mark in sorted(marks, key=lambda m: m.place)]
    return _svg(body, height, title)


def bars(rows: Mapping[str, Mapping[str, float]], title: str, unit: str) -> str:
    """Stacked bars, one a row: parts named in the same order in each.

    >>> bars({"a": {"fit": 3.0, "rest": 1.0}}, "t", "s").count("<rect")
    2
    """
    longest = max((sum(parts.values()) for parts in rows.values()), default=0.0)
    if longest <= 0:
        return ""
    body, room = [], WIDTH - 190 - 60
    for index, (name, parts) in enumerate(rows.items()):
        x, y = 190.0, BAR * index + 6
        body.append(_text(180, y + 15, name, "name", anchor="end"))
        for colour, (part, value) in zip(_cycle(("s2", "s1", "s3", "s0"), len(parts)), parts.items(), strict=True):
            width = room * value / longest
            said = escape(f"{name}, {part}: {value:.1f} {unit}")
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{max(width, 0.5):.1f}" height="20" rx="2" style="fill:var(--{colour})">'
                f"<title>{said}</title></rect>"
            )
            x += width + 1.5
        body.append(_text(x + 6, y + 15, f"{sum(parts.values()):.1f} {unit}"))
    return _svg(body, BAR * len(rows), title)


def dots(rows: Sequence[Interval], title: str) -> str:
    """Effects with their intervals around zero, and the tolerance each is held against as a dashed rule.

    >>> dots([Interval("a", -0.01, -0.02, 0.0, -0.05)], "t").count("<circle")
    1
    """
    if not rows:
        return ""
    ends = [v for r in rows for v in (r.low, r.high, 0.0, r.tolerance if r.tolerance is not None else 0.0)]
    ticks = nice_ticks(min(ends), max(ends))
    left, right, height = 230, WIDTH - 120, DOT * len(rows) + BOTTOM

    def scale(value: float) -> float:
        return left + (right - left) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    body = []
    for value in ticks:
        kind = "zero" if abs(value) < 1e-12 else "grid"
        body.append(_line(scale(value), 0, scale(value), height - BOTTOM, kind))
        body.append(_text(scale(value), height - 8, _signed(value, ticks), anchor="middle"))
    for index, row in enumerate(rows):
        body += _dot(row, DOT * (index + 0.5), scale(row.low), scale(row.effect), scale(row.high), left)
        if row.tolerance is not None:
            x, y = scale(row.tolerance), DOT * (index + 0.5)
            body.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 14}" y2="{y + 14}" class="zero" stroke-dasharray="3 3"/>')
    return _svg(body, height, title)


def legend(kinds: Mapping[str, str]) -> str:
    """What the marks of a strip mean: kind of MARKS to words, as HTML."""
    made = []
    for kind, words in kinds.items():
        shape, colour = MARKS[kind]
        made.append(
            '<span class="key"><svg viewBox="-8 -8 16 16" aria-hidden="true" style="width:14px;display:inline-block">'
            f"{_shape(shape, 0, 0, 5.5, colour)}</svg> {escape(words)}</span>"
        )
    return f'<p class="legend">{"".join(made)}</p>'


def nice_ticks(low: float, high: float, about: int = 5) -> tuple[float, ...]:
    """Round numbers, evenly spaced, that enclose a range.

    >>> nice_ticks(0.642, 0.759)
    (0.64, 0.66, 0.68, 0.7, 0.72, 0.74, 0.76)
    >>> nice_ticks(3.0, 3.0)[0] < 3.0 < nice_ticks(3.0, 3.0)[-1]
    True
    """
    largest = max(abs(low), abs(high))
    if high - low <= 1e-12 + 1e-9 * largest:
        half = 0.5 * largest if largest > 1e-6 else 0.5
        low, high = low - half, high + half
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = power * next((m for m in (1, 2, 5) if rough <= m * power * 1.2), 10)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    digits = max(0, -floor(log10(step)))
    return tuple(round(i * step, digits) for i in range(first, last + 1))


def _series(name: str, row: Sequence[float | None], labels: Sequence[str], ticks: Sequence[float], colour: str) -> Iterable[str]:
    dash = f' stroke-dasharray="{DASHES[colour]}"' if colour in DASHES else ""
    points = [None if v is None else (_x(i, len(labels)), _y(v, ticks)) for i, v in enumerate(row)]
    for run in _runs(points):
        path = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(run))
        yield f'<path class="line" d="{path}" fill="none" style="stroke:var(--{colour})" stroke-width="2.2"{dash}/>'
    for point, value, label in zip(points, row, labels, strict=False):
        if point is not None and value is not None:
            yield f"<g>{_shape(SHAPES[colour], *point, 3.6, colour)}<title>{escape(f'{name}, {label}: {value:.4f}')}</title></g>"


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """The stretches without a gap."""
    made: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            made.append([])
        else:
            made[-1].append(point)
    return [run for run in made if run]


def _mark(mark: Mark, y: float) -> str:
    shape, colour = MARKS[mark.kind]
    return f"<g>{_shape(shape, LEFT + mark.place * PLOT, y, 5, colour)}<title>{escape(mark.says)}</title></g>"


def _shape(kind: str, x: float, y: float, r: float, colour: str) -> str:
    fill = f'style="fill:var(--{colour});stroke:var(--paper)" stroke-width="1"'
    match kind:
        case "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" {fill}/>'
        case "square":
            return f'<rect x="{x - r * 0.9:.1f}" y="{y - r * 0.9:.1f}" width="{1.8 * r:.1f}" height="{1.8 * r:.1f}" {fill}/>'
        case "diamond":
            d = 1.3 * r
            return f'<path d="M{x:.1f} {y - d:.1f}l{d:.1f} {d:.1f}l{-d:.1f} {d:.1f}l{-d:.1f} {-d:.1f}Z" {fill}/>'
        case _:
            return f'<path d="M{x:.1f} {y - 1.2 * r:.1f}l{1.15 * r:.1f} {2.1 * r:.1f}h{-2.3 * r:.1f}Z" {fill}/>'


def _dot(row: Interval, y: float, low: float, effect: float, high: float, left: float) -> Iterable[str]:
    worse = row.high < 0 and (row.tolerance is None or row.effect < row.tolerance)
    colour = "bad" if worse else "s2"
    said = f"{row.name}: {row.effect:+.4f} [{row.low:+.4f}, {row.high:+.4f}]"
    yield _text(left - 14, y + 4, row.name, "name", anchor="end")
    yield f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" style="stroke:var(--{colour})" stroke-width="3"/>'
    yield f'<circle cx="{effect:.1f}" cy="{y}" r="5.5" style="fill:var(--{colour})"><title>{escape(said)}</title></circle>'
    yield _text(high + 10, y + 4, f"{row.effect:+.4f}")


def _rules(ticks: Sequence[float]) -> Iterable[str]:
    digits = max(len(f"{t:g}".partition(".")[2]) for t in ticks)
    for value in ticks:
        y = _y(value, ticks)
        yield _line(LEFT, y, WIDTH - RIGHT, y, "grid")
        yield _text(LEFT - 8, y + 4, f"{value:.{digits}f}", anchor="end")


def _axis(labels: Sequence[str], height: float) -> Iterable[str]:
    every = ceil(len(labels) / MOST_LABELS)
    return [_text(_x(i, len(labels)), height - 8, text, anchor="middle") for i, text in enumerate(labels) if i % every == 0]


def _svg(body: Iterable[str], height: float, title: str) -> str:
    said = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{said}"><title>{said}</title>{"".join(body)}</svg>'


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start", colour: str = "", weight: int = 400) -> str:
    named = f' class="{kind}"' if kind else ""
    fill = f"fill:var(--{colour});" if colour else ""
    look = f' style="{fill}font-weight:{weight}"' if colour or weight != 400 else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}{look}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _x(index: int, count: int) -> float:
    return LEFT + PLOT * (index + 0.5) / count


def _y(value: float, ticks: Sequence[float]) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (ticks[-1] - value) / (ticks[-1] - ticks[0])


def _last(row: Sequence[float | None]) -> float:
    return next(v for v in reversed(row) if v is not None)


def _signed(value: float, ticks: Sequence[float]) -> str:
    digits = max(len(f"{t:g}".partition(".")[2]) for t in ticks)
    return "0" if abs(value) < 1e-12 else f"{value:+.{digits}f}"


def _cycle(colours: Sequence[str], count: int) -> list[str]:
    return [colours[i % len(colours)] for i in range(count)]


def _apart(ends: Mapping[str, float], gap: float = 18.0) -> dict[str, float]:
    """Heights of the names at least a gap apart, in the order of their lines, inside the plot."""
    made: dict[str, float] = {}
    before = TOP - gap
    for name, y in sorted(ends.items(), key=lambda pair: pair[1]):
        before = made[name] = max(y, before + gap)
    over = max(0.0, before - (HEIGHT - BOTTOM))
    return {name: y - over for name, y in made.items()}
