"""One sentence for every event kind; the list of kinds is the vocabulary of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loudly.core.values import Event

Teller = Callable[[Mapping[str, Any]], str]


def _number(value: float | None, digits: int = 4) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"


def interval(effect: float | None, low: float | None, high: float | None) -> str:
    """An effect with its interval.

    >>> interval(0.71234, 0.7, 0.72)
    '0.7123 [0.7000, 0.7200]'
    """
    if low is None or high is None:
        return _number(effect)
    return f"{_number(effect)} [{_number(low)}, {_number(high)}]"


def _many(count: int, what: str) -> str:
    """A count of things, of which one is one."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _verdict(data: Mapping[str, Any]) -> str:
    verdict = data["verdict"]
    return f"{verdict['decision']} {verdict['subject']}: {verdict['reason']}"


def _dataset(data: Mapping[str, Any]) -> str:
    dataset = data["dataset"]
    rows = sum(part["rows"] for part in dataset["parts"])
    return f"dataset {dataset['name']} {data['digest'][:12]}: {rows:,} rows in {_many(len(dataset['parts']), 'part')}"


def _schema(data: Mapping[str, Any]) -> str:
    keys = ", ".join(f"{key['name']} {key['skill']:.3f}" for key in data.get("key_predictors", ()))
    return f"schema {data['schema_version']} frozen: {data['columns']} columns" + (
        f"; key predictors (AUC alone) {keys}" if keys else ""
    )


def _run(data: Mapping[str, Any]) -> str:
    run = data["run"]
    by = f" by the recipe {data['recipe']}" if data.get("recipe") else ""
    how = f"stateful from {run['start']}" if run["start"] else "stateless"
    return f"run {run['key'][:12]} fitted {run['rows']:,} rows ({how}){by} -> {run['format']} {run['model'][:12]}"


def _search(data: Mapping[str, Any]) -> str:
    picked = ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in data["params"].items()
    )
    early = "".join(f", {data[name]} {said}" for name, said in (("stopped", "stopped early"), ("failed", "failed")) if data[name])
    gained = (
        f"{data['metric']} {_number(data['value'])} over {data['folds']} time splits, {_number(data['first'])} at the start point"
    )
    beside = f", {data['workers']} side by side" if data.get("workers", 1) > 1 else ""
    return f"search {data['search']}: best of {data['trials']} points{beside}{early} is {picked}: {gained}"


def _registered(data: Mapping[str, Any]) -> str:
    return f"{data['version']} registered; expected {data['metric']} {_number(data['expected'])}"


def _champion(data: Mapping[str, Any]) -> str:
    before = data["previous"] or "nothing"
    others = f" and against {', '.join(data['others'])}" if data.get("others") else ""
    return f"{data['version']} is champion, after {before}{others}: {data['reason']}"


def _disagreement(data: Mapping[str, Any]) -> str:
    overall = data["by"]["all"]
    gap = ".3f" if "decided_otherwise" in overall else ".4g"
    most = [f"{name} {found['mean_gap']:{gap}}" for name, found in data["by"].items() if name != "all"][:3]
    told = f"{data['version']} answers {overall['rows']:,} rows otherwise"
    if "decided_otherwise" in overall:
        told = f"{data['version']} decides {overall['decided_otherwise']:.1%} of {overall['rows']:,} rows otherwise"
    return f"{told}, mean gap {overall['mean_gap']:{gap}}" + (f"; most in {', '.join(most)}" if most else "")


def _candidates(data: Mapping[str, Any]) -> str:
    """The version that an event is about, with those beside it."""
    return " beside ".join([str(data["version"]), *([", ".join(data["others"])] if data.get("others") else [])])


def _trigger(data: Mapping[str, Any]) -> str:
    """What made somebody train: a person, the start of all, or what the policy saw."""
    match data["trigger"]:
        case "first training":
            return "first training"
        case "by hand":
            return "retrain by hand"
        case trigger:
            return f"retrain on {trigger}"


def _aside(data: Mapping[str, Any]) -> str:
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in data["reasons"].items())
    return f"{_many(data['rows'], 'row')} set aside ({data['where']}): {reasons}"


def _erased(data: Mapping[str, Any]) -> str:
    """Events of before told of traffic alone."""
    rows = data.get("dataset_rows", 0)
    also = f" and {rows:,} of the newest dataset" if rows else ""
    return f"{data['rows']:,} rows of traffic in {data['segments']:,} segments{also}"


def _muted(data: Mapping[str, Any]) -> str:
    """Causes by the reason why they are held back."""
    by_reason: dict[str, list[str]] = {}
    for cause, reason in data["why"].items():
        by_reason.setdefault(reason, []).append(cause)
    told = "; ".join(f"{', '.join(causes)} ({reason})" for reason, causes in by_reason.items())
    return f"LOUD {_many(data['count'], 'alarm')} held back: {told}"


def _unmatched(data: Mapping[str, Any]) -> str:
    told = []
    if strange := data.get("strange"):
        values = ", ".join(f"{value!r} ({count:,})" for value, count in strange.items())
        told.append(f"LOUD {_many(sum(strange.values()), 'label')} set aside, of values that the champion does not know: {values}")
    examples = data["examples"] if isinstance(data["examples"], Mapping) else {}  # of before: keys of all kinds in a row
    for kind, said in (
        ("unknown", "of unknown predictions"),
        ("duplicate", "told twice"),
        ("changed", "changed (the first counts)"),
    ):
        if count := data.get(kind):
            some = [key for key, what in examples.items() if what == kind]
            told.append(f"{_many(count, 'label')} {said}" + (f", e.g. {', '.join(some)}" if some else ""))
    return "; ".join(told)


TELL: dict[str, Teller] = {
    "system_loaded": lambda d: f"system {d['name']} with policy {d['policy'][:12]}",
    "dataset_versioned": _dataset,
    "schema_frozen": _schema,
    "table_judged": _verdict,
    "leakage_found": _verdict,
    "rows_set_aside": _aside,
    "search_finished": _search,
    "run_finished": _run,
    "ladder_climbed": _verdict,
    "version_registered": _registered,
    "fast_form_judged": lambda d: f"{d['version']} is served from {d['serves']}: {_verdict(d)}",
    "gate_judged": lambda d: f"gate of {d['version']}: {_verdict(d)}",
    "artefact_queried": lambda d: f"{d['version']} loaded from its bytes and queried in the server: {_verdict(d)}",
    "rollout_started": lambda d: f"rollout of {_candidates(d)} against {d['champion']}: {', then '.join(d['stages'])}",
    "stage_started": lambda d: f"{d['version']} enters {d['strategy']}: {d['reason']}",
    "share_grown": lambda d: f"the rollout of {d['version']} grows to {100 * d['share']:.3g}%: {d['reason']}",
    "arm_dropped": lambda d: f"{d['version']} leaves the rollout alone, the others go on: {d['verdict']['reason']}",
    "bandit_frozen": lambda d: f"LOUD the bandit of {d['version']} learns nothing more and its shares stay: {d['reason']}",
    "rollout_judged": lambda d: f"rollout of {_candidates(d)}: {_verdict(d)}",
    "disagreement_reported": _disagreement,
    "version_rolled_back": lambda d: (
        f"{_candidates(d)} rolled back after {d['answers']:,} answers; {d['champion']} answers: {d['reason']}"
    ),
    "champion_changed": _champion,
    "promotion_confirmed": lambda d: f"{d['version']} confirmed: {d['reason']}",
    "window_judged": lambda d: f"window {d['window']} rev {d['revision']}: {d['summary']}",
    "alarm_raised": lambda d: f"ALARM {d['cause']}: {d['reason']}",
    "alarm_cleared": lambda d: f"cleared {d['cause']}: {d['reason']}",
    "alarms_muted": _muted,
    "estimate_disproved": lambda d: f"no estimate without labels until the next champion: {d['verdict']['reason']}",
    "retrain_triggered": lambda d: f"{_trigger(d)}: {d['reason']}",
    "retrain_failed": lambda d: f"{_trigger(d)} made no model: {d['reason']}",
    "held": lambda d: f"held {d['wanted']}: {d['reason']}",
    "guarantee_weakened": lambda d: f"LOUD {d['what']}: {d['reason']}",
    "labels_unmatched": _unmatched,
    "kill_switch_set": lambda d: f"kill switch {'on' if d['on'] else 'off'}: {d['reason']}",
    "segment_recovered": lambda d: (
        f"traffic log recovered: {d['records']:,} records kept, a torn tail of {d['bytes_lost']:,} bytes cut"
    ),
    "subject_forgotten": lambda d: (
        f"{d['subject']} is to be forgotten: {d['reason']}; seen by {', '.join(d['versions']) or 'no version'}"
    ),
    "subject_erased": lambda d: f"{d['subject']} erased: {_erased(d)}; {d['stays']}",
    "segments_expired": lambda d: f"LOUD {d['segments']:,} traffic segments of {d['bytes']:,} bytes before {d['before']} deleted",
    "catch_up_begun": lambda d: f"LOUD {d['bytes']:,} bytes of traffic are folded behind the answers; nothing is decided yet",
    "catch_up_stopped": lambda d: f"LOUD the traffic of before is folded no further, and nothing is decided: {d['reason']}",
    "caught_up": lambda d: f"{d['rows']:,} logged rows are folded in again; decisions are taken again",
    "process_restarted": lambda d: f"LOUD {d['what']} {d['reason']} and was started again",
    "version_loaded": lambda d: f"{d['version']} loaded: it answers whoever names it",
    "version_unloaded": lambda d: f"{d['version']} unloaded: it answers nobody by its name any more",
    "history_replayed": lambda d: f"history replayed to {d['until']}: {d['rows']:,} rows, {d['labels']:,} labels",
}


def tell(event: Event) -> str:
    """The event as one sentence; a kind from a newer program is named, not hidden."""
    teller = TELL.get(event.kind)
    return f"{event.kind} (a kind this version does not know)" if teller is None else teller(event.data)
