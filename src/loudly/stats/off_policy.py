"""What another policy would have earned, told from the log of this one.

Each logged decision carries its propensity, the probability with which the logging policy took it. Rows that the target
policy would have taken more often count more. `ips` weights, `snips` divides by the sum of the weights (a little biased, much
steadier), `dr` weights only what a model of the rewards got wrong (right when the propensities *or* the model are). Where the
target goes where the log hardly went, no estimate is worth much, and the evidence says so aloud, in `detail["warnings"]`.

Logs of a bandit are dependent rows: its propensities were made from earlier rewards. The estimates stay unbiased; intervals by
Student's t are then approximate, `ips_exact` stays exact.

Source: Horvitz & Thompson 1952; Swaminathan & Joachims 2015 (SNIPS); Dudík, Langford & Li 2011 (DR); Kong 1992 (effective
sample size). Intervals: of the mean, with Student's t, for `ips` and `dr`; leave-one-out jackknife (Quenouille 1956; Tukey
1958) for `snips`, whose linearised error is too small where a few weights dominate; `ips_exact` by betting (stats/betting).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from loudly.core.canon import Json, finite
from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.errors import DataError
from loudly.stats.betting import Betting

FEWEST_EFFECTIVE = 100
LEAST_SHARE = 0.05
LARGEST_WEIGHT = 0.05
FEWEST_EVENTS = 10
ERRORS_OFF = 4.0


@dataclass(frozen=True, slots=True)
class Logged:
    """Decisions of a logging policy and what a target policy thinks of them.

    reward: (n,) what came of each.  propensity: (n,) probability of the decision as logged.  target: (n,) its probability
    under the target policy, in the same context.
    Raises: DataError for lengths that differ, propensities outside (0, 1], rewards or targets that are no numbers.
    """

    reward: Floats
    propensity: Floats
    target: Floats

    def __post_init__(self) -> None:
        n = len(self.reward)
        if n < 2 or len(self.propensity) != n or len(self.target) != n:
            seen = f"{n} rewards, {len(self.propensity)} propensities, {len(self.target)} targets"
            raise DataError("A log has two rows or more, each with reward, propensity and target.", seen=seen)
        if not ((self.propensity > 0) & (self.propensity <= 1)).all():
            do = "Log the probability of every decision; a policy without chance cannot be judged by another's log."
            raise DataError("A logged propensity is above 0 and at most 1.", seen=f"least {self.propensity.min():g}", do=do)
        if not ((self.target >= 0) & (self.target <= 1)).all() or not np.isfinite(self.reward).all():
            raise DataError("A target is in [0, 1] and a reward is a number.", do="Leave out rows whose reward has not come.")

    @property
    def weights(self) -> Floats:
        """(n,) target over propensity; their mean is 1 where the log covers all that the target does."""
        return np.asarray(self.target / self.propensity, dtype=np.float64)


def ips(log: Logged, confidence: float = 0.95) -> Evidence:
    """Inverse propensity score: the mean of weight × reward. Unbiased; wild where weights are.

    >>> rng = np.random.default_rng(0)
    >>> action = rng.integers(0, 2, 4000)
    >>> log = Logged((rng.random(4000) < 0.1 + 0.2 * action) * 1.0, np.full(4000, 0.5), np.where(action == 1, 0.9, 0.1))
    >>> found = ips(log)
    >>> found.low < 0.28 < found.high
    True
    """
    value, low, high = _mean(log.weights * log.reward, confidence)
    return _told("IPS", log, value, low, high, confidence)


def ips_exact(log: Logged, largest: float, confidence: float = 0.95) -> Evidence:
    """IPS with an interval that is exact and valid at every look: by betting, for rewards in [0, 1].

    largest: a bound on the weights known beforehand (the floor of the logging policy gives one: 1 / its least propensity).
    Raises: DataError where a weight is above it.
    """
    if log.weights.max() > largest:
        raise DataError("A weight is above its bound.", seen=f"{log.weights.max():g} > {largest:g}")
    stream = Betting(1 - confidence).add(log.weights * log.reward / largest)
    return _told("IPS, by betting", log, stream.mean * largest, stream.low * largest, stream.high * largest, confidence)


def snips(log: Logged, confidence: float = 0.95) -> Evidence:
    """Self-normalised IPS: weight × reward over the sum of weights. In the range of the rewards; the one to begin with."""
    weights = log.weights
    total, earned = float(weights.sum()), float((weights * log.reward).sum())
    if total <= 0:
        return _told("SNIPS", log, float("nan"), -float("inf"), float("inf"), confidence)
    n = len(weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        without = (earned - weights * log.reward) / (total - weights)
    known = np.where(np.isfinite(without), without, earned / total)
    error = float(np.sqrt((n - 1) * ((known - known.mean()) ** 2).mean()))
    reach = _quantile(log, confidence) * error
    return _told("SNIPS", log, earned / total, earned / total - reach, earned / total + reach, confidence)


def dr(log: Logged, expected: Floats, foreseen: Floats, confidence: float = 0.95) -> Evidence:
    """Doubly robust: what a model expects of the target policy, corrected by weighted errors of the model on the log.

    expected: (n,) the model's mean reward of the target policy in each context.  foreseen: (n,) of the logged decision.
    The model must not have seen the rows it is used on (cross-fit it), or the interval is too narrow.
    """
    if len(expected) != len(log.reward) or len(foreseen) != len(log.reward):
        raise DataError("A reward model foresees every logged row.", seen=f"{len(expected)} and {len(foreseen)}")
    value, low, high = _mean(expected + log.weights * (log.reward - foreseen), confidence)
    return _told("DR", log, value, low, high, confidence)


def effective(weights: Floats) -> float:
    """Kong's effective sample size, (Σw)² / Σw²: as many rows drawn from the target itself would tell about as much.

    >>> effective(np.ones(10)), round(effective(np.array([100.0] + [1.0] * 99)), 1)
    (10.0, 3.9)
    """
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def overlap_warnings(log: Logged) -> tuple[str, ...]:
    """Why an estimate from this log should not be believed, one text each; empty where nothing is wrong."""
    weights, n = log.weights, len(log.reward)
    total, worth = float(weights.sum()), effective(weights)
    if total <= 0:
        return ("LOUD: the target policy takes none of the logged decisions; the log says nothing about it",)
    warnings = []
    if worth < FEWEST_EFFECTIVE or worth < LEAST_SHARE * n:
        warnings.append(f"LOUD: poor overlap: {n:,} rows are worth {worth:,.0f}; the target goes where the log hardly went")
    if weights.max() / total > LARGEST_WEIGHT:
        warnings.append(f"LOUD: one row carries {weights.max() / total:.0%} of all weight")
    error = float(weights.std(ddof=1)) / np.sqrt(n)
    if abs(weights.mean() - 1) > ERRORS_OFF * error + 1e-9:
        warnings.append(
            f"LOUD: the mean weight is {weights.mean():.3f}, not 1 (standard error {error:.3f}): propensities are wrong, "
            "or the target goes where the log never went"
        )
    events = effective(weights * np.abs(log.reward - np.median(log.reward)))
    if events < FEWEST_EVENTS:
        warnings.append(f"LOUD: the estimate hangs on {events:.1f} rewarded rows; its interval is a guess")
    return tuple(warnings)


def _mean(values: Floats, confidence: float) -> tuple[float, float, float]:
    value, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = float(scipy.special.stdtrit(max(1, len(values) - 1), 0.5 + confidence / 2)) * error
    return value, value - reach, value + reach


def _quantile(log: Logged, confidence: float) -> float:
    return float(scipy.special.stdtrit(max(1.0, effective(log.weights) - 1), 0.5 + confidence / 2))


def _told(method: str, log: Logged, value: float, low: float, high: float, confidence: float) -> Evidence:
    weights, warnings = log.weights, overlap_warnings(log)
    detail: dict[str, Json] = {
        "effective": effective(weights),
        "mean_weight": float(weights.mean()),
        "largest_weight": float(weights.max()),
        "warnings": list(warnings),
    }
    ends = finite(low), finite(high)
    return Evidence(method, finite(value), *ends, len(weights), "the target policy", "reward", confidence, detail=detail)
