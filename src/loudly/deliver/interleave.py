"""Interleaving in a rollout: the rankings of all arms merged into the one list that a client sees, judged by clicks.

The rows of one group (a search query) are a list; each arm scores every row of it, and a score is a place. The list is merged by
team draft or probabilistically (`stats/interleave.py`); who has placed which row is the row's arm, as logged, so that clicks can
be credited from the log whenever they come. A list gives one outcome a candidate, once all its labels have had their time: have
its rows earned more than control's? The verdict is an interval on the candidate's share of the wins, at every look. Of several
candidates each is held against control at its part of alpha; who fails leaves alone, and the lists from then on are of those that
stay (`electing.py`).

A list of which an arm has not scored every row is control's alone, and tells nothing. Lists are sticky: the same group has the
same draws for as long as the rollout lasts, on every worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from loudly.core.canon import unit_draws
from loudly.core.seams import Assignment, Calls, Feedback, Floats, Ints, Merged
from loudly.core.values import Arm, Verdict
from loudly.deliver.bandit import patient, seen_days
from loudly.deliver.dropping import staying
from loudly.deliver.electing import elect
from loudly.deliver.evidence import add_counts, guards, nothing_yet
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.deliver.rollout import RolloutSpec
from loudly.errors import RolloutError
from loudly.stats import interleave as rankings
from loudly.stats.clusters import Met, hashes, met_of
from loudly.stats.interleave import Interleaved, Preference, multileave, preference_of

GUARDED = ("errors", "timed", "answered")
TEAM_DRAFT, PROBABILISTIC = "team-draft", "probabilistic"


@dataclass(frozen=True, slots=True)
class Interleave:
    """Arms: control first; more than one candidate by team draft alone. name: how.  group: the column whose rows are one list."""

    name: str
    group: str = ""
    spec: RolloutSpec = field(default_factory=lambda: RolloutSpec(TEAM_DRAFT))

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        names = [arm.name for arm in arms]
        if names[0] != CONTROL or len(names) < 2 or (len(names) > 2 and self.name != TEAM_DRAFT):
            told = "Interleaving has control and a candidate, and by team draft further ones."
            raise RolloutError(told, seen=f"{', '.join(names)} by {self.name}")
        carried = carry if carry and list(carry.get("pairs", ())) == names[1:] else None
        evidence = dict(carried or {"days": [], "pairs": {name: _nothing() for name in names[1:]}})
        return {"since": at, "now": at, "arms": names, "dropped": {}, "evidence": evidence}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        """All score every row; whose place a row has, `merge` says."""
        shadows = tuple(staying(state, state["arms"][1:]))
        return Assignment(np.zeros(len(draws), dtype=np.int64), np.ones(len(draws)), shadows)

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        """None: every list is of all arms."""
        return np.empty(0)

    def merge(self, state: Mapping[str, Any], scores: Sequence[Floats], unit: str, salt: str) -> Merged | None:
        stay = [state["arms"].index(name) for name in staying(state, state["arms"])]
        if not np.isfinite([scores[arm] for arm in stay]).all():
            return None
        n, each = len(scores[0]), [np.argsort(-scores[arm], kind="stable").tolist() for arm in stay]
        shown = self._list(each, unit, salt)
        rows = np.asarray(shown.items, dtype=np.int64)
        made = Merged(np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty(n))
        made.place[rows], made.arm[rows], made.propensity[rows] = np.arange(n), np.take(stay, shown.teams), shown.chances
        return made

    def _list(self, each: Sequence[list[int]], unit: str, salt: str) -> Interleaved:
        n = len(each[0])
        if self.name == TEAM_DRAFT:
            return multileave(each, np.array(unit_draws(unit, salt, n)))
        first, second = each
        return rankings.probabilistic(first, second, np.array(unit_draws(unit, salt, 2 * n)))

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        """units: the group of each row.  What a row has earned is its reward, or else its label: a click is 1."""
        old, hashed = state["evidence"], hashes(feedback.units)
        pairs = {name: _credited(pair, feedback, hashed, name, state["arms"].index(name)) for name, pair in old["pairs"].items()}
        return self._judged({**state, "evidence": {"days": seen_days(old, feedback), "pairs": pairs}})

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        pairs = dict(state["evidence"]["pairs"])
        for name in staying(state, pairs):
            pairs[name] = add_counts(pairs[name], calls.among({CONTROL: CONTROL, CANDIDATE: name}), 0.5)
        return self._judged({**state, "evidence": {**state["evidence"], "pairs": pairs}})

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "now": at})

    def against_control(self, state: Mapping[str, Any], name: str) -> Verdict:
        """On one candidate as of now, at its part of the risk, whether it has left or not."""
        pair, candidates = state["evidence"]["pairs"][name], len(state["arms"]) - 1
        spec = replace(self.spec, alpha=self.spec.alpha / candidates)
        found = guards(pair, spec, self.name) or patient(
            preference_of(pair["preference"]).verdict(spec.alpha, self.name, (CONTROL, name), spec.margin), state, spec
        )
        return found if candidates == 1 else replace(found, evidence=(replace(found.evidence[0], about=name), *found.evidence[1:]))

    def _judged(self, state: dict[str, Any]) -> tuple[dict[str, Any], Verdict]:
        found = {name: self.against_control(state, name) for name in staying(state, state["arms"][1:])}
        if len(state["arms"]) == 2:
            return state, found.popitem()[1]
        over = state["now"] - state["since"] >= self.spec.deadline
        return elect(state, found, f"{self.name} of {len(state['arms'])} arms", over)


def _nothing() -> dict[str, Any]:
    """What is known of a candidate at the start."""
    nothing = nothing_yet()
    return {**{name: nothing[name] for name in GUARDED}, "preference": Preference().plain(), "met": Met().plain()}


def _credited(pair: Mapping[str, Any], feedback: Feedback, hashed: Ints, name: str, arm: int) -> dict[str, Any]:
    """With one outcome more for each list that this candidate and control have scored: whose rows have earned more?"""
    earned = feedback.truth if feedback.reward is None else feedback.reward
    mine = np.where(feedback.arm == arm, earned, np.where(feedback.arm == 0, -earned, 0.0))
    known = np.isfinite(feedback.scores[CONTROL]) & np.isfinite(feedback.scores[name])
    lists, where = np.unique(hashed[known], return_inverse=True)
    credit = np.bincount(where, weights=mine[known], minlength=len(lists))
    met, (lost, won, ties) = met_of(pair["met"]).add(lists, np.where(credit > 0, 1, np.where(credit < 0, 0, 2)), 3)
    return {**pair, "preference": preference_of(pair["preference"]).count(lost, won, ties).plain(), "met": met.plain()}


def team_draft(spec: RolloutSpec | None = None, group: str = "") -> Interleave:
    """The rankings pick in turn; a coin says who picks first in each round.

    >>> strategy = team_draft()
    >>> state = strategy.init((Arm("control", "m/1"), Arm("candidate", "m/2")), 0)
    >>> made = strategy.merge(state, [np.array([0.9, 0.5]), np.array([0.1, 0.8])], "query-7", "rollout-1")
    >>> sorted(made.place.tolist()), sorted(made.arm.tolist()), sorted(made.propensity.tolist())
    ([0, 1], [0, 1], [0.5, 1.0])
    """
    return Interleave(TEAM_DRAFT, group, spec or RolloutSpec(TEAM_DRAFT))


def probabilistic(spec: RolloutSpec | None = None, group: str = "") -> Interleave:
    """Each place is drawn from one of two soft rankings, a coin says from which: every list is possible."""
    return Interleave(PROBABILISTIC, group, spec or RolloutSpec(PROBABILISTIC))
