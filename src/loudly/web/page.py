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
from typing import Any

from loudly.web.alarms import alarms
from loudly.web.chart import Interval, Mark, bars, dots, legend, lines, strip
from loudly.web.sheet import document, sentence, table, tiles, wide

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
    return document("loudly: a year of flights", body)


def _last_month(policies: Mapping[str, Any]) -> str:
    """Up to which month was replayed: a short demo ends early."""
    last = max((month for policy in policies.values() for month in policy["months"]), default="2013-12")
    return date.fromisoformat(f"{last}-01").strftime("%B")


def _tiles(figures: Mapping[str, Any]) -> str:
    policies, rehearsals, bad = (figures.get(k, {}) for k in ("policies", "rehearsals", "bad"))
    shown = []
    if "stateless" in policies and "fortnight" in policies:
        ours, yard = policies["stateless"], policies["fortnight"]
        shown.append((f"{ours['mean'] - yard['mean']:+.4f}", "AUC against refitting every two weeks"))
        shown.append((f"{len(ours['refits'])} of {len(yard['refits'])}", "refits, loudly against every two weeks"))
    if rehearsals:
        named = [one for one in rehearsals.values() if _held(one)]
        shown.append((f"{len(named)} of {len(rehearsals)}", "broken feeds named, and none learned from"))
    if bad:
        stopped = [one for one in bad.values() if one["stopped_by"] != "nothing"]
        shown.append((f"{len(stopped)} of {len(bad)}", "bad candidates stopped"))
    return tiles(shown)


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
    yield wide(lines(series, names, "AUC by month and policy"))
    yield legend({"refit": "refit", "alarm": "alarm", "back": "rolled back"})
    yield wide(strip({p["name"]: _marks(p, months) for p in policies.values()}, names, "Refits and alarms by policy"))
    yield "<h2>Where the time went</h2>"
    yield '<p class="soft">Seconds of fit and predict, then of the wheel itself: judging, watching, joining labels, logging.</p>'
    spent = {p["name"]: {"fit and predict": p["model"], "the wheel": p["wheel"]} for p in policies.values()}
    yield wide(bars(spent, "Seconds by policy", "s"))


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
    return table(heads, rows, ours=[key in OURS for key in policies])


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
    yield table(heads, rows, text=(1,))


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
            f"<p>Stopped by <b>{escape(one['stopped_by'])}</b> on {escape(one['stopped_at'][:10])} after <b>{answers}</b>.</p>"
            f'<p class="soft">{escape(one["reason"])}</p>{wide(dots(_intervals(one), "Candidate minus champion"))}</div>'
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
    yield table(("column", "why it blocks"), [_first_word(text) for text in leaks], text=(1,))


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
    return sentence(line[:10], line[10:].strip())


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
