"""Rankings in one list: clicks choose between them where users would not notice, with far fewer of them than A/B.

`team_draft` lets the rankings pick in turn, a coin says who picks first in each round; a click is credited to the ranking whose
pick it was. `multileave` is the same for several rankings, in an order drawn for each round: any two of them stand as high as each
other on average, whatever the others rank, so each pair is judged by the clicks on its own picks. `probabilistic` draws each place
from one of two soft rankings, so that every list is possible and credit can also be shared out by how likely each ranking was to
have given the item (`Interleaved.shared`).

`Preference` is the verdict: per unit, who got more credit? A sign e-process on the winners (a mixture of Betas against 1/2)
may be looked at after every unit. Give it one outcome a unit; clicks of one unit are not independent.

Source: Radlinski, Kurup & Joachims 2008, "How does clickthrough data reflect retrieval quality?", algorithm 2 (CIKM); Hofmann,
Whiteson & de Rijke 2011, "A probabilistic method for inferring preferences from clicks", eq. (1), (4)-(6) (CIKM); Schuth, Sietsma,
Whiteson, Lefortier & de Rijke 2014, "Multileaved comparisons for fast online evaluation", algorithm 1 (CIKM); the mixture as in
stats/sample_ratio.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.errors import DataError
from loudly.stats.sample_ratio import SampleRatio, sample_ratio_of

TAU = 3.0
CONCENTRATION = 20.0


@dataclass(frozen=True, slots=True)
class Interleaved:
    """One list as shown. items: in order.  teams: from 0, whose pick each item was.  second: probability that it was 1's.

    chances: of that team to pick that item for that place, given all picks above it; their product is that of the list.
    Of a probabilistic list `second` is 1/2 where both rankings were as likely to show the item there: a click on it tells nothing.
    """

    items: tuple[Any, ...]
    teams: tuple[int, ...]
    second: tuple[float, ...]
    chances: tuple[float, ...] = ()

    def credit(self, clicked: Iterable[int], team: int = 1) -> int:
        """Clicks (as places from 0) of a ranking, the second, minus those of the first; the sign is the winner.

        >>> Interleaved(("x", "y", "z"), (0, 1, 1), (0.5, 1.0, 0.8)).credit([1, 2, 0])
        1
        """
        return sum((self.teams[place] == team) - (self.teams[place] == 0) for place in set(clicked))

    def shared(self, clicked: Iterable[int]) -> float:
        """The same in expectation over who could have picked each item: less noise. Judge its mean, not its sign."""
        return float(sum(2 * self.second[place] - 1 for place in set(clicked)))

    def plain(self) -> dict[str, Any]:
        """As plain JSON: what must be logged for credit to be given when clicks come."""
        picked = {"teams": list(self.teams), "second": list(self.second), "chances": list(self.chances)}
        return {"items": list(self.items), **picked}


def interleaved_of(data: Mapping[str, Any]) -> Interleaved:
    """The inverse of `Interleaved.plain`."""
    return Interleaved(tuple(data["items"]), tuple(data["teams"]), tuple(data["second"]), tuple(data.get("chances", ())))


def team_draft(first: Sequence[Any], second: Sequence[Any], draws: Floats, length: int | None = None) -> Interleaved:
    """Team-draft interleaving: in each round both rankings pick their best item that is not yet shown, in the order of a coin.

    draws: (length,) numbers in [0, 1), one a round is used.  Raises: DataError for doubled items or too few draws.

    >>> team_draft(("a", "b", "c"), ("b", "a", "d"), np.array([0.9, 0.1, 0.1]), 3).items
    ('b', 'a', 'c')
    """
    return multileave((first, second), draws, length)


def multileave(rankings: Sequence[Sequence[Any]], draws: Floats, length: int | None = None) -> Interleaved:
    """Team-draft multileaving: in each round every ranking picks its best item that is not yet shown, in an order that is drawn.

    draws: (length,) numbers in [0, 1), one a round is used.  Raises: DataError for doubled items or too few draws.

    >>> multileave(("abc", "bca", "cab"), np.array([0.9, 0.1, 0.1])).items
    ('c', 'b', 'a')
    """
    rankings = _checked(*rankings)
    wanted, most = _length(rankings, length, draws), len(rankings)
    left, shown = tuple(map(iter, rankings)), set[Any]()
    items, teams, chances = list[Any](), list[int](), list[float]()
    for draw in draws[:wanted]:
        for turn, team in enumerate(_order(float(draw), most)):
            pick = next((item for item in left[team] if item not in shown), None)
            if pick is not None and len(items) < wanted:
                shown.add(pick)
                items.append(pick)
                teams.append(team)
                chances.append(1 / (most - turn))
    return Interleaved(tuple(items), tuple(teams), tuple(float(team == 1) for team in teams), tuple(chances))


def _order(draw: float, most: int) -> list[int]:
    """One of the permutations of so many, each for a like share of the draws (by its Lehmer code)."""
    code, left, order = int(draw * math.factorial(most)), list(range(most)), list[int]()
    for rest in range(most - 1, -1, -1):
        place, code = divmod(code, math.factorial(rest))
        order.append(left.pop(place))
    return order


def probabilistic(
    first: Sequence[Any], second: Sequence[Any], draws: Floats, length: int | None = None, tau: float = TAU
) -> Interleaved:
    """Probabilistic interleaving: a coin chooses a ranking for each place, which draws an item with weight 1 / rank^tau.

    draws: (2 × length,) numbers in [0, 1): a coin and an item a place.  Items a ranking has not are below all it has.
    Raises: DataError for doubled items or too few draws.
    """
    rankings = _checked(first, second)
    items = list(dict.fromkeys((*first, *second)))
    wanted = _length(rankings, length, draws[::2])
    ranks = [{item: rank for rank, item in enumerate(ranking, 1)} for ranking in rankings]
    weights = np.array([[rank.get(item, len(rank) + 1) ** -tau for item in items] for rank in ranks])
    shown, teams = list[int](), list[int]()
    sure, chances = list[float](), list[float]()
    for place in range(wanted):
        soft = weights / weights.sum(axis=1, keepdims=True)
        team = int(draws[2 * place] >= 0.5)
        ends = np.cumsum(soft[team])
        pick = int(np.searchsorted(ends[:-1] / ends[-1], draws[2 * place + 1], side="right"))
        shown.append(pick)
        teams.append(team)
        sure.append(float(soft[1, pick] / soft[:, pick].sum()))
        chances.append(float(soft[team, pick]) / 2)
        weights[:, pick] = 0.0
    return Interleaved(tuple(items[pick] for pick in shown), tuple(teams), tuple(sure), tuple(chances))


@dataclass(frozen=True, slots=True)
class Preference:
    """Which ranking units prefer, so far. wins: of the first and of the second, ties left out.  ties: units without a winner.

    >>> Preference().add([1] * 60 + [-1] * 20 + [0] * 500).verdict(0.05).decision
    <Decision.PASS: 'PASS'>
    """

    wins: SampleRatio = field(default_factory=lambda: SampleRatio((0.5, 0.5), concentration=CONCENTRATION))
    ties: int = 0

    def add(self, credits_: Iterable[float]) -> Preference:
        """More units: the credit of each, above 0 where the second ranking won. The peak follows every one of them."""
        credit = np.fromiter(credits_, dtype=np.float64)
        won = credit[credit != 0] > 0
        return Preference(self.wins.follow(won.astype(np.int64)), self.ties + len(credit) - len(won))

    def count(self, lost: int, won: int, ties: int) -> Preference:
        """More units at once, by how many the second ranking has lost and won: one look at all of them."""
        return Preference(self.wins.add((lost, won)), self.ties + ties)

    def verdict(
        self, alpha: float, subject: str = "interleaving", rankings: tuple[str, str] = ("control", "candidate"), margin: float = 0.0
    ) -> Verdict:
        """PASS: units surely prefer the second ranking, or lose at most `margin` of the wins by it. FAIL: surely the first."""
        first, second = self.wins.counts or (0, 0)
        n, total = first + second, first + second + self.ties
        low, high = self.wins.interval(1, alpha)
        share = second / n if n else None
        found = Evidence(
            "sign e-process",
            share,
            low,
            high,
            n,
            rankings[1],
            "share of the units with a winner",
            1 - alpha,
            p_value=self.wins.p_value,
            detail={"wins": [first, second], "ties": self.ties, "units": total},
        )
        told = f"{rankings[1]} wins {second:,} of {n:,} units with a winner ({self.ties:,} ties)"
        if self.wins.off(alpha) and first != second:
            decision, better = (Decision.PASS, rankings[1]) if second > first else (Decision.FAIL, rankings[0])
            return Verdict(decision, subject, f"{better} is surely preferred: {told}", (found,))
        if margin and low > 0.5 - margin:
            reason = f"{rankings[1]} surely loses at most the margin: [{low:.4f}, {high:.4f}] of the wins; {told}"
            return Verdict(Decision.PASS, subject, reason, (found,))
        return Verdict(Decision.UNDECIDED, subject, told, (found,), missing="units with clicks that prefer one ranking")

    def plain(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"wins": self.wins.plain(), "ties": self.ties}


def preference_of(data: Mapping[str, Any]) -> Preference:
    """The inverse of `Preference.plain`."""
    return Preference(sample_ratio_of(data["wins"]), int(data["ties"]))


def _checked(*rankings: Sequence[Any]) -> tuple[Sequence[Any], ...]:
    for ranking in rankings:
        if not ranking or len(set(ranking)) != len(ranking):
            raise DataError("A ranking has an item or more, each of them once.", seen=f"{len(ranking)} items")
    return tuple(tuple(ranking) for ranking in rankings)


def _length(rankings: tuple[Sequence[Any], ...], length: int | None, draws: Floats) -> int:
    there = len(set().union(*rankings))
    wanted = min(there, max(map(len, rankings)) if length is None else length)
    if len(draws) < wanted:
        raise DataError("Interleaving needs a draw for every place.", seen=f"{len(draws)} for {wanted} places")
    return wanted
