"""What a rollout has learned so far: quality of candidate minus control, slices, errors. Plain data, folded by batches.

Control is arm 0, the candidate arm 1. Gains are oriented: + is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import scipy

from loudly.core.canon import finite
from loudly.core.seams import Calls, Feedback, Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.deliver.days import apart, day_of, pooled, standard_error
from loudly.deliver.forecast import arrived, days_needed, nothing_arrived, rows_needed, when
from loudly.deliver.kept_days import ALL, by_day, due, kept_with, looked, nothing_kept
from loudly.deliver.latency import CANDIDATE, CONTROL, SLOW, add_calls, late, nothing_timed
from loudly.deliver.ratios import FEWEST_OF_CLASS, counted, gap_counted, nothing_counted, rarest, rated
from loudly.deliver.rollout import RolloutSpec
from loudly.deliver.row_values import by_scores_seen, gap_seen, judged, ranks, values_of, with_seen
from loudly.deliver.unlabelled import early, fewer, rest_of, unknown, unlabelled
from loudly.metrics.table import MetricSpec
from loudly.stats.arm_process import ArmProcess, arm_process_of
from loudly.stats.clusters import clusters_of, hashes
from loudly.stats.confidence_sequence import Running, cautious, difference, interval
from loudly.stats.cuped import Cuped, cuped_of
from loudly.stats.gains import Gains, gains_of
from loudly.stats.placement import BINS

WARM_UP = 100
# An interval errs on one side with half of the risk, so errors may take the other half of that of a wrong rollback. Latency (and
# the sample ratio, which rolls nothing back) take a tenth besides.
ERRORS, GUARD = 0.5, 0.1
SUSPECT_ERRORS = 1.64
INFORMATIVE = 1.5
SUSPECT = "well overall, but suspect in a slice"


def nothing_yet() -> dict[str, Any]:
    """The evidence at the start of a rollout."""
    zeros = [0] * BINS
    return {
        "rows": 0,
        "unscored": 0,
        "days": [],
        "arrived": nothing_arrived(),
        "gain": Gains().plain(),
        "bursts": [],
        "farthest": 0.0,
        "by_day": None,
        "each": {CONTROL: Gains().plain(), CANDIDATE: Gains().plain()},
        "clusters": {CONTROL: [], CANDIDATE: []},
        "before": Cuped().plain(),
        "seen": {arm: {"negatives": zeros, "positives": zeros} for arm in (CONTROL, CANDIDATE)},
        "rates": nothing_counted(),
        "slices": {},
        "kept": nothing_kept(),
        "errors": ArmProcess().plain(),
        "timed": nothing_timed(),
        "answered": {CONTROL: 0, CANDIDATE: 0},
    }


def add(
    evidence: Mapping[str, Any], feedback: Feedback, metric: MetricSpec, paired: bool, before: Floats | None = None
) -> dict[str, Any]:
    """The evidence with a batch of labelled rows more; those that are ripe are evidence of their own beside it.

    before: (n,) a covariate from before the rollout; it adjusts a mean of unpaired rows (CUPED), and no AUC.
    """
    evidence = settled({**evidence, "awaited": feedback.awaited or evidence.get("awaited")}, metric, feedback.at)
    if feedback.ripe:
        rows = replace(feedback, ripe=False, awaited=None)
        return {**evidence, "ripe": add(evidence.get("ripe") or nothing_yet(), rows, metric, paired, before)}
    if metric.rates:
        evidence = {**evidence, "rates": counted(evidence["rates"], feedback, len(metric.rates), paired)}
    by = rated(metric, evidence["rates"])
    if by.rates:
        evidence = {**evidence, "farthest": max(evidence["farthest"], by.reach or 0.0)}
    out = dict(evidence)
    if by_scores_seen(metric):
        out["seen"] = with_seen(evidence["seen"], feedback, paired)
    values = {arm: values_of(feedback, arm, by, evidence["seen"][arm], out["seen"][arm]) for arm in (CONTROL, CANDIDATE)}
    out["rows"] = evidence["rows"] + len(feedback.truth)
    out["unscored"] = evidence["unscored"] + int((~judged(feedback, paired)).sum())
    out["arrived"] = arrived(evidence["arrived"], feedback)
    out["days"] = sorted({*evidence["days"], *day_of(feedback).tolist()})
    if evidence["rows"] + len(feedback.truth) <= WARM_UP and by_scores_seen(metric):
        return out
    if paired:
        gains = values[CANDIDATE] - values[CONTROL]
        known = np.isfinite(gains)
        positive = _of(feedback.truth > 0.5 if ranks(metric) else None, known)
        gain = gains_of(evidence["gain"]).add(gains[known], positive)
        out["gain"], out["farthest"] = gain.plain(), max(evidence["farthest"], _farthest(gains[known] - gain.mean))
        out["bursts"] = clusters_of(evidence["bursts"]).add(gains[known], hashes(feedback.units)[known], positive).plain()
        scores = feedback.scores if ranks(metric) else values
        out["kept"] = kept_with(out["kept"], feedback, scores, known)
    else:
        out |= _unpaired(evidence, feedback, values, ranks(metric), before)
    return settled(out, metric, feedback.at)


def _unpaired(
    evidence: Mapping[str, Any], feedback: Feedback, values: Mapping[str, Floats], ranks: bool, before: Floats | None
) -> dict[str, Any]:
    """Each arm on the rows that it answered, with rows of one unit as one cluster."""
    positive = feedback.truth > 0.5 if ranks else None
    known = cuped_of(evidence["before"])
    each, clusters, shown, hashed, learned, farthest = {}, {}, {}, hashes(feedback.units), known, evidence["farthest"]
    for index, (arm, found) in enumerate(values.items()):
        rows = (feedback.arm == index) & np.isfinite(found)
        value = found[rows]
        if before is not None and not ranks:
            value = known.adjust(before[rows], value)
            learned = learned.merge(Cuped().add(before[rows], found[rows]))
        gains = gains_of(evidence["each"][arm]).add(value, _of(positive, rows))
        each[arm], farthest = gains.plain(), max(farthest, _farthest(value - gains.mean))
        clusters[arm] = clusters_of(evidence["clusters"][arm]).add(value, hashed[rows], _of(positive, rows)).plain()
        shown[arm] = np.full(len(rows), np.nan)
        shown[arm][rows] = feedback.scores[arm][rows] if ranks else value
    either = np.isfinite(shown[CONTROL]) | np.isfinite(shown[CANDIDATE])
    kept = kept_with(evidence["kept"], replace(feedback, slices={}), shown, either)
    return {"each": each, "clusters": clusters, "before": learned.plain(), "farthest": farthest, "kept": kept}


def settled(evidence: Mapping[str, Any], metric: MetricSpec, at: int) -> dict[str, Any]:
    """The evidence with the days judged that are over by `at`, where that is due: their gain, and that within each slice."""
    if evidence.get("ripe"):
        evidence = {**evidence, "ripe": settled(evidence["ripe"], metric, at)}
    if not due(evidence["kept"], evidence["rows"], at):
        return dict(evidence)
    kept = looked(evidence["kept"], evidence["rows"], at, ranks(metric))
    slices = by_day(kept)
    return {**evidence, "kept": kept, "by_day": slices.pop(ALL, None), "slices": slices}


def add_counts(evidence: Mapping[str, Any], calls: Calls, assigned: float) -> dict[str, Any]:
    """The evidence with a stretch of answers more: how many each arm gave, how many units failed, how long its call took.

    assigned: the candidate's share by assignment, 1/2 where both arms score all.
    """
    errors = arm_process_of(evidence["errors"]).add(calls.failed.get(CANDIDATE, 0), calls.failed.get(CONTROL, 0), assigned)
    told = {arm: evidence["answered"][arm] + calls.answered.get(arm, 0) for arm in (CONTROL, CANDIDATE)}
    timed = add_calls(evidence["timed"], calls, assigned) if calls.seconds else evidence["timed"]
    return {**evidence, "errors": errors.plain(), "answered": told, "timed": timed}


def guards(evidence: Mapping[str, Any], spec: RolloutSpec, subject: str) -> Verdict | None:
    """FAIL where the candidate surely errs more than control or is late more often; else None."""
    errors = arm_process_of(evidence["errors"])
    answered = evidence["answered"]
    share = answered[CANDIDATE] / max(1, answered[CANDIDATE] + answered[CONTROL])
    if errors.worse(ERRORS * spec.alpha, share):
        seen = Evidence("which arm erred", float(errors.candidate), n=errors.candidate + errors.control, about="errors")
        reason = f"{errors.candidate} of {errors.candidate + errors.control} units with failed answers are the candidate's"
        return Verdict(Decision.FAIL, subject, reason, (seen,))
    slow = late(evidence["timed"], GUARD * spec.alpha)
    if slow is not None:
        reason = f"{slow.effect:.0%} of {slow.n} slow calls are the candidate's: above {SLOW:g} × the control's 95th percentile"
        return Verdict(Decision.FAIL, subject, reason, (slow,))
    return None


def judge(evidence: Mapping[str, Any], spec: RolloutSpec, metric: MetricSpec, subject: str) -> Verdict:
    """PASS: surely not worse than the margin. FAIL: surely worse, or a slice is, or it errs more. Else UNDECIDED.

    FAIL may rest on whatever labels have come. PASS rests on ripe rows alone where some labels are slow: early ones are no sample.
    """
    broken = guards(evidence, spec, subject)
    if broken is not None:
        return broken
    found = _judged(evidence, spec, metric, subject)
    if spec.wait == 0 or found.failed or found.reason.startswith(SUSPECT):
        return fewer(found, evidence, spec)
    if spec.wait is None:
        return unknown(found, spec)
    ripe = {**(evidence.get("ripe") or nothing_yet()), "awaited": evidence.get("awaited"), "answered": evidence["answered"]}
    return fewer(early(_judged(ripe, spec, metric, subject), found, spec, evidence["arrived"]), ripe, spec)


def _judged(evidence: Mapping[str, Any], spec: RolloutSpec, metric: MetricSpec, subject: str) -> Verdict:
    rare = _rare(evidence, spec, metric)
    lacking = _lacking(evidence, spec, rare)
    overall, stream = _overall(evidence, spec, metric)
    if lacking:
        reason, at = f"too early to judge: {lacking} wanting", _lacking_until(evidence, spec, rare)
        return Verdict(Decision.UNDECIDED, subject, reason, (overall,), lacking, at)
    slices = _slice_evidence(evidence, spec, metric)
    suspect = tuple(s for s in slices if _suspect(s, evidence, spec))
    sure = tuple(s for s in suspect if _surely_worse(s, spec.alpha / len(slices)))
    if sure:
        return Verdict(Decision.FAIL, subject, f"surely worse in a slice: {_told(sure)}", (overall, *sure))
    found = _decide(overall, stream, evidence, spec, subject)
    if suspect and found.passed:
        reason = f"{SUSPECT}: {_told(suspect)}"
        return Verdict(Decision.UNDECIDED, subject, reason, (overall, *suspect), missing="labelled days to clear or confirm it")
    return found


def _suspect(found: Evidence, evidence: Mapping[str, Any], spec: RolloutSpec) -> bool:
    """Looks worse by more than the margin, where the rows can tell: reason enough not to promote yet, not to roll back."""
    error = standard_error(evidence["slices"][found.about])
    if found.effect is None or error > INFORMATIVE * spec.slice_margin:
        return False
    return found.effect < -max(spec.slice_margin, SUSPECT_ERRORS * error)


def _surely_worse(found: Evidence, alpha: float) -> bool:
    """Below zero for all slices together, by rows and by days: enough to roll back."""
    return found.high is not None and found.high < 0 and found.p_value is not None and found.p_value < alpha


def _told(slices: tuple[Evidence, ...]) -> str:
    return ", ".join(f"{s.about} {s.effect:+.3f} [{s.low:+.3f}, {s.high:+.3f}]" for s in slices)


def _decide(overall: Evidence, stream: Running, evidence: Mapping[str, Any], spec: RolloutSpec, subject: str) -> Verdict:
    if overall.effect is None or overall.low is None or overall.high is None:
        told = "no labelled rows that tell both apart"
        return Verdict(Decision.UNDECIDED, subject, told, (overall,), missing="labels of scored rows")
    ends = f"{_signed(overall.effect)} [{_signed(overall.low)}, {_signed(overall.high)}]"
    left = f"; {evidence['unscored']:,} labelled rows without a score are left out" if evidence["unscored"] else ""
    wider = overall.detail["wider for days"]
    differ = isinstance(wider, float) and wider > 1
    days = f"; {wider:.1f} × as wide, for days differ by more than their rows" if differ else ""
    told = f"{overall.unit} {ends}, margin {spec.margin:g}{days}{left}"
    if overall.low > -spec.margin:
        rest = unlabelled(overall, evidence, spec)
        return Verdict(Decision.PASS, subject, f"surely not worse than the margin: {told}{rest_of(rest, spec)}", (overall, *rest))
    if overall.high < 0 and (overall.p_value is None or overall.p_value < spec.alpha):
        return Verdict(Decision.FAIL, subject, f"surely worse: {told}", (overall,))
    more = rows_needed(stream, evidence["rows"], spec.margin, spec.alpha)
    missing = f"about {more:,} more labelled rows" if more is not None else "labels until the deadline"
    at = when(evidence["arrived"], more) if more is not None else None
    return Verdict(Decision.UNDECIDED, subject, told, (overall,), missing, at)


def _signed(value: float) -> str:
    return f"{value:+.4f}" if abs(value) < 1e6 else f"{value:+.4g}"


def _overall(evidence: Mapping[str, Any], spec: RolloutSpec, metric: MetricSpec) -> tuple[Evidence, Running]:
    """The effect with its interval, rows of one unit as one cluster, and the stream that it rests on."""
    if spec.paired:
        found = clusters_of(evidence["bursts"]).stream(gains_of(evidence["gain"]))
        stream = cautious(found, _range(evidence, metric))
        method, p_value = "paired asymptotic confidence sequence, units as clusters", batches_p(_gaps(evidence))
        rows = gains_of(evidence["gain"]).n
    else:
        stream = difference(*(cautious(_by_unit(evidence, arm), _range(evidence, metric)) for arm in (CONTROL, CANDIDATE)))
        method, p_value = "two-arm asymptotic confidence sequence, units as clusters", None
        rows = sum(gains_of(evidence["each"][arm]).n for arm in (CONTROL, CANDIDATE))
    if stream.n > 1 and (by_scores_seen(metric) or metric.rates):
        whole = gap_counted(metric, evidence["rates"]) if metric.rates else gap_seen(metric, evidence["seen"])
        stream = replace(stream, mean=whole)
    wider = apart(evidence["by_day"], max(1.0, rows / max(1, stream.n)), spec.alpha, _range(evidence, metric))
    stream = replace(stream, m2=stream.m2 * wider**2)
    effect, (low, high) = stream.mean, interval(stream, spec.alpha)
    known = effect if stream.n > 1 else None
    detail = {"days": len(evidence["days"]), "labelled": evidence["rows"], "wider for days": round(wider, 3)}
    told = Evidence(
        method, known, finite(low), finite(high), stream.n, "candidate - control", metric.name, 1 - spec.alpha, -spec.margin,
        p_value=p_value,
        detail=detail,
    )  # fmt: skip
    return told, stream


def _gaps(evidence: Mapping[str, Any]) -> list[float]:
    """Of the days that are over."""
    return list(evidence["by_day"]["batches"]) if evidence["by_day"] else []


def _range(evidence: Mapping[str, Any], metric: MetricSpec) -> float:
    """How far a row's value may lie from the mean, where that is bounded; else the farthest seen."""
    return metric.reach if metric.reach is not None and not metric.rates else float(evidence["farthest"])


def _by_unit(evidence: Mapping[str, Any], arm: str) -> Running:
    return clusters_of(evidence["clusters"][arm]).stream(gains_of(evidence["each"][arm]))


def spread(evidence: Mapping[str, Any]) -> float | None:
    """Deviation of an unpaired row of control, with what rows of one unit share counted in; None before there are enough."""
    rows, units = gains_of(evidence["each"][CONTROL]).stream(), _by_unit(evidence, CONTROL)
    if units.n < WARM_UP // 2 or rows.deviation == 0:
        return None
    return float(rows.deviation * np.sqrt(rows.n / units.n))


def _slice_evidence(evidence: Mapping[str, Any], spec: RolloutSpec, metric: MetricSpec) -> tuple[Evidence, ...]:
    alpha = spec.alpha / max(1, len(evidence["slices"]))
    return tuple(_one_slice(name, found, spec, metric, alpha) for name, found in evidence["slices"].items())


def _one_slice(name: str, found: Mapping[str, Any], spec: RolloutSpec, metric: MetricSpec, alpha: float) -> Evidence:
    effect, low, high = pooled(found, alpha)
    return Evidence(
        "gain within the slice, days pooled, confidence sequence",
        effect,
        finite(low),
        finite(high),
        int(found["rows"]),
        name,
        metric.name,
        1 - alpha,
        -spec.slice_margin,
        p_value=batches_p(found["batches"]),
    )


def batches_p(batches: list[float]) -> float | None:
    """One-sided p-value that the mean over batches is not below zero, with batches as the units."""
    n = len(batches)
    if n < 3:
        return None
    mean, deviation = float(np.mean(batches)), float(np.std(batches, ddof=1))
    return float(scipy.special.stdtr(n - 1, mean / (deviation / np.sqrt(n)))) if deviation > 0 else float(mean >= 0)


def _rare(evidence: Mapping[str, Any], spec: RolloutSpec, metric: MetricSpec) -> int:
    """Labels of the class of which there are least, in the arm that has least of it; enough, where classes do not matter."""
    if metric.rates:
        return rarest(evidence["rates"])
    if not by_scores_seen(metric):
        return FEWEST_OF_CLASS
    return int(min(sum(seen) for arm in (CONTROL, CANDIDATE) for seen in evidence["seen"][arm].values()))


def _lacking(evidence: Mapping[str, Any], spec: RolloutSpec, rare: int) -> str:
    wanting = []
    if len(evidence["days"]) < spec.days:
        wanting.append(f"{spec.days - len(evidence['days'])} more labelled days")
    if (rows := _judged_rows(evidence)) < spec.rows:
        wanting.append(f"{spec.rows - rows:,} more labelled rows{' with a score' if evidence['unscored'] else ''}")
    if rare < FEWEST_OF_CLASS:
        wanting.append(f"{FEWEST_OF_CLASS - rare} more labels of the rarer class")
    return " and ".join(wanting)


def _judged_rows(evidence: Mapping[str, Any]) -> int:
    """Labelled rows that a verdict can rest on."""
    return int(evidence["rows"] - evidence["unscored"])


def _lacking_until(evidence: Mapping[str, Any], spec: RolloutSpec, rare: int) -> int | None:
    """When the labelled days and rows that are wanted at least are likely to be there; None where a class has not come at all."""
    seen, rows = evidence["arrived"], spec.rows - _judged_rows(evidence)
    if rare == 0:
        return None
    rows = max(rows, round((FEWEST_OF_CLASS - rare) * evidence["rows"] / rare))
    times = [days_needed(seen, max(0, spec.days - len(evidence["days"]))), when(seen, max(0, rows))]
    known = [at for at in times if at is not None]
    return max(known) if known else None


def _farthest(gaps: Floats) -> float:
    return float(np.abs(gaps).max(initial=0.0))


def _of(positive: Any, rows: Any) -> Any:
    return None if positive is None else positive[rows]
