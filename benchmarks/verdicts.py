"""How often verdicts are wrong, by simulation, and how long they take; looked at after every label and every failed request.

Errors: equal error rates and worse ones, by the guard and by what others do. Quality: canary and A/B test, accuracy and AUC,
labels on time, late, missing, missing by class and in bursts of one user, for equal models and for one worse by exactly the
margin, each with a Clopper-Pearson interval; delays against a fixed sample, group-sequential tests and mSPRT. Samples of the runs
go through the strategies themselves. Exits 1 where a promise fails.

Run: python benchmarks/verdicts.py  (2,000 runs a cell, some twenty-five minutes on one core; --quick: 60 runs of a part, for CI;
--only errors quality delays slow forecasts: parts of it; --labels late: cells of these labels alone)
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import request_errors as requests
import sequential_tests as peers
from rollout_traffic import ARMS, Traffic, World, drawn, feedback, waits
from rollouts import PROMOTED, ROLLED_BACK, UNDECIDED, Rollouts, patiently, served
from scipy.stats import beta

from loudly.core.clock import DAY
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.rollout import RolloutSpec, parse_rollout
from loudly.metrics.table import MetricSpec, metric

ALPHA, CHUNK, NEVER = 0.05, 1000, requests.NEVER
TEXT = {"canary": "canary 10% 50% 100%", "ab": "ab 50%"}
MARGINS = {("canary", "accuracy"): 0.02, ("canary", "roc_auc"): 0.03, ("ab", "accuracy"): 0.06, ("ab", "roc_auc"): 0.08}
LABELS = ("on time", "late", "missing", "missing by class", "bursts of 5")
PARTS = ("errors", "quality", "delays", "slow", "forecasts")
LOSSES, LONG = (0.01, 0.02, 0.05), World("accuracy", 0.0, days=100, rows=300)
SLOW_DAYS = 21
SLOW = {"on time": (0.02,), "late": (0.02,), "very late": (0.02, 0.06), "half late": (0.02,), "missing by class": (0.02,)}
ALL_LABELS = tuple(dict.fromkeys((*LABELS, *SLOW)))
Promise = tuple[str, bool]
Ends = tuple[np.ndarray, np.ndarray]
STRATEGIES: dict[str, Callable[[RolloutSpec, MetricSpec], Canary | Ab]] = {"canary": Canary, "ab": Ab}


def made(kind: str, of: str, margin: float, **settings: Any) -> tuple[RolloutSpec, Canary | Ab]:
    """The settings and the strategy itself."""
    spec = replace(parse_rollout(TEXT[kind], margin=margin), **settings)
    return spec, STRATEGIES[kind](spec, metric(of))


def rate(hits: int, n: int) -> str:
    """A share with its Clopper-Pearson interval."""
    low = beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    return f"{hits / n:6.1%} [{low:5.1%}, {high:5.1%}]"


def kept(hits: int, n: int, alpha: float = ALPHA) -> bool:
    """Whether a rate is not above alpha by more than two standard errors."""
    return hits / n <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / n)


def median(times: np.ndarray) -> str:
    """The median of times, of which some never come."""
    middle = np.median(times.astype(float))
    return f"{middle:9,.0f}" if middle < NEVER / 4 else "    never"


def errors(runs: int) -> Iterator[Promise]:
    """The guard on errors."""
    alike = {"equal": (0.002, 0.002), "bursts": (0.002, 0.002), "at 2 %": (0.02, 0.02)}
    rates = alike | {"to 1 %": (0.002, 0.01), "to 5 %": (0.002, 0.05)}
    failures = {name: requests.drawn(given, runs, 1, 5 if name == "bursts" else 1) for name, given in rates.items()}
    found = {}
    for name, drawn_ in failures.items():
        mine = {"loudly, every failure": requests.guard(drawn_), "by request, a warning": requests.guard(drawn_, True)}
        found[name] = mine | requests.peers(drawn_)
    print(f"\nErrors: candidate at 10 %, {requests.REQUESTS:,} requests, {runs:,} runs: rolled back, and after how many requests")
    print(" " * 36 + "0.2 %, equal            in bursts of 5          2 %, equal              0.2->1 %  0.2->5 %")
    for name in found["equal"]:
        shares = "  ".join(rate(int((found[c][name] < NEVER).sum()), runs) for c in alike)
        print(f"  {name:34}{shares}  {median(found['to 1 %'][name])} {median(found['to 5 %'][name])}")
    ours = {name: d["loudly, every failure"] for name, d in found.items()}
    for name in alike:
        hits = int((ours[name] < NEVER).sum())
        yield f"equal errors ({name}) rolled back in at most half of alpha", kept(hits, runs, ALPHA / 2)
    for name, most in (("to 1 %", 5500), ("to 5 %", 1000)):
        soonest = np.sort(ours[name])[round(runs / 2 - runs**0.5)]  # the lower end of an interval for the median
        yield f"0.2 % {name} found after {most:,} requests at most, by the median", bool(soonest <= most)
    yield "the guard that serves comes to the same, failure by failure", all(requests.same(d, 3) for d in failures.values())


def world(of: str, worse: float, labels: str, days: int) -> World:
    """Rollouts of 300 rows a day."""
    burst = 5 if labels.startswith("bursts") else 1
    return World(of, worse, "on time" if burst > 1 else labels, burst=burst, days=days, rows=300)


def judged(at: World, spec: RolloutSpec, runs: int, strategy: Canary | Ab | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Ends of all runs and labels until then; with whether the run that ended soonest does so in the strategy itself."""
    ends, labels, same = [], [], True
    for first in range(0, runs, CHUNK):
        traffic = drawn(at, min(CHUNK, runs - first), first + 1)
        found = Rollouts(at, spec, traffic).run()
        ends.append(found.end)
        labels.append(np.where(found.end == UNDECIDED, NEVER, found.label + 1))
        if first == 0 and strategy is not None:
            run = int(np.argmin(labels[0]))
            told = served(strategy, at, traffic, run, 1400)[:2]
            seen = (int(found.end[run]), int(found.label[run]))
            same = told == (seen if seen[1] <= 1400 else (UNDECIDED, -1))
    return np.concatenate(ends), np.concatenate(labels), same


def quality(runs: int, days: int, wanted: tuple[str, ...]) -> Iterator[Promise]:
    """Every cell: equal models, and one worse by exactly the margin."""
    print(f"\nQuality, {days} days of 300 rows, looked at after every label, {runs:,} runs a cell, alpha {ALPHA:g}")
    print(" " * 53 + "equal: rolled back     promoted  labels   worse by the margin: promoted  rolled back")
    agree = True
    for (kind, of), margin in MARGINS.items():
        spec, strategy = made(kind, of, margin)
        for labels in wanted:
            same, equal, when = True, *judged(world(of, 0.0, labels, days), spec, runs, None)[:2]
            worse, _, same = judged(world(of, margin, labels, days), spec, runs, strategy)
            wrong = [int((equal == ROLLED_BACK).sum()), int((worse == PROMOTED).sum())]
            name = f"{kind}, {of}, margin {margin:g}, {labels}"
            print(f"  {name:50}{rate(wrong[0], runs)}  {np.mean(equal == PROMOTED):7.1%} {median(when)}", end="")
            print(f"        {rate(wrong[1], runs)}  {np.mean(worse == ROLLED_BACK):7.1%}", flush=True)
            yield f"{name}: neither error above alpha", kept(wrong[0], runs) and kept(wrong[1], runs)
            agree &= same
    yield "the strategies that serve come to the same, label by label", agree


def ours(kind: str, runs: int, worse: float, margin: float) -> Ends:
    """Ends of long rollouts, and labels until then."""
    spec, _ = made(kind, "accuracy", margin, deadline=LONG.days * DAY)
    return judged(replace(LONG, worse=worse), spec, runs, None)[:2]


def delays(runs: int) -> Iterator[Promise]:
    """Against tests that know when to look, and one that does not. Losses are looked for without a margin."""
    most = LONG.days * LONG.rows
    values = {}
    for loss in (0.0, *LOSSES):
        t = drawn(replace(LONG, worse=loss), runs, 1)
        values[loss] = ((t.control != t.truth).astype(np.float32) - (t.candidate != t.truth)).astype(np.float32)
    deviation = float(values[0.0].std())
    tests: list[Callable[[float], peers.Peer]] = [
        lambda _: peers.naive(12, most),
        lambda loss: peers.fixed(peers.sample_size(loss, deviation)),
    ]
    tests += [lambda _, k=kind: peers.group(k, 10, most) for kind in ("obrien-fleming", "pocock")]  # type: ignore[misc]
    tests += [lambda _: peers.msprt(deviation, 0.02, most)]
    print(f"\nDelays: canary on accuracy, margin 0.02, labels on time, {most:,} at most, {runs:,} runs; medians, in labels")
    print(" " * 29 + "equal: rolled back    worse .02: promoted   to promote   losses found: .01      .02       .05")
    for test in tests:
        equal, worse = (peers.ends(test(0.02), values[w], 0.02) for w in (0.0, 0.02))
        _row(test(0.02).name, runs, equal, worse, [peers.ends(test(loss), values[loss], 0.0) for loss in LOSSES])
    for kind in ("canary", "ab"):
        equal, worse = (ours(kind, runs, w, 0.02) for w in (0.0, 0.02))
        _row(f"loudly, {kind}, every label", runs, equal, worse, [ours(kind, runs, loss, 0.0) for loss in LOSSES])
        wrong = int((equal[0] == ROLLED_BACK).sum()), int((worse[0] == PROMOTED).sum())
        yield f"{kind} for 100 days: neither error above alpha", kept(wrong[0], runs) and kept(wrong[1], runs)


def _row(name: str, runs: int, equal: Ends, worse: Ends, found: list[Ends]) -> None:
    wrong = int((equal[0] == ROLLED_BACK).sum()), int((worse[0] == PROMOTED).sum())
    when = [median(np.where(end == ROLLED_BACK, label, NEVER)) for end, label in found]
    promoted = median(np.where(equal[0] == PROMOTED, equal[1], NEVER))
    print(f"  {name:26}{rate(wrong[0], runs)}  {rate(wrong[1], runs)}  {promoted}      {' '.join(when)}", flush=True)


def slow_class(runs: int, wanted: tuple[str, ...]) -> Iterator[Promise]:
    """The harm sits in rows whose labels come late, by labels as they come and by ripe rows; or they never come: a warning."""
    print(
        f"\nCanary, accuracy, margin 0.02, {SLOW_DAYS} days; worse by slow rows alone (positives: mean 3 days, others 1; positives,"
    )
    print("or half of them, 8 days; positives 60 % missing, others 17 %). before: any label promotes; after: those of ripe rows")
    print(" " * 40 + "worse: promoted          stays after all labels     equal: promoted, day   rolled back")
    for labels in (k for k in SLOW if k in wanted):
        equal = world("accuracy", 0.0, labels, SLOW_DAYS)
        same, good = drawn(equal, runs, 2), dict[int, Ends]()
        for worse, (name, wait) in product(SLOW[labels], {"before": 0, "after": waits(equal)}.items()):
            spec, _ = made("canary", "accuracy", 0.02, deadline=SLOW_DAYS * DAY, wait=wait)
            good[wait] = good[wait] if wait in good else patiently(equal, spec, same)
            at, told = replace(equal, worse=worse, slow_only=True), f"{labels}, by {worse:g}"
            traffic = drawn(at, runs, 1)
            end, when = patiently(at, spec, traffic)
            promoted, by = np.flatnonzero(end == PROMOTED), np.where(good[wait][0] == PROMOTED, good[wait][1] / DAY, np.inf)
            stay = len(promoted) - sum(_taken_back(traffic, run, int(when[run]), spec.margin) for run in promoted.tolist())
            wrong = int((good[wait][0] == ROLLED_BACK).sum())
            print(f"  {told:24} {name:7} {wait / DAY:4.1f} d {rate(len(promoted), runs)}   {rate(stay, runs)}", end="")
            print(f"     {np.mean(by < np.inf):6.1%} {np.median(by):6.2f}   {rate(wrong, runs)}", flush=True)
            if name == "after" and labels != "missing by class":
                yield f"harm in slow rows, {told}: at most alpha promoted", kept(len(promoted), runs)
                yield f"equal, {labels}: at most alpha rolled back", kept(wrong, runs)
    if "very late" not in wanted:
        return
    at = replace(world("accuracy", 0.02, "very late", SLOW_DAYS), slow_only=True)
    spec, strategy = made("canary", "accuracy", 0.02, deadline=SLOW_DAYS * DAY, wait=waits(at))
    traffic = drawn(replace(at, worse=0.0, slow_only=False), 40, 3)
    end, when = patiently(at, spec, traffic)
    runs_ = np.argsort(np.where(end == UNDECIDED, NEVER, when))[:2]
    agree = all(served(strategy, at, traffic, run, NEVER)[::2] == (end[run], when[run]) for run in runs_)
    yield "the canary that serves comes to the same with ripe rows, label by label", agree


def _taken_back(traffic: Traffic, run: int, when: int, margin: float) -> bool:
    """Whether the effect is nearer to the margin than to none once all labels of the rows answered by then are there."""
    mine = (traffic.asked[:, run] * DAY < when) & (traffic.at[:, run] < 2 * SLOW_DAYS * DAY)
    truth = traffic.truth[mine, run]
    return float((traffic.control[mine, run] != truth).mean() - (traffic.candidate[mine, run] != truth).mean()) <= -margin / 2


def forecasts(runs: int) -> Iterator[Promise]:
    """What an undecided verdict says of the labels it still needs, asked after 1,000."""
    print("\nForetold after 1,000 labels, as a multiple of what it then took: median, and share within 1/2 to 2")
    for kind, margin in (("canary", 0.02), ("ab", 0.06)):
        for worse in (0.0, margin):
            spec, strategy = made(kind, "accuracy", margin, days=2, deadline=40 * DAY)
            at = World("accuracy", worse, days=40, rows=300)
            traffic = drawn(at, runs, 2)
            found = Rollouts(at, spec, traffic).run()
            told = [_foretold(strategy, traffic, run, found) for run in np.flatnonzero(found.label > 1000).tolist()]
            rows, when = np.array([t for t in told if t is not None]).T
            middle, inside = float(np.median(rows)), float(np.mean((rows > 0.5) & (rows < 2)))
            name = f"{kind}, {'equal' if worse == 0 else 'worse by the margin'}"
            print(f"  {name:30}labels {middle:5.2f}  {inside:4.0%}     time {np.median(when):5.2f}     ({len(rows):,} runs)")
            yield f"{name}: foretold within a factor of two", 0.5 < middle < 2 and 0.5 < float(np.median(when)) < 2


def _foretold(strategy: Canary | Ab, traffic: Traffic, run: int, found: Rollouts) -> tuple[float, float] | None:
    state = strategy.init(ARMS, 0)
    for first in range(0, 1000, 250):
        state, verdict = strategy.update(state, feedback(traffic, run, first, first + 250, strategy.spec.paired))
    told, now = re.search(r"about ([\d,]+) more labelled rows", verdict.missing), int(traffic.at[750, run])
    if told is None or verdict.expected_at is None:
        return None
    rows = int(told[1].replace(",", "")) / (found.label[run] + 1 - 1000)
    return rows, (verdict.expected_at - now) / (int(found.when[run]) - now)


def main() -> None:
    """Prints all tables, then what was promised and whether it holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000, help="rollouts a cell")
    parser.add_argument("--quick", action="store_true", help="60 runs of a part, for CI")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--labels", nargs="+", choices=ALL_LABELS, default=ALL_LABELS, help="cells of these labels")
    given = parser.parse_args()
    begun, runs = time.perf_counter(), 60 if given.quick else given.runs
    tables = {f"{kind}, {k} looks": abs(peers.constant(kind, k) - c) < 1e-3 for (kind, k), c in peers.PUBLISHED.items()}
    promises: list[Promise] = [("boundaries are those of Jennison & Turnbull's tables", all(tables.values()))]
    wanted = LABELS[::3] if given.quick else tuple(labels for labels in LABELS if labels in given.labels)
    parts: dict[str, Callable[[], Iterable[Promise]]] = {
        "errors": lambda: errors(runs),
        "quality": lambda: quality(runs, 6 if given.quick else 14, wanted),
        "delays": lambda: () if given.quick else delays(max(20, runs // 5)),
        "slow": lambda: () if given.quick else slow_class(runs, tuple(given.labels)),
        "forecasts": lambda: forecasts(max(60, runs // 10)),
    }
    for part in given.only:
        promises += parts[part]()
    print()
    for what, holds in promises:
        print(f"{'holds' if holds else 'FAILS'}  {what}")
    print(f"{time.perf_counter() - begun:,.0f} s")
    sys.exit(0 if all(holds for _, holds in promises) else 1)


if __name__ == "__main__":
    main()
