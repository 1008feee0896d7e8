"""Is the candidate late? Slow calls by the arm they came from, held against what control itself has shown.

The first calls of control freeze a limit: `SLOW` times their 95th percentile, for each order of magnitude of rows a call. From
then on a call above its limit is an event, and the exact which-arm e-process asks whether the candidate has more of them than
its share of calls: a slow machine slows both arms and stops nobody. Plain data, folded call by call.

Source: the e-process of Lindon, Sanden & Shirikian 2022 (KDD) on events "later than the control's frozen percentile".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from loudly.core.seams import Calls
from loudly.core.values import Evidence
from loudly.stats.arm_process import ArmProcess, arm_process_of

CONTROL, CANDIDATE = "control", "candidate"
WARM_UP = 100
SLOW = 1.5


def nothing_timed() -> dict[str, Any]:
    """Before the first call."""
    return {"warm": {}, "limits": {}, "slow": ArmProcess().plain(), "calls": {CONTROL: 0, CANDIDATE: 0}}


def add_calls(timed: Mapping[str, Any], calls: Calls, share: float) -> dict[str, Any]:
    """One request more: how many rows each arm scored in it, and how long that took. An arm without seconds was not called.

    share: the candidate's chance of being the one that is called, where only one of them is.
    """
    warm, limits, seen = dict(timed["warm"]), dict(timed["limits"]), dict(timed["calls"])
    slow = {CONTROL: 0, CANDIDATE: 0}
    counted = {CONTROL: 0, CANDIDATE: 0}
    for arm, spent in calls.seconds.items():
        size = str(max(0, calls.answered.get(arm, 0) - 1).bit_length())
        if size in limits:
            counted[arm] += 1
            slow[arm] += spent > limits[size]
        elif arm == CONTROL:
            warm[size] = [*warm.get(size, ()), spent]
            if len(warm[size]) == WARM_UP:
                limits[size] = SLOW * float(np.quantile(warm.pop(size), 0.95))
    both = counted[CONTROL] and counted[CANDIDATE]
    process = arm_process_of(timed["slow"]).add(slow[CANDIDATE], slow[CONTROL], 0.5 if both else share)
    seen = {arm: seen[arm] + counted[arm] for arm in seen}
    return {"warm": warm, "limits": limits, "slow": process.plain(), "calls": seen}


def late(timed: Mapping[str, Any], alpha: float) -> Evidence | None:
    """Evidence that the candidate is surely late more often than control, or None."""
    process, calls = arm_process_of(timed["slow"]), timed["calls"]
    total = calls[CONTROL] + calls[CANDIDATE]
    if total == 0 or not process.worse(alpha, calls[CANDIDATE] / total):
        return None
    n = process.candidate + process.control
    return Evidence("which arm was slow", process.candidate / n, n=n, about="latency", unit="share of slow calls", tolerance=SLOW)
