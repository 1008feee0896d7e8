"""What every page of loudly is made of: one self-contained file, no script, nothing fetched; light and dark; a table scrolls, the
page never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import chain, repeat

from loudly.web.chart import style

STYLE = """
:root{color-scheme:light dark;--ink:#18202b;--soft:#566170;--line:#dfe4eb;--paper:#fff;--card:#f5f7fa;--tint:#eef4ff}
@media (prefers-color-scheme:dark){:root{--ink:#e8ebf0;--soft:#a3adba;--line:#323a46;--paper:#12161c;--card:#1a2029;--tint:#18243a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:980px;padding:40px 24px 72px;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:31px;line-height:1.2;letter-spacing:-.01em;margin:0 0 8px}
h2{font-size:20px;line-height:1.3;margin:52px 0 6px}
p{margin:6px 0 12px;max-width:74ch}p.soft,.soft{color:var(--soft)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px;margin:26px 0 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.tile b{display:block;font-size:27px;line-height:1.15;font-variant-numeric:tabular-nums}
.tile span{font-size:14px;color:var(--soft)}
time{white-space:nowrap}.wide{overflow-x:auto}.wide>svg{min-width:680px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:15px;margin:10px 0}
th,td{padding:8px 10px;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}
th{color:var(--soft);font-weight:600;font-size:13.5px;vertical-align:bottom}
td.text{min-width:18ch}th.text,td.text,th:first-child,td:first-child{text-align:left}td:first-child{font-weight:600}
tr.ours td{background:var(--tint)}
.legend{color:var(--soft);font-size:14px;margin:10px 0 2px}.key{margin-right:20px;white-space:nowrap}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 18px;margin:12px 0}
.card p{margin:4px 0}.card h3{font-size:16px;margin:0 0 6px}
.ok{color:var(--good);font-weight:600;white-space:nowrap}.no{color:var(--bad);font-weight:600}
ol.log{list-style:none;margin:12px 0;padding:0;font-size:14.5px;border-top:1px solid var(--line)}
ol.log li{display:grid;grid-template-columns:104px 14px 1fr;gap:8px;padding:5px 0;border-bottom:1px solid var(--line);
overflow-wrap:anywhere}
ol.log time{color:var(--soft);font-variant-numeric:tabular-nums}ol.log i{font-style:normal;font-size:11px;line-height:22px}
.alarm i{color:var(--bad)}.change i{color:var(--good)}.fit i{color:var(--s2)}.quiet{color:var(--soft)}
pre{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:12px 0;
font:13px/1.55 ui-monospace,SFMono-Regular,Menlo,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
summary{cursor:pointer;color:var(--soft)}footer{margin-top:56px;padding-top:14px;border-top:1px solid var(--line);font-size:14px}
ol.log.timed li{grid-template-columns:150px 14px 1fr}a{color:var(--s2)}
@media (max-width:600px){body{padding:24px 14px}ol.log li,ol.log.timed li{grid-template-columns:84px 12px 1fr}}
@media (max-width:600px){ol.log.timed time{white-space:normal}}
@media print{body{max-width:none}.card,.tile,tr,li{break-inside:avoid}}
"""


def document(title: str, body: Iterable[str], head: str = "") -> str:
    """One HTML document. head: what else stands in its head."""
    known = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    named = f"{known}{head}<title>{escape(title)}</title><style>{STYLE}{style()}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{named}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def tiles(shown: Iterable[tuple[str, str]]) -> str:
    """Large words, and small ones under each; nothing where there are none."""
    made = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in shown)
    return f'<div class="tiles">{made}</div>' if made else ""


def sentence(at: str, text: str) -> str:
    """An event as a line of `<ol class="log">`: when it was, a sign for what it is, and what it says."""
    match text.split(" ", 1)[0]:
        case "ALARM" | "LOUD":
            kind, sign = "alarm", "■"
        case "retrain":
            kind, sign = "fit", "▲"
        case "held":
            kind, sign = "quiet", "–"
        case _:
            kind, sign = ("change", "●") if " is champion" in text or "rolled back" in text else ("", "·")
    return f'<li class="{kind}"><time>{escape(at)}</time><i aria-hidden="true">{sign}</i><span>{escape(text)}</span></li>'


def wide(inner: str) -> str:
    """What is wider than a small screen, in a frame that scrolls."""
    return f'<div class="wide">{inner}</div>' if inner else ""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (), ours: Sequence[bool] = ()) -> str:
    """A table of ready cells. `text`: columns set to the left; `ours`: rows to be tinted."""
    plain = repeat(False)
    body = "".join(
        _row("td", row, text, ' class="ours"' if own else "") for row, own in zip(rows, chain(ours, plain), strict=False)
    )
    return wide(f"<table>{_row('th', heads, text)}{body}</table>")


def _row(tag: str, cells: Sequence[str], text: Sequence[int], marked: str = "") -> str:
    left = ' class="text"'
    return f"<tr{marked}>" + "".join(f"<{tag}{left if i in text else ''}>{c}</{tag}>" for i, c in enumerate(cells)) + "</tr>"
