"""What would Thompson sampling have earned? Told from a log of random choices, and held against what it did earn.

Open Bandit Dataset (ZOZO, 2019): a fashion shop showed items at three places, chosen at random for some users and by Thompson
sampling for others. Its policy moved during the week; the target is its average: how often it chose each item at each place.
Both sides are samples of 10,000 views with some 40 to 70 clicks, so both have wide intervals; the gap is what is judged.
The way back, random from Thompson's log, shows what poor overlap looks like. Run: python benchmarks/off_policy.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from loudly.core.values import Evidence
from loudly.stats.off_policy import Logged, dr, ips, snips

DATA = Path(__file__).parents[2] / "shared" / "data" / "obd_small"
CAMPAIGNS = ("all", "men", "women")
PRIOR = 50.0


def views(policy: str, campaign: str) -> pl.DataFrame:
    """One policy's log: item, place, click, propensity."""
    columns = ["item_id", "position", "click", "propensity_score"]
    return pl.read_csv(DATA / policy / campaign / f"{campaign}.csv.gz", columns=columns)


def cells(table: pl.DataFrame, items: int) -> np.ndarray:
    """(n,) the number of each view's place and item."""
    return np.asarray((table["position"].to_numpy() - 1) * items + table["item_id"].to_numpy())


def model(table: pl.DataFrame, items: int, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Click rates of every cell shrunk to the mean, as foreseen by the other half of the log; (2, cells) and the mean."""
    cell, click = cells(table, items), table["click"].to_numpy()
    made = []
    for half in (0, 1):
        rows = fold != half
        mean = click[rows].mean()
        seen, clicked = (np.bincount(cell[rows], w, 3 * items) for w in (np.ones(rows.sum()), click[rows]))
        made.append((clicked + PRIOR * mean) / (seen + PRIOR))
    return np.array(made), fold


def estimates(log: pl.DataFrame, policy: np.ndarray, items: int) -> list[Evidence]:
    """IPS, SNIPS and DR of a target policy given as (3, items) probabilities."""
    cell, place = cells(log, items), log["position"].to_numpy() - 1
    rates, fold = model(log, items, np.random.default_rng(0).integers(0, 2, log.height))
    foreseen = rates[fold, cell]
    expected = (policy[None] * rates.reshape(2, 3, items)).sum(axis=2)[fold, place]
    logged = Logged(log["click"].to_numpy().astype(float), log["propensity_score"].to_numpy(), policy.reshape(-1)[cell])
    return [ips(logged), snips(logged), dr(logged, expected, foreseen)]


def shares(log: pl.DataFrame, items: int) -> np.ndarray:
    """(3, items) how often each item was chosen at each place."""
    seen = np.bincount(cells(log, items), minlength=3 * items).reshape(3, items)
    return np.asarray(seen / seen.sum(axis=1, keepdims=True))


def told(found: Evidence, truth: np.ndarray) -> str:
    """One line: the estimate, the gap to what was earned with its interval, and what is wrong with it."""
    half = (found.high - found.low) / 2 if found.low is not None and found.high is not None else float("nan")
    earned, error = truth.mean(), 1.96 * truth.std(ddof=1) / np.sqrt(len(truth))
    gap, reach = (found.effect or float("nan")) - earned, np.hypot(half, error)
    agrees = "agrees" if abs(gap) <= reach else "DISAGREES"
    line = f"    {found.method:6} {found.effect:.3%} [{found.low:.3%}, {found.high:.3%}]   gap {gap:+.3%} ± {reach:.3%}  {agrees}"
    warnings = found.detail["warnings"]
    assert isinstance(warnings, list)
    return "\n".join([f"{line}   ({found.n:,} rows worth {found.detail['effective']:,.0f})", *(f"      {w}" for w in warnings)])


def run() -> None:
    """All campaigns, both ways."""
    if not DATA.exists():
        print("LOUD: skipped, no Open Bandit data beside this repository (looked in ../shared/data/obd_small)")
        return
    for campaign in CAMPAIGNS:
        random, thompson = views("random", campaign), views("bts", campaign)
        items = int(max(random["item_id"].max(), thompson["item_id"].max())) + 1  # type: ignore[type-var, arg-type]
        for name, log, target, other in (("Thompson", random, thompson, "random"), ("random", thompson, random, "Thompson")):
            truth = target["click"].to_numpy().astype(float)
            error = 1.96 * truth.std(ddof=1) / np.sqrt(len(truth))
            print(f"{campaign}: what {name} earned, {truth.mean():.3%} ± {error:.3%} of views, told from the {other} log")
            policy = shares(target, items) if name == "Thompson" else np.full((3, items), 1 / items)
            for found in estimates(log, policy, items):
                print(told(found, truth))


if __name__ == "__main__":
    run()
