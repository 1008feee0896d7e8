"""A bandit against a world whose truth is known: what it lost by not knowing, and the log it left.

Rewards are 0 or 1 and come in batches, after a delay, as they do in service. A strategy of yours owes what the tests of ours ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from loudly.core.seams import Assignment, Feedback, Floats, Ints, Strategy
from loudly.core.values import Arm, Verdict

World = Callable[["np.random.Generator", int], "tuple[Floats | None, Floats]"]


@dataclass(frozen=True, slots=True)
class Played:
    """One life of a bandit, row by row.

    regret: (n,) what the best arm would have earned more, summed up to each row.  arm, propensity, reward: (n,) its log.
    best: (n,) whether the best arm answered.  verdicts: after each batch of rewards.
    """

    regret: Floats
    arm: Ints
    propensity: Floats
    reward: Floats
    best: Any
    verdicts: tuple[Verdict, ...]
    state: dict[str, Any]


def fixed(rates: tuple[float, ...]) -> World:
    """A world without context: each arm's rate of reward is constant."""

    def world(rng: np.random.Generator, n: int) -> tuple[Floats | None, Floats]:
        return None, np.tile(np.asarray(rates, dtype=np.float64), (n, 1))

    return world


def linear(theta: Floats) -> World:
    """A world where the reward of arm k is xᵀθ_k, x uniform on [0, 1] after a constant 1. Shapes: theta (k, d)."""

    def world(rng: np.random.Generator, n: int) -> tuple[Floats | None, Floats]:
        x = np.column_stack([np.ones(n), rng.random((n, theta.shape[1] - 1))])
        return x, np.clip(x @ theta.T, 0.0, 1.0)

    return world


def play(strategy: Strategy, world: World, rows: int, batch: int, rng: np.random.Generator, delay: int = 0) -> Played:
    """`rows` decisions in batches; the rewards of a batch come `delay` batches later."""
    arms = world(rng, 1)[1].shape[1]
    state = strategy.init(tuple(Arm(f"arm {k}" if k else "control", f"m/{k}") for k in range(arms)), 0)
    waiting: list[Feedback] = []
    made: list[tuple[Floats, Assignment, Floats, Any]] = []
    verdicts = []
    for at in range(rows // batch):
        context, means = world(rng, batch)
        given = strategy.assign(state, rng.random(batch), context)
        earned = np.take_along_axis(means, given.arm[:, None], axis=1)[:, 0]
        reward = (rng.random(batch) < earned).astype(np.float64)
        made.append((means.max(axis=1) - earned, given, reward, earned >= means.max(axis=1)))
        waiting.append(Feedback(at, [""] * batch, given.arm, reward, {}, {}, (), reward, given.propensity, context))
        if len(waiting) > delay:
            state, verdict = strategy.update(state, waiting.pop(0))
            verdicts.append(verdict)
    lost, assigned, rewarded, best = zip(*made, strict=True)
    arm, propensity = np.concatenate([a.arm for a in assigned]), np.concatenate([a.propensity for a in assigned])
    regret = np.cumsum(np.concatenate(lost))
    return Played(regret, arm, propensity, np.concatenate(rewarded), np.concatenate(best), tuple(verdicts), state)


def lai_robbins(rates: tuple[float, ...]) -> float:
    """The constant of the lower bound: regret of any consistent bandit grows as this times ln(n).

    Source: Lai & Robbins 1985, theorem 2, for Bernoulli arms: Σ Δ / KL(rate, best).

    >>> round(lai_robbins((0.9, 0.8)), 2)
    2.25
    """
    best = max(rates)
    worse = [r for r in rates if r < best]
    return float(sum((best - r) / _kl(r, best) for r in worse))


def ucb1_bound(rates: tuple[float, ...], rows: int) -> float:
    """The most that UCB1 loses in expectation. Source: Auer, Cesa-Bianchi & Fischer 2002, theorem 1."""
    gaps = [max(rates) - r for r in rates if r < max(rates)]
    return float(8 * sum(np.log(rows) / gap for gap in gaps) + (1 + np.pi**2 / 3) * sum(gaps))


def _kl(p: float, q: float) -> float:
    return float(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
