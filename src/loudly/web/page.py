"""The demo's page: one self-contained file, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from typing import Any

from loudly.web.chart import lines, strip

STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6573;--line:#d9dee6;--paper:#fff;--card:#f6f8fb}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa4b2;--line:#333b47;--paper:#14181e;--card:#1c222b}}
body{margin:0 auto;max-width:920px;padding:32px 24px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:28px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 8px}p{margin:6px 0;color:var(--soft)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:15px}
th,td{padding:6px 10px;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}th{color:var(--soft);font-weight:600}
td.text{text-align:left}svg{width:100%;height:auto;margin:8px 0}
svg text{font:12px system-ui,sans-serif;fill:currentColor}svg .grid{stroke:var(--line)}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 16px;margin:10px 0}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;overflow-x:auto;
font:12.5px/1.5 ui-monospace,monospace;white-space:pre}
b.ok{color:#1f9d72}b.no{color:#c0392b}
"""


def render(figures: Mapping[str, Any]) -> str:
    """The page of the demo's figures (as `loudly demo --json` prints them)."""
    policies = figures["policies"]
    body = [
        "<h1>loudly: a year of flights round the whole wheel</h1>",
        "<p>New York 2013. Trained on January and February, replayed March to December through the code that serves, "
        "labels one day late.</p>",
        "<h2>Four policies</h2>",
        _policies(policies),
        "<p>Worse rows: answered in weeks more than 0.01 AUC below refitting every two weeks; to recover: the longest "
        "such stretch.</p>",
        "<h2>AUC by month</h2>",
        _months(policies),
        '<h2>When it refitted, when it raised an alarm</h2><p><span style="color:#2f6fdd">▲</span> refit '
        '&nbsp; <span style="color:#c0392b">■</span> alarm</p>',
        _strip(policies),
        "<h2>Rehearsals: a broken feed is named, and nothing is learned from it</h2>",
        *(_rehearsal(one) for one in figures["rehearsals"].values()),
        "<h2>A bad candidate that passes on the mean</h2>",
        *(_bad(one) for one in figures["bad"].values()),
        "<h2>Leakage in the table as published</h2>",
        _pre(figures["leaks"]),
        "<h2>What happened, and why (stateless)</h2>",
        _pre(policies.get("stateless", {}).get("story", ())),
        "<h2>The decision record of the last champion</h2>",
        _pre(policies.get("stateless", {}).get("why", ())),
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>loudly demo</title><style>{STYLE}</style>'
    return head + "<body>" + "\n".join(body) + "</body></html>"


def _policies(policies: Mapping[str, Any]) -> str:
    heads = ("policy", "mean AUC", "refits", "alarms", "worse rows", "to recover", "fit + predict", "the wheel itself")
    rows = [
        (
            escape(one["name"]),
            f"{one['mean']:.4f}",
            str(len(one["refits"])),
            str(len(one["alarms"])),
            f"{one['worse_rows']:,}",
            f"{one['recovery_days']} d",
            f"{one['model']:.1f} s",
            f"{one['wheel']:.1f} s",
        )
        for one in policies.values()
    ]
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{h}</th>" for h in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _months(policies: Mapping[str, Any]) -> str:
    months = list(next(iter(policies.values()))["months"])
    names = [date.fromisoformat(f"{m}-01").strftime("%b") for m in months]
    return lines({p["name"]: [p["months"].get(m) for m in months] for p in policies.values()}, names, "AUC by month and policy")


def _strip(policies: Mapping[str, Any]) -> str:
    rows = {
        p["name"]: {"refit": [_place(d) for d in p["refits"]], "alarm": [_place(a["at"]) for a in p["alarms"]]}
        for p in policies.values()
    }
    return strip(rows, "Refits and alarms by policy")


def _place(day: str) -> float:
    """Where a day stands between 1 March and the end of the year."""
    first, last = date(2013, 3, 1), date(2014, 1, 1)
    return min(1.0, (date.fromisoformat(day[:10]) - first).days / (last - first).days)


def _rehearsal(one: Mapping[str, Any]) -> str:
    good = one["named"] and not one["refits_on_it"]
    mark = '<b class="ok">named</b>' if good else '<b class="no">not as it should be</b>'
    told = escape("; ".join(one["named"]) or "nothing was said")
    held = f"retraining was held ({len(one['held'])}), refits on it: {one['refits_on_it']}"
    return f'<div class="card">{escape(one["name"])}: {mark} {escape(str(one["first"]))}<p>{told}</p><p>{held}</p></div>'


def _bad(one: Mapping[str, Any]) -> str:
    stopped = f"stopped by the {one['stopped_by']} on {one['stopped_at']} after <b>{one['answers']:,}</b> answers"
    return f'<div class="card">{escape(one["name"])}: {stopped}<p>{escape(one["reason"])}</p></div>'


def _pre(texts: Iterable[str]) -> str:
    return f"<pre>{escape(chr(10).join(texts))}</pre>"
