"""Errors of requests: a candidate at 10 %, 100,000 requests, by the guard that serves and by peers that look every 500 requests.

The guard looks after every failure. Its e-process runs here over all failures of all runs at once; `same` puts runs through
`Failing` and the canary itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rollout_traffic import ARMS
from sequential_tests import constant, shape

from loudly.core.seams import Calls
from loudly.deliver.canary import Canary
from loudly.deliver.evidence import ERRORS
from loudly.deliver.failing import Failing
from loudly.deliver.rollout import parse_rollout
from loudly.metrics.table import metric
from loudly.stats.arm_process import RATIOS, STAKES

REQUESTS, LOOK, SHARE, ALPHA = 100_000, 500, 0.1, 0.05
NEVER = np.iinfo(np.int64).max
# Flagger: at most 1 % of the requests of an interval may fail; five failed checks roll back.
MOST_FAILED, CHECKS = 0.01, 5
LOOKS = REQUESTS // LOOK
CANARY = Canary(parse_rollout("canary 10% 50% 100%", paired=False), metric("accuracy"))


@dataclass(frozen=True, slots=True)
class Failures:
    """Users who fail, in order, for many runs: when (the request after which it is seen), whose; and counts by look.

    at, candidate: (failures, runs).  n, errors: (looks, runs, arms) so far. Each user sends `burst` requests, one after the other.
    """

    at: np.ndarray
    candidate: np.ndarray
    n: np.ndarray
    errors: np.ndarray
    burst: int


def drawn(rates: tuple[float, float], runs: int, seed: int, burst: int = 1) -> Failures:
    """rates: of users who fail, with control and with the candidate."""
    rng = np.random.default_rng(seed)
    users, each = REQUESTS // burst, LOOK // burst
    of_candidate = rng.binomial(each, SHARE, (LOOKS, runs))
    failed = [rng.binomial(n, rate) for n, rate in zip((each - of_candidate, of_candidate), rates, strict=True)]
    most = int((failed[0] + failed[1]).sum(axis=0).max())
    at, candidate = np.full((most, runs), NEVER), np.zeros((most, runs), dtype=bool)
    for run in range(runs):
        arm = np.concatenate([np.repeat([0, 1], [failed[0][k, run], failed[1][k, run]]) for k in range(LOOKS)])
        when = np.repeat(np.arange(LOOKS), (failed[0] + failed[1])[:, run]) * each + rng.integers(0, each, len(arm))
        order = np.argsort(when, kind="stable")
        at[: len(arm), run], candidate[: len(arm), run] = (when[order] + 1) * burst, arm[order]
    assert users == LOOKS * each
    n = np.stack([each - of_candidate, of_candidate], axis=2).cumsum(axis=0) * burst
    return Failures(at, candidate, n, np.stack(failed, axis=2).cumsum(axis=0) * burst, burst)


def guard(failures: Failures, by_request: bool = False) -> np.ndarray:
    """After how many requests the candidate is rolled back. by_request: every request counted, as if it were a unit."""
    times = failures.burst if by_request else 1
    mine = failures.candidate.cumsum(axis=0) * times
    total = np.arange(1, len(mine) + 1)[:, None] * times
    log_e = np.full(mine.shape, -np.inf)
    for ratio, stake in zip(RATIOS, STAKES, strict=True):
        log_e = np.logaddexp(log_e, np.log(stake) + mine * np.log(ratio) - total * np.log(1 - SHARE + ratio * SHARE))
    over = (log_e >= np.log(1 / (ERRORS * ALPHA))) & (mine > SHARE * total) & (failures.at < NEVER)
    return _first(over, failures.at)


def same(failures: Failures, runs: int) -> bool:
    """Whether the first runs end at the same request through `Failing` and the canary's own `observe`."""
    found = guard(failures)
    return all(_served(failures, run) == found[run] for run in range(runs))


def _served(failures: Failures, run: int) -> int:
    state, failing = CANARY.init(ARMS, 0), Failing()
    for i, at in enumerate(failures.at[:, run]):
        for _ in range(failures.burst if at < NEVER else 0):
            arm = int(failures.candidate[i, run])
            failing, first = failing.add(f"u{i}")
            state, verdict = CANARY.observe(state, Calls({"control": 900, "candidate": 100}, {ARMS[arm].name: int(first)}))
            if verdict.failed:
                return int(at)
    return NEVER


def z_of(failures: Failures) -> tuple[np.ndarray, np.ndarray]:
    """The two-proportion z of candidate against control, and the variance of the difference, at every look."""
    n, errors = failures.n, failures.errors
    pooled = errors.sum(axis=2) / n.sum(axis=2)
    variance = pooled * (1 - pooled) * (1 / np.maximum(n, 1)).sum(axis=2)
    gap = errors[:, :, 1] / np.maximum(n[:, :, 1], 1) - errors[:, :, 0] / n[:, :, 0]
    return np.where(variance > 0, gap / np.sqrt(np.maximum(variance, 1e-300)), 0.0), variance


def peers(failures: Failures) -> dict[str, np.ndarray]:
    """Name -> after how many requests each run is rolled back."""
    z, variance = z_of(failures)
    at = np.broadcast_to((np.arange(LOOKS) + 1)[:, None] * LOOK, z.shape)
    last, tau2 = np.arange(LOOKS) == LOOKS - 1, 0.005**2
    mixture = np.sqrt((variance + tau2) / tau2 * (2 * np.log(1 / ALPHA) + np.log((variance + tau2) / np.maximum(variance, 1e-12))))
    step = np.diff(np.concatenate([np.zeros((1, *z.shape[1:], 2)), failures.errors]), axis=0)[:, :, 1]
    asked = np.diff(np.concatenate([np.zeros((1, *z.shape[1:], 2)), failures.n]), axis=0)[:, :, 1]
    bad = (step > MOST_FAILED * asked).cumsum(axis=0) >= CHECKS
    found = {"naive z, every 500": _first(z > 1.96, at), "Flagger-style threshold 1 %": _first(bad, at)}
    found["fixed sample, one look at 100,000"] = _first((z > 1.96) & last[:, None], at)
    for kind, name in (("obrien-fleming", "O'Brien-Fleming, 10 looks"), ("pocock", "Pocock, 10 looks")):
        bound = np.full(LOOKS, np.inf)
        bound[LOOKS // 10 - 1 :: LOOKS // 10] = constant(kind, 10) * shape(kind, 10)
        found[name] = _first(z > bound[:, None], at)
    return found | {"mSPRT, every 500": _first((z > mixture) & (variance > 0), at)}


def _first(over: np.ndarray, at: np.ndarray) -> np.ndarray:
    first = over.argmax(axis=0)
    return np.where(over.any(axis=0), at[first, np.arange(over.shape[1])], NEVER)
