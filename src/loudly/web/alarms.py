"""The alarms of a replay: what is blamed for each, and what was held back and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

# One word of the ledger -> what a reader is told.
HELD = {
    "harmless": "no harm, as labels or the estimate without labels said",
    "waiting": "too few answers yet to say whether it does harm; told again once there were enough",
    "part": "named in an alarm that was open",
    "budget": "over the budget of alarms",
    "none": "shifts page nobody here",
}
PARTS = (("columns", "what moved"), ("slices", "where"), ("rules", "errors are worst where"), ("kind", "what kind"))


def alarms(raised: Sequence[Mapping[str, Any]], held: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """The section, or nothing where there was neither."""
    told = [one for one in raised if one.get("blame")]
    if not told and not held:
        return
    yield "<h2>Every alarm, and what is blamed</h2>"
    yield (
        '<p class="soft">The stateless policy. One alarm for a cause until it clears. What moved is held against what the champion '
        "has learned from; rules are of a small tree on confirmed errors, judged on rows that it has not seen.</p>"
    )
    yield from map(card, told)
    if held:
        yield _held(held)


def card(one: Mapping[str, Any]) -> str:
    """An alarm, with what is blamed for it where somebody could tell."""
    parts = [(name, _part(key, (one.get("blame") or {}).get(key))) for key, name in PARTS]
    rows = "".join(f'<p><span class="soft">{name}:</span> {text}</p>' for name, text in parts if text)
    reason = str(one.get("reason", "")).split("; ")[0]
    return (
        f'<div class="card"><h3><time>{escape(one["at"][:10])}</time> {escape(str(one["cause"]))}</h3>'
        f"<p>{escape(reason)}</p>{rows}</div>"
    )


def _part(key: str, value: Any) -> str:
    if not value:
        return ""
    if key == "kind":
        return escape(str(value))
    if key == "columns":
        return "; ".join(map(_column, value))
    return "; ".join(escape(str(v)) for v in value)


def _column(one: Mapping[str, Any]) -> str:
    span = "" if one["low"] is None else f" {one['effect']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"
    between = "" if one["earliest"] == one["latest"] else f" (between {escape(one['earliest'])} and {escape(one['latest'])})"
    unit = "" if one["low"] is None else f", {escape(one['unit'])}"
    return f"<b>{escape(one['column'])}</b>{unit}{span}, since <time>{escape(one['since'])}</time>{between}"


def _held(held: Sequence[Mapping[str, Any]]) -> str:
    """How many were held back for which reason; all of them on request."""
    counts: dict[str, list[str]] = {}
    for one in held:
        counts.setdefault(one["kind"], []).append(one["cause"])
    rows = "".join(
        f"<p><b>{len(causes)}</b> {escape(HELD.get(kind, kind))}: {escape(', '.join(sorted({_short(c) for c in causes})))}</p>"
        for kind, causes in sorted(counts.items(), key=lambda kv: -len(kv[1]))
    )
    lines = "".join(
        f'<li class="quiet"><time>{escape(one["at"][:10])}</time><i aria-hidden="true">–</i>'
        f"<span>{escape(one['cause'])}: {escape(one['why'])}</span></li>"
        for one in held
    )
    return (
        f'<div class="card"><h3>Held back, loudly: {len(held)} times</h3>{rows}'
        f'<details><summary>Each of them, with its reason</summary><ol class="log">{lines}</ol></details></div>'
    )


def _short(cause: str) -> str:
    return cause.removeprefix("shift: ")
