"""The status page of a server: who answers, how well, what runs, what is wrong, and what was decided; it comes anew by itself.

`render` takes plain data: `seen`, what the wheel says of itself (`loudly.loop.overview`, with its `/status` as `status`), and
`counted`, what this server has counted (`loudly.adapters.meters`). What is absent leaves its section out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from loudly.web.alarms import HELD, card
from loudly.web.chart import Interval, dots, lines
from loudly.web.sheet import document, sentence, table, tiles, wide

REFRESH_SECONDS = 10
STORY_SHOWN = 20
EXPECTED, CONFIRMED = "expected", "confirmed"
LINKS = (("docs", "what it takes"), ("metrics", "Prometheus"), ("status", "JSON"), ("openapi.json", "OpenAPI"))


def render(seen: Mapping[str, Any], counted: Mapping[str, Any]) -> str:
    """The page, one HTML document."""
    status = seen.get("status", {})
    body = [
        f"<h1>{escape(str(seen['name']))}</h1>",
        f'<p class="soft">{_standing(seen, status)}</p>',
        *map(_loud, _wrong(seen, status, counted)),
        tiles(_figures(seen, status, counted)),
        *_alarms(seen.get("alarms", ()), status.get("held_back", {})),
        *_rollout(seen.get("rollout"), status),
        *_quality(seen.get("quality") or {}, seen.get("windows", ())),
        *_answers(counted),
        *_versions(seen.get("versions", ()), status.get("served_from", {})),
        *_story(seen.get("story", ())),
        _foot(seen),
    ]
    again = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
    return document(f"{_sign(seen, status)} {seen['name']}", body, again)


def _sign(seen: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """What a tab shows of it."""
    return "■" if status.get("alarms") or not status.get("champion") else "▲" if seen.get("rollout") else "●"


def _standing(seen: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    champion = status.get("champion")
    if not champion:
        return "No champion: nothing answers until <code>loudly train</code> and <code>loudly ship</code>."
    form = status.get("served_from", {}).get(champion, {})
    served = f", served from {escape(form['form'])}" if form else ""
    return f"<b>{escape(champion)}</b> answers since <time>{escape(str(seen.get('champion_since')))}</time>{served}."


def _wrong(seen: Mapping[str, Any], status: Mapping[str, Any], counted: Mapping[str, Any]) -> Iterable[str]:
    """What weakens a guarantee now, a sentence each."""
    log, past = status.get("log", {}), status.get("catching_up")
    if status.get("wheel_away"):
        yield "the wheel is away: answers go on as told last, nothing is decided, and what follows is as it was"
    if seen.get("killed"):
        yield "the kill switch is on: nothing is trained, shipped or promoted"
    if past is not None:
        done = f"{past['rows']:,} of about {past['of']:,} logged rows are folded in again, nothing is decided meanwhile"
        yield f"the past is folded no further, and nothing is decided: {past['stopped']}" if past.get("stopped") else done
    if log.get("refused"):
        yield f"the disk refuses the traffic log: {log['refused']}"
    for what, words in (("lost", "records of traffic had no room"), ("unlogged", "answered rows could not be logged")):
        if log.get(what):
            yield f"{log[what]:,} {words}"
    if log.get("uncounted"):
        yield f"{log['uncounted']:,} answered rows are logged and could not be counted"
    if status.get("door_lost"):
        yield f"{status['door_lost']:,} answers could not be handed over to the wheel"
    if log.get("sample", 1.0) < 1:
        yield f"{log['sample']:.3g} of the units are followed; the others are answered alone"
    if counted.get("stuck"):
        yield f"{counted['stuck']:,} threads are held by a model that does not answer"
    for name, arm in status.get("arms", {}).items():
        if arm.get("dropped"):
            yield f"{name} has left the rollout: {arm['dropped']}"


def _loud(text: str) -> str:
    return f'<p class="card"><b class="no">LOUD</b> {escape(text)}</p>'


def _figures(seen: Mapping[str, Any], status: Mapping[str, Any], counted: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    opened = len(status.get("alarms", ()))
    yield str(opened), "alarm open" if opened == 1 else "alarms open"
    rollout = seen.get("rollout")
    if rollout is not None:
        decision = (rollout.get("verdict") or {}).get("decision", "UNDECIDED")
        yield decision, f"{rollout['strategy']}, stage {rollout['stage']} of {len(rollout['stages'])}"
    quality = seen.get("quality") or {}
    found = _first(quality.get("verdict"))
    if found is not None and found["effect"] is not None:
        expected = f", expected {quality['expected']:.4f}" if quality.get("expected") is not None else ""
        yield f"{found['effect']:.4f}", f"{quality['metric']} as labels confirm{expected}"
    heard = status.get("heard", {}).get("label")
    last = f"; the last label came {heard}" if heard else ""
    yield f"{status.get('waiting_for_labels', 0):,}", f"answers wait for their label{last}"
    if counted.get("p99") is not None:
        yield f"{counted['p50'] * 1e3:.3g} / {counted['p99'] * 1e3:.3g} ms", "median and slowest hundredth of predictions, at most"


def _rollout(rollout: Mapping[str, Any] | None, status: Mapping[str, Any]) -> Iterable[str]:
    if rollout is None:
        return
    yield f"<h2>The rollout of {escape(', '.join(rollout['versions']))}</h2>"
    stages = " → ".join(
        f"<b>{escape(name)}</b>" if i == rollout["stage"] else escape(name) for i, name in enumerate(rollout["stages"], 1)
    )
    since, until = (f"<time>{escape(rollout[name])}</time>" for name in ("since", "deadline"))
    yield f'<p class="soft">{stages}; this stage since {since}, until {until} at the latest.</p>'
    heads = ("arm", "version", "answers", "share")
    rows = [
        (escape(name), escape(arm["version"]), f"{arm['answers']:,}", f"{arm['share']:.1%}" if "share" in arm else "")
        for name, arm in status.get("arms", {}).items()
    ]
    yield table(heads, rows, text=(1,)) if rows else ""
    verdict = rollout.get("verdict")
    if verdict is None:
        yield '<p class="soft">Nothing has been judged yet.</p>'
        return
    yield _verdict(verdict)
    yield wide(
        dots(_intervals(verdict["evidence"]), "Candidate minus control, with the interval; dashed: the loss that is tolerated")
    )


def _verdict(verdict: Mapping[str, Any]) -> str:
    kind = {"PASS": "ok", "FAIL": "no"}.get(verdict["decision"], "soft")
    missing = f' <span class="soft">Missing: {escape(verdict["missing"])}.</span>' if verdict.get("missing") else ""
    return f'<p><b class="{kind}">{escape(verdict["decision"])}</b> {escape(verdict["reason"])}{missing}</p>'


def _intervals(evidence: Sequence[Mapping[str, Any]]) -> list[Interval]:
    """What can be drawn around zero: differences, with both ends."""
    known = [e for e in evidence if None not in (e["effect"], e["low"], e["high"]) and e["tolerance"] is not None]
    return [Interval(e["about"] or e["method"], e["effect"], e["low"], e["high"], e["tolerance"]) for e in known]


def _quality(quality: Mapping[str, Any], answered: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    windows = quality.get("windows", ())
    if windows:
        yield f"<h2>{escape(quality['metric'])}, as labels have confirmed it</h2>"
        expected = quality.get("expected")
        series = {
            EXPECTED: [expected if w["own"] else None for w in windows],
            CONFIRMED: [w["value"] for w in windows],
        }
        yield wide(lines(series, [w["at"] for w in windows], "Confirmed by window of event time, and what the gate led to expect"))
        if quality.get("verdict"):
            yield _verdict(quality["verdict"])
    if len(answered) > 1:
        yield "<h2>Answers, by window</h2>"
        series = {"answers": [float(w["rows"]) for w in answered]}
        yield wide(lines(series, [w["at"] for w in answered], "Answers by window of event time", zero=True))


def _alarms(raised: Sequence[Mapping[str, Any]], held: Mapping[str, str]) -> Iterable[str]:
    if raised:
        yield "<h2>Alarms that are open</h2>"
        yield from map(card, raised)
    if held:
        yield "<h2>Held back</h2>"
        yield table(("cause", "why"), [(escape(c), escape(HELD.get(why, why))) for c, why in held.items()], text=(1,))


def _answers(counted: Mapping[str, Any]) -> Iterable[str]:
    if not counted.get("rows") and not counted.get("requests"):
        return
    yield "<h2>Since this server was started</h2>"
    rows = [(escape(version), escape(arm), f"{n:,}") for version, arm, n in counted.get("rows", ())]
    yield table(("version", "arm", "rows answered"), rows, text=(1,)) if rows else ""
    asked = [(escape(path), escape(code), f"{n:,}") for path, code, n in counted.get("requests", ())]
    yield table(("path", "status", "requests"), asked, text=(1,)) if asked else ""
    told = [f"{counted['fallbacks']:,} rows by a fallback"] if counted.get("fallbacks") else []
    told += [f"labels: {', '.join(f'{n:,} {what}' for what, n in counted['labels'])}"] if counted.get("labels") else []
    yield f'<p class="soft">{escape("; ".join(told))}.</p>' if told else ""


def _versions(versions: Sequence[Mapping[str, Any]], served: Mapping[str, Mapping[str, str]]) -> Iterable[str]:
    if not versions:
        return
    yield "<h2>Versions</h2>"
    rows = [
        (
            escape(v["version"]),
            escape(v["standing"]),
            escape(served.get(v["version"], {}).get("form", v["format"])),
            f"{v['rows']:,}" if v["rows"] is not None else "",
            f"{v['expected']:.4f}" if v["expected"] is not None else "",
            f"<time>{escape(v['registered'])}</time>",
        )
        for v in versions
    ]
    yield table(("version", "is", "form", "rows learned", "expected", "registered"), rows, text=(1, 2))


def _story(story: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if not story:
        return
    yield "<h2>What happened, the newest first</h2>"
    made = [sentence(event["at"], event["text"]) for event in story]
    yield f'<ol class="log timed">{"".join(made[:STORY_SHOWN])}</ol>'
    if made[STORY_SHOWN:]:
        rest = "".join(made[STORY_SHOWN:])
        yield f'<details><summary>{len(made) - STORY_SHOWN} before</summary><ol class="log timed">{rest}</ol></details>'


def _foot(seen: Mapping[str, Any]) -> str:
    links = ", ".join(f'<a href="../{path}">{words}</a>' for path, words in LINKS)
    said = f"As of <time>{escape(str(seen.get('now')))}</time> UTC, anew every {REFRESH_SECONDS} seconds. Also: {links}."
    return f'<footer class="soft">{said} The whole record: <code>loudly why</code>, <code>loudly status</code>.</footer>'


def _first(verdict: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The first evidence of a verdict."""
    evidence = (verdict or {}).get("evidence", ())
    return evidence[0] if evidence else None
