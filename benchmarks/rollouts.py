"""Rollouts by the thousand, judged after every label, all runs at once.

`Rollouts` does what the strategies of `loudly.deliver` do, with runs as the vector, so that 2,000 rollouts can be looked at after
each of their thousands of labels; `served` puts the same labels, one by one, through the strategies themselves. verdicts.py shows
on a sample that both come to the same end at the same label.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from rollout_traffic import ARMS, Traffic, World, feedback, ripened
from scipy.special import chdtrc, gammaln, ndtri, stdtrit

from loudly.core.clock import DAY
from loudly.deliver.ab import Ab
from loudly.deliver.canary import Canary
from loudly.deliver.days import HETEROGENEOUS, cochran
from loudly.deliver.evidence import GUARD, WARM_UP, batches_p
from loudly.deliver.kept_days import ALL, by_day, kept_with, looked, nothing_kept
from loudly.deliver.rollout import RolloutSpec
from loudly.metrics.table import metric
from loudly.stats.clusters import BUCKETS, hashes
from loudly.stats.placement import BINS, grid
from loudly.stats.sample_ratio import CONCENTRATION

PROMOTED, ROLLED_BACK, UNDECIDED = 1, -1, 0
BLOCK = 64
LESS = (np.arange(BLOCK) < np.arange(BLOCK)[:, None]).astype(np.float32)
UP_TO = (LESS + np.eye(BLOCK) / 2).astype(np.float32)


class Side:
    """What `Gains` and `Clusters` hold of one stream of values, for many runs."""

    def __init__(self, runs: int) -> None:
        self.n, self.mean, self.m2 = (np.zeros((runs, 2)) for _ in range(3))
        self.sums, self.gram, self.used = np.zeros((runs, BUCKETS, 4)), np.zeros((runs, 4, 4)), np.zeros(runs)

    def keep(self, kept: np.ndarray) -> None:
        for name in ("n", "mean", "m2", "sums", "gram", "used"):
            setattr(self, name, getattr(self, name)[kept])

    def add(self, r: np.ndarray, value: np.ndarray, second: np.ndarray, bucket: np.ndarray) -> None:
        """A value of each of the runs r; second: of the second class (0 where classes do not matter)."""
        n = self.n[r, second] + 1
        gap = value - self.mean[r, second]
        mean = self.mean[r, second] + gap / n
        self.m2[r, second] += gap * (value - mean)
        self.n[r, second], self.mean[r, second] = n, mean
        old = self.sums[r, bucket]
        self.used[r] += (old[:, 0] + old[:, 2]) == 0
        new, i = old.copy(), np.arange(len(r))
        new[i, 2 * second] += 1
        new[i, 2 * second + 1] += value
        self.gram[r] += new[:, :, None] * new[:, None, :] - old[:, :, None] * old[:, None, :]
        self.sums[r, bucket] = new

    def stream(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """n as units are worth, mean, deviation."""
        n, there = self.n, self.n > 0
        total, both = n.sum(axis=1), there.all(axis=1)
        spread = np.where(n > 1, self.m2 / np.maximum(n - 1, 1), 0.0)
        of_both = total * (spread / np.maximum(n, 1)).sum(axis=1)
        deviation = np.sqrt(np.where(both, of_both, spread.sum(axis=1)))
        mean = np.where(both, self.mean.sum(axis=1) / 2, self.mean.sum(axis=1))
        part = np.where(there, 1 / np.maximum(n, 1), 0.0)
        weights = np.stack([-self.mean[:, 0] * part[:, 0], part[:, 0], -self.mean[:, 1] * part[:, 1], part[:, 1]], axis=1)
        found = np.einsum("ri,rij,rj->r", weights, self.gram, weights) * self.used / np.maximum(self.used - 1, 1)
        worth = deviation**2 / np.maximum(found, 1e-300)
        worth = np.where(self.used > 1, np.minimum(total, worth), 0.0)
        return np.where((total < 2) | (deviation == 0), total, np.floor(worth)), mean, deviation


class Seen:
    """Counts of one arm's scores by class and bin, for many runs: what a new row is placed among; and its AUC as of now."""

    def __init__(self, runs: int) -> None:
        self.counts, self.blocks = (np.zeros(shape, dtype=np.float32) for shape in ((runs, 2, BLOCK, BLOCK), (runs, 2, BLOCK)))
        self.won = np.zeros(runs)

    def keep(self, kept: np.ndarray) -> None:
        self.counts, self.blocks, self.won = self.counts[kept], self.blocks[kept], self.won[kept]

    def area(self) -> np.ndarray:
        """The AUC of all rows so far; 0 where a class has not come."""
        pairs: np.ndarray = self.blocks.sum(axis=2).astype(np.float64).prod(axis=1)
        return np.asarray(self.won / np.maximum(pairs, 1))

    def place(self, r: np.ndarray, truth: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Placements of one row of each of the runs r, which is then counted."""
        bins = grid(score)
        high, low, other = bins // BLOCK, bins % BLOCK, 1 - truth
        inside = self.counts[r, other, high]
        blocks = self.blocks[r, other]
        under = np.einsum("rb,rb->r", blocks, LESS[high]) + np.einsum("rb,rb->r", inside, UP_TO[low])
        under, total = under.astype(np.float64), blocks.sum(axis=1).astype(np.float64)
        self.counts[r, truth, high, low] += 1
        self.blocks[r, truth, high] += 1
        pairs = np.where(truth == 1, under, total - under)
        self.won[r] += pairs
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, pairs / total, np.nan)


def radii(n: np.ndarray, deviation: np.ndarray, alpha: float, best_at: int = 3000) -> np.ndarray:
    """`loudly.stats.confidence_sequence.radius`, for many."""
    rho2 = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha)) + 1) / best_at
    room, safe = n * rho2 + 1, np.maximum(n, 1)
    reach = deviation * np.sqrt(2 * room / (safe * safe * rho2) * np.log(np.sqrt(room) / alpha))
    return np.where(n < 2, np.inf, reach)


def _cautious(n: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`loudly.stats.confidence_sequence.cautious` for values within 1 of their mean: n, mean, variance."""
    return n, mean, deviation**2 + np.where(n > 1, 2 / np.maximum(n - 1, 1), 0.0)


class Rollouts:
    """Many rollouts of one strategy under way: state, and what has become of each."""

    def __init__(self, world: World, spec: RolloutSpec, traffic: Traffic, only: int | None = None) -> None:
        """only: the one end that counts, PROMOTED or ROLLED_BACK; both by default."""
        assert BLOCK * BLOCK == BINS
        self.world, self.spec, self.traffic, self.only = world, spec, traffic, only
        runs = traffic.at.shape[1]
        self.live = np.arange(runs)
        self.sides = [Side(runs) for _ in range(1 if spec.paired else 2)]
        self.seen = [Seen(runs) for _ in ARMS] if world.metric == "roc_auc" else []
        self.days = np.zeros((runs, world.days), dtype=bool)
        self.bucket = hashes([f"u{i}" for i in range(int(traffic.unit.max()) + 1)]) % BUCKETS
        self.first = _first_of_unit(traffic.unit) if not spec.paired else None
        self.units, self.off = np.zeros((runs, 2)), np.zeros(runs, dtype=bool)
        self.today = np.zeros(runs, dtype=np.int64)
        self.kept: dict[int, tuple[int, dict[str, Any]]] = {}
        self.fresh, self.last = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=np.int64)  # as `due` asks them
        self.over, self.q = np.zeros(runs, dtype=np.int64), np.zeros(runs)
        self.end, self.label, self.when = np.zeros(runs, dtype=np.int64), np.full(runs, -1), np.zeros(runs, dtype=np.int64)

    def run(self) -> Rollouts:
        """To the end."""
        for i in range(len(self.traffic.at)):
            if len(self.live) == 0:
                break
            at = self.traffic.at[i, self.live]
            over = at >= self.world.days * DAY
            midnight = np.minimum(at // DAY, self.world.days)
            if (midnight > self.today).any():
                self._look(np.flatnonzero((midnight > self.today) & (self.end[self.live] == 0) & self.fresh), i, midnight * DAY)
                self.fresh &= midnight <= self.today
                self._decide(i - 1, midnight > self.today, midnight * DAY)
                self.today = np.maximum(self.today, midnight)
            done = over | (self.end[self.live] != 0)
            if done.all() or (i % 64 == 0 and done.any()):
                self._drop(~done)
            if len(self.live):
                self._label(i)
        return self

    def _drop(self, kept: np.ndarray) -> None:
        parts: list[Side | Seen] = [*self.sides, *self.seen]
        for part in parts:
            part.keep(kept)
        for name in ("live", "days", "units", "off", "today", "fresh", "last", "over", "q"):
            setattr(self, name, getattr(self, name)[kept])

    def _label(self, i: int) -> None:
        t, live = self.traffic, self.live
        open_ = (self.end[live] == 0) & (t.at[i, live] < self.world.days * DAY)
        r = np.flatnonzero(open_)
        run, truth, arm = live[r], t.truth[i, live[r]], t.arm[i, live[r]]
        ranks, scores = self.world.metric == "roc_auc", (t.control[i, run], t.candidate[i, run])
        second = (1 - truth) if ranks else np.zeros_like(truth)
        bucket = self.bucket[t.unit[i, run]]
        self.days[r, t.day[i, run]] = True
        placed = [np.full(len(r), np.nan) for _ in ARMS]
        for index, score in enumerate(scores):
            mine = np.arange(len(r)) if self.spec.paired else np.flatnonzero(arm == index)
            if ranks:
                placed[index][mine] = self.seen[index].place(r[mine], truth[mine], score[mine])
            else:
                placed[index][mine] = -(score != truth)[mine].astype(float)
        if self.first is not None:
            self._count_units(i, r, run, arm)
        if not ranks or i + 1 > WARM_UP:
            values = [placed[1] - placed[0]] if self.spec.paired else placed
            for side, value in zip(self.sides, values, strict=True):
                known = np.isfinite(value)
                side.add(r[known], value[known], second[known], bucket[known])
            self.fresh[r] = True
            self._look(r[i + 1 >= 2 * self.last[r]], i + 1, t.at[i, live])
        self._decide(i, open_, t.at[i, live])

    def _count_units(self, i: int, r: np.ndarray, run: np.ndarray, arm: np.ndarray) -> None:
        """The sample ratio, each unit once."""
        new = self.first[i, run]  # type: ignore[index]
        self.units[r, arm] += new
        shares = np.array([1 - self.world.share, self.world.share])
        prior = CONCENTRATION * shares
        n = self.units
        log_e = (gammaln(prior + n) - gammaln(prior) - n * np.log(shares)).sum(axis=1)
        log_e -= gammaln(CONCENTRATION + n.sum(axis=1)) - gammaln(CONCENTRATION)
        self.off |= log_e >= np.log(1 / (GUARD * self.spec.alpha))

    def _bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Effect, low and high."""
        n, mean, variance = zip(*(_cautious(*side.stream()) for side in self.sides), strict=True)
        if len(n) == 1:
            effect, reach = mean[0], radii(n[0], np.sqrt(variance[0]), self.spec.alpha)
        else:
            both = np.where((n[0] > 1) & (n[1] > 1), n[0] + n[1], 0)
            error2 = sum(v / np.maximum(k, 1) for v, k in zip(variance, n, strict=True))
            effect, reach = mean[1] - mean[0], radii(both, np.sqrt(both * error2), self.spec.alpha)
            n = (both,)
        if self.seen:
            effect = self.seen[1].area() - self.seen[0].area()
        rows = np.sum([side.n.sum(axis=1) for side in self.sides], axis=0)
        reach = reach * self._wider(np.maximum(1.0, rows / np.maximum(1, n[0])))
        return effect, effect - reach, effect + reach

    def _wider(self, design: np.ndarray) -> np.ndarray:
        """`loudly.deliver.days.apart`, for many."""
        q, free, tail = self.q / design, np.maximum(1, self.over - 1), 1 - self.spec.alpha / 2
        wider = np.sqrt(q / free) * stdtrit(free, tail) / ndtri(tail)
        return np.where((self.over < 2) | (chdtrc(free, q) > HETEROGENEOUS), 1.0, wider)

    def _decide(self, i: int, may: np.ndarray, at: np.ndarray) -> None:
        spec, live = self.spec, self.live
        if i + 1 < spec.rows:
            return
        may = may & (self.end[live] == 0) & (self.days.sum(axis=1) >= spec.days) & ~self.off
        if not may.any():
            return
        _, low, high = self._bounds()
        passed = may & (low > -spec.margin)
        failed = may & ~passed & (high < 0)
        for k in np.flatnonzero(failed) if spec.paired else ():
            p = batches_p((by_day(self.kept[int(live[k])][1]).get(ALL) or {}).get("batches", []))
            failed[k] = p is None or p < spec.alpha
        for which, end in ((passed, PROMOTED), (failed, ROLLED_BACK)):
            which = which & (self.only in (None, end))
            run = live[which]
            self.end[run], self.label[run], self.when[run] = end, i, at[which]

    def _look(self, r: np.ndarray, labels: int, at: np.ndarray) -> None:
        """The days of each of the runs r with so many labels, by the product itself."""
        of, ranks, t = metric(self.world.metric), self.world.metric == "roc_auc", self.traffic
        for run, when, k in zip(self.live[r].tolist(), at[r].tolist(), r.tolist(), strict=True):
            done, kept = self.kept.get(run, (WARM_UP if ranks else 0, nothing_kept()))
            if labels > done:
                given = feedback(t, run, done, labels, self.spec.paired)
                shown = given.scores
                if of.loss is not None:
                    shown = {arm: np.where(np.isnan(score), np.nan, -of.loss(given.truth, score)) for arm, score in shown.items()}
                kept = kept_with(kept, given, shown, np.ones(len(given.truth), dtype=bool))
            kept = looked(kept, labels, when, ranks)
            self.kept[run], self.last[k] = (max(done, labels), kept), max(1, labels)
            self.over[k], self.q[k] = cochran(by_day(kept).get(ALL), 1.0)


def _first_of_unit(unit: np.ndarray) -> np.ndarray:
    out = np.zeros(unit.shape, dtype=bool)
    for run in range(unit.shape[1]):
        out[np.unique(unit[:, run], return_index=True)[1], run] = True
    return out


def patiently(world: World, spec: RolloutSpec, traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of paired rollouts, and when: ripe rows promote, whatever has come rolls back."""
    if not spec.wait:
        found = Rollouts(world, spec, traffic).run()
        return found.end, found.when
    back = Rollouts(world, spec, traffic, ROLLED_BACK).run()
    on = Rollouts(world, spec, ripened(traffic, spec.wait), PROMOTED).run()
    promoted = (on.end == PROMOTED) & ((back.end == UNDECIDED) | (on.when < back.when))
    return np.where(promoted, PROMOTED, back.end), np.where(promoted, on.when, back.when)


def served(strategy: Canary | Ab, world: World, traffic: Traffic, run: int, most: int) -> tuple[int, int, int]:
    """One run through the strategy itself, label by label up to `most`: its end, the label after which it came, and when."""
    spec = strategy.spec
    ripe = ripened(traffic, spec.wait) if spec.wait else None
    times = [traffic.at[:, run]] + ([ripe.at[:, run]] if ripe is not None else [])
    looks = [(int(at), which, i) for which, of in enumerate(times) for i, at in enumerate(of)]
    state, last = strategy.init(ARMS, 0), 0
    for at, which, i in sorted(looks):
        for day in range(last + 1, min(at // DAY, world.days) + 1):
            state, verdict = strategy.advance(state, day * DAY)
            if verdict.passed or verdict.failed:
                return (PROMOTED if verdict.passed else ROLLED_BACK), i - 1, day * DAY
        if at >= world.days * DAY or i >= most:
            break
        last = at // DAY
        rows = feedback(ripe if ripe is not None and which else traffic, run, i, i + 1, spec.paired)
        state, verdict = strategy.update(state, replace(rows, ripe=bool(which)))
        if verdict.passed or verdict.failed:
            return (PROMOTED if verdict.passed else ROLLED_BACK), i, at
    return UNDECIDED, -1, 0
