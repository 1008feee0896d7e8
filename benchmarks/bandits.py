"""What bandits lose by not knowing: regret after 10,000 rows, beside the bounds of the literature and two peers of the same run.

Rewards are 0 or 1, in batches of 10. Peers: an even spread, and Thompson sampling as it is usually written (one draw from each
posterior a row), which ours must equal, as it integrates what that one samples. `Lai-Robbins` is the constant × ln n that no
consistent bandit can beat for n without end (at 10,000 rows a good one may lie below); `Auer` the most UCB1 may lose.
The second table delays the rewards, the third has a context. Run: python benchmarks/bandits.py
"""

from __future__ import annotations

import numpy as np

from loudly.core.seams import Strategy
from loudly.deliver.bandit import BanditSpec
from loudly.deliver.epsilon_greedy import epsilon_greedy
from loudly.deliver.linear_thompson import linear_thompson
from loudly.deliver.linucb import linucb
from loudly.deliver.thompson import thompson
from loudly.deliver.ucb1 import ucb1
from loudly.testing.play import World, fixed, lai_robbins, linear, play, ucb1_bound

RUNS, ROWS, BATCH = 30, 10_000, 10
NONE = BanditSpec(floor=0.0)
PROBLEMS = {
    "0.9 0.8": (0.9, 0.8),
    "0.5 and nine 0.4": (0.5, *[0.4] * 9),
    "0.1, three 0.05, three 0.02, three 0.01": (0.1, *[0.05] * 3, *[0.02] * 3, *[0.01] * 3),
}
POLICIES: dict[str, Strategy] = {
    "Thompson, no floor": thompson(NONE),
    "Thompson, floor 5 %": thompson(),
    "UCB1, no floor": ucb1(NONE),
    "UCB1, floor 5 %": ucb1(),
    "epsilon-greedy 5 %": epsilon_greedy(),
    "epsilon-greedy, cooling": epsilon_greedy(NONE, cool=20.0),
    "even spread": epsilon_greedy(BanditSpec(floor=1.0)),
}
THETA = np.array([[0.5, 0.0, 0.0], [0.2, 0.6, 0.0], [0.2, 0.0, 0.6]])
CONTEXTUAL: dict[str, Strategy] = {
    "LinUCB, no floor": linucb(3, NONE),
    "LinUCB, floor 5 %": linucb(3),
    "linear Thompson, no floor": linear_thompson(3, NONE),
    "linear Thompson, floor 5 %": linear_thompson(3),
    "Thompson, blind to the context": thompson(NONE),
}


def sampled(rates: tuple[float, ...], rng: np.random.Generator) -> float:
    """Regret of Thompson sampling by one draw a row from each posterior, learning in the same batches."""
    truth, a, b, lost = np.asarray(rates), np.ones(len(rates)), np.ones(len(rates)), 0.0
    for _ in range(ROWS // BATCH):
        arm = rng.beta(a, b, (BATCH, len(rates))).argmax(axis=1)
        reward = rng.random(BATCH) < truth[arm]
        lost += float((truth.max() - truth[arm]).sum())
        a = a + np.bincount(arm[reward], minlength=len(rates))
        b = b + np.bincount(arm[~reward], minlength=len(rates))
    return lost


def lost(strategy: Strategy, world: World, batch: int = BATCH, delay: int = 0, runs: int = RUNS) -> str:
    """Mean regret with the error of the mean at 1,000 and at all rows."""
    lives = np.array(
        [play(strategy, world, ROWS, batch, np.random.default_rng(s), delay).regret[[999, ROWS - 1]] for s in range(runs)]
    )
    mean, error = lives.mean(axis=0), 1.96 * lives.std(axis=0) / np.sqrt(runs)
    return f"{mean[0]:7.1f} ± {error[0]:4.1f}   {mean[1]:7.1f} ± {error[1]:4.1f}"


def run() -> None:
    """The three tables."""
    for name, rates in PROBLEMS.items():
        print(f"arms {name}: regret after 1,000 and {ROWS:,} rows, {RUNS} runs")
        print(f"  {'Lai-Robbins':30} {lai_robbins(rates) * np.log(1000):7.1f}          {lai_robbins(rates) * np.log(ROWS):7.1f}")
        print(f"  {'Auer, bound of UCB1':30} {ucb1_bound(rates, 1000):7.1f}          {ucb1_bound(rates, ROWS):7.1f}")
        peer = np.array([sampled(rates, np.random.default_rng(seed)) for seed in range(RUNS)])
        print(f"  {'peer: Thompson by sampling':30} {'':18}{peer.mean():7.1f} ± {1.96 * peer.std() / np.sqrt(RUNS):4.1f}")
        for told, strategy in POLICIES.items():
            print(f"  {told:30} {lost(strategy, fixed(rates))}")
    print("arms 0.9 0.8, rewards come in batches of 100, and that many batches late")
    for delay in (0, 5, 20):
        for told in ("Thompson, no floor", "UCB1, no floor", "epsilon-greedy 5 %"):
            print(f"  {delay:3} late  {told:23} {lost(POLICIES[told], fixed((0.9, 0.8)), 100, delay)}")
    print("three arms, linear in a context of two features")
    for told, strategy in CONTEXTUAL.items():
        print(f"  {told:30} {lost(strategy, linear(THETA), 20, 0, 15)}")


if __name__ == "__main__":
    run()
