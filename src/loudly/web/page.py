"""The demo's page: one self-contained file, no script, nothing fetched; light and dark; a table scrolls, the page never does.

`render` takes plain data, as `figures.json` and `loudly demo --json` have it. What is absent leaves its section out:

    policies    key -> {name, mean, months: {"2013-03": AUC | None}, refits: [day], promoted: [day], rolled_back: [day],
                alarms: [{at: day, cause, reason, blame: {columns, slices, rules, kind} (both optional)}],
                held_back: [{at: day, cause, kind, why}] (optional), worse_rows, recovery_days,
                model: s, wheel: s, story: ["day  sentence"], why: [line]};
                keys never, fortnight, stateless, stateful; the yardstick is fortnight, or stateless where that is absent
    rehearsals  key -> {name, named: [sentence], first: day | None, refits_on_it, held: [sentence]}
    bad         key -> {name, gate: sentence, stopped_by, stopped_at: day, answers, reason: sentence,
                overall: {effect, low, high} | None, slices: [{about, effect, low, high, tolerance}] (optional)}
    leaks       [sentence]
    seconds     of the whole demo (optional)

A day is "2013-03-22", with or without a time behind it.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from itertools import chain, repeat
from typing import Any

from loudly.web.alarms import alarms
from loudly.web.chart import Interval, Mark, bars, dots, legend, lines, strip, style

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
@media (max-width:600px){body{padding:24px 14px}ol.log li{grid-template-columns:84px 12px 1fr}}
@media print{body{max-width:none}.card,.tile,tr,li{break-inside:avoid}}
"""
YARDSTICKS = ("fortnight", "stateless")
OURS = ("stateless", "stateful")
STORY_SHOWN = 16


def render(figures: Mapping[str, Any]) -> str:
    """The page of a demo's figures, one HTML document. Shape of the figures: see the head of this file."""
    policies = figures.get("policies", {})
    ours = policies.get("stateless", {})
    body = [
        "<h1>A year of flights round the whole wheel</h1>",
        '<p class="soft">New York, 2013: is a flight more than 15 minutes late? Trained on January and February, then March to '
        f"{_last_month(policies)} replayed through the code that serves, on the clock of the data, with labels one day late.</p>",
        _tiles(figures),
        *_policies(policies),
        *_rehearsals(figures.get("rehearsals", {})),
        *_bad(figures.get("bad", {})),
        *_leaks(figures.get("leaks", ())),
        *alarms(ours.get("alarms", ()), ours.get("held_back", ())),
        *_story(ours.get("story", ())),
        *_why(ours.get("why", ())),
        _foot(figures),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
    title = "<title>loudly: a year of flights</title>"
    sheet = f"<style>{STYLE}{style()}</style>"
    return f'<!doctype html>\n<html lang="en"><head>{head}{title}{sheet}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _last_month(policies: Mapping[str, Any]) -> str:
    """Up to which month was replayed: a short demo ends early."""
    last = max((month for policy in policies.values() for month in policy["months"]), default="2013-12")
    return date.fromisoformat(f"{last}-01").strftime("%B")


def _tiles(figures: Mapping[str, Any]) -> str:
    policies, rehearsals, bad = (figures.get(k, {}) for k in ("policies", "rehearsals", "bad"))
    tiles = []
    if "stateless" in policies and "fortnight" in policies:
        ours, yard = policies["stateless"], policies["fortnight"]
        tiles.append((f"{ours['mean'] - yard['mean']:+.4f}", "AUC against refitting every two weeks"))
        tiles.append((f"{len(ours['refits'])} of {len(yard['refits'])}", "refits, loudly against every two weeks"))
    if rehearsals:
        named = [one for one in rehearsals.values() if _held(one)]
        tiles.append((f"{len(named)} of {len(rehearsals)}", "broken feeds named, and none learned from"))
    if bad:
        stopped = [one for one in bad.values() if one["stopped_by"] in ("gate", "canary", "shadow")]
        tiles.append((f"{len(stopped)} of {len(bad)}", "bad candidates stopped"))
    made = "".join(f'<div class="tile"><b>{escape(big)}</b><span>{escape(small)}</span></div>' for big, small in tiles)
    return f'<div class="tiles">{made}</div>' if made else ""


def _policies(policies: Mapping[str, Any]) -> Iterable[str]:
    if not policies:
        return
    yard = next((policies[key]["name"] for key in YARDSTICKS if key in policies), "the first policy")
    yield f"<h2>{_counted(len(policies))} side by side</h2>"
    yield _figures(policies)
    yield (
        f'<p class="soft">Worse answers: rows of the weeks in which a policy was more than 0.01 AUC below “{escape(yard)}”. '
        "Time to recover: the longest such stretch. Model: seconds of fit and predict; wheel: everything else.</p>"
    )
    months = list(next(iter(policies.values()))["months"])
    names = [date.fromisoformat(f"{m}-01").strftime("%b") for m in months]
    series = {p["name"]: [p["months"].get(m) for m in months] for p in policies.values()}
    yield "<h2>AUC by month, and what was done about it</h2>"
    yield _wide(lines(series, names, "AUC by month and policy"))
    yield legend({"refit": "refit", "alarm": "alarm", "back": "rolled back"})
    yield _wide(strip({p["name"]: _marks(p, months) for p in policies.values()}, names, "Refits and alarms by policy"))
    yield "<h2>Where the time went</h2>"
    yield '<p class="soft">Seconds of fit and predict, then of the wheel itself: judging, watching, joining labels, logging.</p>'
    spent = {p["name"]: {"fit and predict": p["model"], "the wheel": p["wheel"]} for p in policies.values()}
    yield _wide(bars(spent, "Seconds by policy", "s"))


def _figures(policies: Mapping[str, Any]) -> str:
    heads = ("policy", "mean AUC", "refits", "alarms", "worse answers", "time to recover", "model", "wheel")
    rows = [
        (
            escape(one["name"]),
            f"{one['mean']:.4f}",
            str(len(one["refits"])),
            _alarms_counted(one),
            f"{one['worse_rows']:,}",
            f"{one['recovery_days']} d",
            f"{one['model']:.1f} s",
            f"{one['wheel']:.1f} s",
        )
        for one in policies.values()
    ]
    return _table(heads, rows, ours=[key in OURS for key in policies])


def _alarms_counted(policy: Mapping[str, Any]) -> str:
    held = len(policy.get("held_back", ()))
    return f'{len(policy["alarms"])}<div class="soft">{held} held back</div>' if held else str(len(policy["alarms"]))


def _marks(policy: Mapping[str, Any], months: Sequence[str]) -> list[Mark]:
    made = [(day, "refit", f"{day[:10]}: refit") for day in policy["refits"]]
    made += [(day, "back", f"{day[:10]}: rolled back") for day in policy.get("rolled_back", ())]
    made += [(a["at"], "alarm", f"{a['at'][:10]}: alarm, {a['cause']}") for a in policy["alarms"]]
    return [Mark(_place(day, months), kind, says) for day, kind, says in made if day[:7] in months]


def _place(day: str, months: Sequence[str]) -> float:
    """Where a day stands on an axis whose months are equally wide, as the lines' are.

    >>> _place("2013-03-01", ["2013-03", "2013-04"]), _place("2013-04-16 10:00", ["2013-03", "2013-04"])
    (0.0, 0.75)
    """
    when = date.fromisoformat(day[:10])
    return (months.index(day[:7]) + (when.day - 1) / monthrange(when.year, when.month)[1]) / len(months)


def _held(one: Mapping[str, Any]) -> bool:
    return bool(one["named"]) and not one["refits_on_it"]


def _rehearsals(rehearsals: Mapping[str, Any]) -> Iterable[str]:
    if not rehearsals:
        return
    yield "<h2>Rehearsals: a broken feed is named, and nothing is learned from it</h2>"
    heads = ("what was broken", "what the program said", "first said", "refits held", "refits on it", "")
    rows = []
    for one in rehearsals.values():
        said = "<br>".join(map(escape, one["named"])) or "nothing"
        mark = '<span class="ok">✓ named</span>' if _held(one) else '<span class="no">✗ not as it should be</span>'
        first = (one["first"] or "never")[:10]
        rows.append(
            (escape(one["name"]), said, f"<time>{escape(first)}</time>", str(len(one["held"])), str(one["refits_on_it"]), mark)
        )
    yield _table(heads, rows, text=(1,))


def _bad(bad: Mapping[str, Any]) -> Iterable[str]:
    if not bad:
        return
    yield "<h2>A bad candidate</h2>"
    yield (
        '<p class="soft">Good on the mean, harmful to some. Dots: candidate minus champion in AUC on the gate’s held-out rows, '
        "with the interval; dashed: the loss that was tolerated.</p>"
    )
    for one in bad.values():
        answers = f"{one['answers']:,} answer{'' if one['answers'] == 1 else 's'}"
        yield (
            f'<div class="card"><h3>{escape(one["name"])}</h3>'
            f"<p>Stopped by the <b>{escape(one['stopped_by'])}</b> on {escape(one['stopped_at'][:10])} after <b>{answers}</b>.</p>"
            f'<p class="soft">{escape(one["reason"])}</p>{_wide(dots(_intervals(one), "Candidate minus champion"))}</div>'
        )


def _intervals(one: Mapping[str, Any]) -> list[Interval]:
    every = one.get("overall")
    rows = [("all rows", every)] if every else []
    rows += [(s["about"], s) for s in one.get("slices", ())]
    return [Interval(name, e["effect"], e["low"], e["high"], e.get("tolerance")) for name, e in rows if e.get("low") is not None]


def _leaks(leaks: Sequence[str]) -> Iterable[str]:
    if not leaks:
        return
    yield "<h2>Leakage in the table as published</h2>"
    yield '<p class="soft">Each would make a model brilliant on paper and useless in production. Training was refused.</p>'
    yield _table(("column", "why it blocks"), [_first_word(text) for text in leaks], text=(1,))


def _first_word(text: str) -> tuple[str, str]:
    column, _, reason = text.partition(" ")
    return escape(column), escape(reason)


def _story(story: Sequence[str]) -> Iterable[str]:
    if not story:
        return
    yield "<h2>What loudly did, and why</h2>"
    yield '<p class="soft">The stateless policy, sentence by sentence from its ledger.</p>'
    yield f'<ol class="log">{"".join(map(_sentence, story[:STORY_SHOWN]))}</ol>'
    if story[STORY_SHOWN:]:
        rest = "".join(map(_sentence, story[STORY_SHOWN:]))
        left = len(story) - STORY_SHOWN
        yield f'<details><summary>The rest of the year: {left} more</summary><ol class="log">{rest}</ol></details>'


def _sentence(line: str) -> str:
    day, text = line[:10], line[10:].strip()
    match text.split(" ", 1)[0]:
        case "ALARM":
            kind, sign = "alarm", "■"
        case "retrain":
            kind, sign = "fit", "▲"
        case "held":
            kind, sign = "quiet", "–"
        case _:
            kind, sign = ("change", "●") if " is champion" in text or "rolled back" in text else ("", "·")
    return f'<li class="{kind}"><time>{escape(day)}</time><i aria-hidden="true">{sign}</i><span>{escape(text)}</span></li>'


def _why(lines_: Sequence[str]) -> Iterable[str]:
    if not lines_:
        return
    yield "<h2>The decision record of the last champion</h2>"
    yield (
        '<p class="soft">As <code>loudly why</code> prints it: position in the ledger, day, link of the hash chain, what was '
        "decided. A changed byte breaks the chain, and <code>loudly doctor</code> says where.</p>"
    )
    yield f"<pre>{escape(chr(10).join(lines_))}</pre>"


def _foot(figures: Mapping[str, Any]) -> str:
    took = f" in {figures['seconds']:.0f} s" if "seconds" in figures else ""
    said = f"Made by <code>loudly demo</code>{took}. The same figures as data: figures.json beside this page."
    return f'<footer class="soft">{said}</footer>'


def _counted(n: int) -> str:
    words = ("No policies", "One policy", "Two policies", "Three policies", "Four policies")
    return words[n] if n < len(words) else f"{n} policies"


def _wide(inner: str) -> str:
    return f'<div class="wide">{inner}</div>' if inner else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, text: Sequence[int] = (), ours: Sequence[bool] = ()) -> str:
    """A table of ready cells. `text`: columns set to the left; `ours`: rows to be tinted."""
    plain = repeat(False)
    body = "".join(
        _row("td", row, text, ' class="ours"' if own else "") for row, own in zip(rows, chain(ours, plain), strict=False)
    )
    return _wide(f"<table>{_row('th', heads, text)}{body}</table>")


def _row(tag: str, cells: Sequence[str], text: Sequence[int], marked: str = "") -> str:
    left = ' class="text"'
    return f"<tr{marked}>" + "".join(f"<{tag}{left if i in text else ''}>{c}</{tag}>" for i, c in enumerate(cells)) + "</tr>"
