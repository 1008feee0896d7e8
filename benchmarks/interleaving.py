"""How many units do interleaving and an A/B test need to tell two rankings apart, and do they agree?

Simulated users read down a list with falling attention and click what they like. The worse ranking has neighbours of the better
one swapped; the smaller the swaps matter, the more units it takes. A/B: half of the units see each ranking, judged by clicks a
unit with the two-arm confidence sequence of the canary; interleaving: all units see a mixed list, judged by the sign e-process.
Both are looked at after every 100 units, at 5 %. Run: python benchmarks/interleaving.py
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from loudly.stats.confidence_sequence import Running, interval
from loudly.stats.interleave import Interleaved, Preference, probabilistic, team_draft

RUNS, LOOK, ITEMS = 40, 100, 10
MOST = {"team draft": 20_000, "probabilistic": 20_000, "A/B": 1_000_000}
LIKED = np.linspace(0.6, 0.05, ITEMS)
SEEN = 0.85 ** np.arange(ITEMS)
BEST = tuple(range(ITEMS))
PAIRS = {
    "halves swapped": (*BEST[5:], *BEST[:5]),
    "first two places with 3 and 4": (2, 3, 0, 1, *BEST[4:]),
    "neighbours swapped": (1, 0, 3, 2, 5, 4, 7, 6, 9, 8),
    "equal": BEST,
}


def interleaved(make: Callable[..., Interleaved], rng: np.random.Generator, pair: tuple[int, ...], most: int) -> tuple[str, int]:
    """The verdict and the units it took; the second ranking is the better one."""
    preference = Preference()
    for units in range(LOOK, most + 1, LOOK):
        credits_ = []
        for draws in rng.random((LOOK, 2 * ITEMS)):
            shown = make(pair, BEST, draws)
            places = np.flatnonzero(rng.random(ITEMS) < SEEN * LIKED[list(shown.items)])
            credits_.append(shown.credit(places.tolist()))
        preference = preference.add(credits_)
        verdict = preference.verdict(0.05)
        if verdict.passed or verdict.failed:
            return ("right" if verdict.passed else "wrong"), units
    return "undecided", most


def split(rng: np.random.Generator, pair: tuple[int, ...], most: int) -> tuple[str, int]:
    """The same by A/B. Units are drawn by many at a time late in the test, which spares time and looks."""
    arms = [Running(), Running()]
    units = 0
    while units < most:
        block = max(LOOK, units // 50 // 2 * 2)
        units += block
        for arm, ranking in enumerate((pair, BEST)):
            clicked = (rng.random((block // 2, ITEMS)) < SEEN * LIKED[list(ranking)]).sum(axis=1)
            arms[arm] = arms[arm].add(clicked.astype(np.float64))
        (low_a, high_a), (low_b, high_b) = (interval(arm, 0.025) for arm in arms)
        if low_b > high_a or high_b < low_a:
            return ("right" if low_b > high_a else "wrong"), units
    return "undecided", most


def run() -> None:
    """One line a pair and method."""
    for name, pair in PAIRS.items():
        print(f"{name}   (clicks a unit {float(SEEN @ LIKED[list(pair)]):.3f} against {float(SEEN @ LIKED):.3f})")
        medians = {}
        for method in MOST:
            most = 2_000 if name == "equal" else MOST[method]
            rng = np.random.default_rng(0)
            runs = range(5 * RUNS if name == "equal" and method == "A/B" else RUNS)
            make = team_draft if method == "team draft" else probabilistic
            ends = [split(rng, pair, most) if method == "A/B" else interleaved(make, rng, pair, most) for _ in runs]
            medians[method] = float(np.median([units for _, units in ends]))
            shares = "  ".join(f"{end} {np.mean([e == end for e, _ in ends]):6.1%}" for end in ("right", "wrong", "undecided"))
            ratio = f"   A/B needs {medians[method] / medians['team draft']:.0f}x as many as team draft" if method == "A/B" else ""
            told = "" if name == "equal" else f"   median {medians[method]:>9,.0f} units{ratio}"
            print(f"  {method:14} {shares}{told}")


if __name__ == "__main__":
    run()
