"""Traffic of a known law, rollouts by the thousand: rows, who answered them, what was answered, when each label comes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
from scipy.special import ndtr, ndtri

from loudly.core.clock import DAY
from loudly.core.seams import Feedback
from loudly.core.values import Arm
from loudly.labels.delays import Delays

ARMS = (Arm("control", "m/1"), Arm("candidate", "m/2"))


@dataclass(frozen=True, slots=True)
class World:
    """metric: "accuracy" or "roc_auc".  worse: of the candidate, in its units.

    labels: on time, late, late alike (by no class), very late, half late (half of a class), missing, missing by class.
    slow_only: the harm sits in the rows whose labels come late or are missing.  burst: rows of a unit, all alike.
    share: of the candidate, where arms are judged on what they answered.
    """

    metric: str
    worse: float
    labels: str = "on time"
    burst: int = 1
    slow_only: bool = False
    share: float = 0.5
    days: int = 14
    rows: int = 500


@dataclass(frozen=True, slots=True)
class Traffic:
    """Labels in order of arrival. All (labels, runs). at: µs, beyond the end where none comes.  asked: days.  day: whole days."""

    at: np.ndarray
    asked: np.ndarray
    day: np.ndarray
    unit: np.ndarray
    arm: np.ndarray
    truth: np.ndarray
    control: np.ndarray
    candidate: np.ndarray


POSITIVES, MISSED, FALSE_ALARMS = 0.3, 0.3, 0.15


def _wrong(rng: np.random.Generator, positive: np.ndarray, world: World) -> tuple[np.ndarray, np.ndarray]:
    """Decisions gone wrong: of control, and of a candidate that differs in a tenth of the rows and errs `worse` more often."""
    base = np.where(positive, MISSED, FALSE_ALARMS)
    control = rng.random(positive.shape) < base
    slow = _slow(positive, world.labels)
    more = np.where(slow, world.worse / (POSITIVES / (1 + (world.labels == "half late"))), 0.0) if world.slow_only else world.worse
    turned = np.where(control, 0.25, 0.25 * base / (1 - base) + more / (1 - base))
    return control, control ^ (rng.random(positive.shape) < turned)


def _scores(rng: np.random.Generator, positive: np.ndarray, world: World) -> tuple[np.ndarray, np.ndarray]:
    """Scores of AUC 0.76, and others of AUC 0.76 less `worse`."""
    good = 1.0
    bad = float(np.sqrt(2) * ndtri(ndtr(good / np.sqrt(2)) - world.worse))
    shared = rng.normal(0, 0.8, positive.shape)
    return tuple(1 / (1 + np.exp(-(d * positive + shared + rng.normal(0, 0.6, positive.shape)))) for d in (good, bad))  # type: ignore[return-value]


def drawn(world: World, runs: int, seed: int) -> Traffic:
    """The labels of `runs` rollouts."""
    rng = np.random.default_rng(seed)
    n = world.days * world.rows
    units = -(-n // world.burst)
    when = np.sort(rng.random((n, runs)), axis=0) * world.days
    positive = rng.random((units, runs)) < POSITIVES
    arm = rng.random((units, runs)) < world.share
    control, candidate = (_scores if world.metric == "roc_auc" else _wrong)(rng, positive, world)
    if world.metric == "accuracy":
        control, candidate = control ^ positive, candidate ^ positive
    unit = np.repeat(np.arange(units), world.burst)[:n]
    positive, arm, control, candidate = (column[unit] for column in (positive, arm, control, candidate))
    comes = when + _delay(rng, positive, world.labels)
    order = np.argsort(comes, axis=0, kind="stable")
    come = [np.take_along_axis(column, order, axis=0) for column in (comes, when, positive, arm, control, candidate)]
    at = np.minimum(come[0], 2.0 * world.days) * DAY
    return Traffic(
        at.astype(np.int64),
        come[1].astype(np.float32),
        come[1].astype(np.int16),
        unit[order].astype(np.int32),
        come[3].astype(np.int8),
        come[2].astype(np.int8),
        come[4].astype(np.float64 if world.metric == "roc_auc" else np.int8),
        come[5].astype(np.float64 if world.metric == "roc_auc" else np.int8),
    )


def _delay(rng: np.random.Generator, positive: np.ndarray, labels: str) -> np.ndarray:
    """Days from row to label; infinite where none comes. Labels of positives are the slow ones and those most often missing."""
    if labels == "late":
        return rng.exponential(np.where(positive, 3.0, 1.0))
    if labels == "late alike":
        return rng.exponential(1.6, positive.shape)
    if labels in ("very late", "half late"):
        return np.where(_slow(positive, labels), 8.0, 0.0)
    if labels in ("missing", "missing by class"):
        gone = np.where(positive, 0.6, 0.12 / 0.7) if labels == "missing by class" else 0.3
        return np.where(rng.random(positive.shape) < gone, np.inf, 0.0)
    return np.zeros(positive.shape)


def _slow(positive: np.ndarray, labels: str) -> np.ndarray:
    """Rows whose labels are the slow ones: positives, or every other row's of them."""
    return positive & (np.arange(len(positive)) % 2 == 0)[:, None] if labels == "half late" else positive


def ripened(traffic: Traffic, wait: int) -> Traffic:
    """The labels in the order in which their rows are ripe."""
    ripe = np.maximum(traffic.at, (traffic.asked.astype(np.float64) * DAY).astype(np.int64) + wait)
    order = np.argsort(ripe, axis=0, kind="stable")
    columns = {f.name: getattr(traffic, f.name) for f in fields(Traffic)} | {"at": ripe}
    return Traffic(**{name: np.take_along_axis(column, order, axis=0) for name, column in columns.items()})


def waits(world: World, days: int = 30) -> int:
    """How long rows are to wait, as so many days of the champion's labels tell beforehand."""
    before = drawn(replace(world, worse=0.0, days=days), 1, 99)
    delays, asked = Delays(30 * DAY), (before.asked[:, 0].astype(np.float64) * DAY).astype(np.int64)
    come = before.at[:, 0] <= days * DAY
    delays.answered(asked)
    delays.came(asked[come], before.at[come, 0] - asked[come], pl.Series(before.truth[come, 0]))
    return delays.known(days * DAY, DAY, 0.9).complete


def feedback(traffic: Traffic, run: int, first: int, last: int, paired: bool) -> Feedback:
    """The labels first..last of a run."""
    part = slice(first, last)
    arm = traffic.arm[part, run].astype(np.int64)
    scores = {
        a.name: np.where(paired | (arm == k), column[part, run].astype(np.float64), np.nan)
        for k, (a, column) in enumerate(zip(ARMS, (traffic.control, traffic.candidate), strict=True))
    }
    units, days = [f"u{u}" for u in traffic.unit[part, run]], traffic.day[part, run].astype(np.int64)
    return Feedback(int(traffic.at[first, run]), units, arm, traffic.truth[part, run].astype(np.float64), scores, {}, days)
