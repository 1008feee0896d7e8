"""What the router costs for one row: who answers, by every strategy that needs no context, and the answer of control alone.

The models answer a constant, so all that is timed is the router's own. The least of some repetitions is printed.

Of an A/B/n test also once an arm has left; of interleaving, which decides for lists of ten rows, what the merged list of one costs.

Run: python benchmarks/routing.py  (half a minute)
"""

from __future__ import annotations

import timeit
from collections.abc import Callable

import numpy as np
import polars as pl

from loudly.core.canon import unit_draw
from loudly.core.seams import Strategy
from loudly.core.values import Arm, Decision, Verdict
from loudly.deliver.ab import Ab
from loudly.deliver.ab_n import AbN
from loudly.deliver.canary import Canary
from loudly.deliver.dropping import without
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.interleave import probabilistic, team_draft
from loudly.deliver.rollout import parse_rollout
from loudly.deliver.shadow import shadow
from loudly.deliver.thompson import thompson
from loudly.deliver.ucb1 import ucb1
from loudly.metrics.table import metric
from loudly.serve.replies import Served, arm_names
from loudly.serve.router import Router, Routing

AUC = metric("roc_auc")
STRATEGIES: dict[str, tuple[Strategy, int]] = {
    "shadow": (shadow(parse_rollout("shadow 1d"), AUC), 2),
    "canary": (Canary(parse_rollout("canary 5% 100%", paired=False), AUC), 2),
    "ab": (Ab(parse_rollout("ab 50%"), AUC), 2),
    "ab of 5": (AbN(parse_rollout("ab among 5"), AUC), 5),
    "epsilon-greedy": (epsilon_greedy(), 2),
    "thompson": (thompson(), 2),
    "thompson of 5": (thompson(), 5),
    "ucb1": (ucb1(), 2),
}


LISTS, LENGTH = {"team draft": team_draft(), "probabilistic": probabilistic()}, 10
GONE = {"candidate": Verdict(Decision.FAIL, "ab", "surely worse")}


def microseconds(work: Callable[[], object]) -> float:
    """The least of nine times 4,000 calls."""
    return min(timeit.repeat(work, number=4000, repeat=9)) / 4000 * 1e6


def main() -> None:
    row, half = pl.DataFrame({"x": [1.0]}), Served("m/1", lambda rows: np.full(rows.height, 0.5))
    alone = Router(Routing(half))
    print(f"control alone        answer {microseconds(lambda: alone.answer(row, ['u'])):5.1f} µs")
    for name, (strategy, arms) in STRATEGIES.items():
        state = strategy.init(tuple(Arm(arm, "m/1") for arm in arm_names(arms)), 0)
        router = Router(Routing(half, (half,) * (arms - 1), strategy, state, "salt"))
        decided = microseconds(lambda s=strategy, at=state: s.assign(at, np.array([unit_draw("u", "salt")])))  # type: ignore[misc]
        answered = microseconds(lambda r=router: r.answer(row, ["u"]))  # type: ignore[misc]
        print(f"{name:<15} decision {decided:5.1f} µs   answer {answered:5.1f} µs")
    test, arms = STRATEGIES["ab of 5"]
    left = without(test.init(tuple(Arm(arm, "m/1") for arm in arm_names(arms)), 0), GONE)
    print(f"ab of 5, 1 left decision {microseconds(lambda: test.assign(left, np.array([unit_draw('u', 'salt')]))):5.1f} µs")
    scores = [np.random.default_rng(arm).random(LENGTH) for arm in range(2)]
    for name, merging in LISTS.items():
        both = merging.init(tuple(Arm(arm, "m/1") for arm in arm_names(2)), 0)
        merged = microseconds(lambda m=merging, at=both: m.merge(at, scores, "q", "salt"))  # type: ignore[misc]
        print(f"{name:<15} a list of {LENGTH} {merged:5.1f} µs, {merged / LENGTH:4.1f} µs a row")


if __name__ == "__main__":
    main()
