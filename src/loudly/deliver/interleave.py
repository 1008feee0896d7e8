"""Interleaving in a rollout: the rankings of control and candidate merged into the one list that a client sees, judged by clicks.

The rows of one group (a search query) are a list; both arms score every row of it, and a score is a place. The list is merged by
team draft or probabilistically (`stats/interleave.py`); who has placed which row is the row's arm, as logged, so that clicks can be
credited from the log whenever they come. A list gives one outcome, once all its labels have had their time: which arm has
earned more? The verdict is an interval on the candidate's share of the wins, at every look.

A list of which an arm has not scored every row is control's alone, and tells nothing. Lists are sticky: the same group has the
same draws for as long as the rollout lasts, on every worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loudly.core.canon import unit_draws
from loudly.core.seams import Assignment, Calls, Feedback, Floats, Merged
from loudly.core.values import Arm, Verdict
from loudly.deliver.bandit import patient, seen_days
from loudly.deliver.evidence import add_counts, guards, nothing_yet
from loudly.deliver.latency import CANDIDATE, CONTROL
from loudly.deliver.rollout import RolloutSpec
from loudly.stats import interleave as rankings
from loudly.stats.clusters import Met, hashes, met_of
from loudly.stats.interleave import Interleaved, Preference, preference_of

GUARDED = ("errors", "timed", "answered")
TEAM_DRAFT, PROBABILISTIC = "team-draft", "probabilistic"


@dataclass(frozen=True, slots=True)
class Interleave:
    """Arms: (control, candidate). name: how lists are merged.  group: the column whose rows are one list."""

    name: str
    group: str = ""
    spec: RolloutSpec = field(default_factory=lambda: RolloutSpec(TEAM_DRAFT))

    def init(self, arms: tuple[Arm, ...], at: int, carry: Mapping[str, Any] | None = None) -> dict[str, Any]:
        nothing = {name: value for name, value in nothing_yet().items() if name in GUARDED}
        evidence = {**nothing, "days": [], "preference": Preference().plain(), "met": Met().plain()}
        return {"since": at, "now": at, "evidence": dict(carry if carry and "preference" in carry else evidence)}

    def assign(self, state: Mapping[str, Any], draws: Floats, context: Floats | None = None) -> Assignment:
        """Both score every row; whose place a row has, `merge` says."""
        return Assignment(np.zeros(len(draws), dtype=np.int64), np.ones(len(draws)), (CANDIDATE,))

    def shares(self, state: Mapping[str, Any], context: Floats | None = None) -> Floats:
        """None: every list is of all arms."""
        return np.empty(0)

    def merge(self, scores: Any, unit: str, salt: str) -> Merged:
        n = len(scores[0])
        first, second = (np.argsort(-score, kind="stable").tolist() for score in scores)
        shown = self._list(first, second, unit, salt)
        rows = np.asarray(shown.items, dtype=np.int64)
        made = Merged(np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty(n))
        made.place[rows], made.arm[rows], made.propensity[rows] = np.arange(n), shown.teams, shown.chances
        return made

    def _list(self, first: list[int], second: list[int], unit: str, salt: str) -> Interleaved:
        if self.name == TEAM_DRAFT:
            return rankings.team_draft(first, second, np.array(unit_draws(unit, salt, len(first))))
        return rankings.probabilistic(first, second, np.array(unit_draws(unit, salt, 2 * len(first))))

    def update(self, state: Mapping[str, Any], feedback: Feedback) -> tuple[dict[str, Any], Verdict]:
        """units: the group of each row.  What a row has earned is its reward, or else its label: a click is 1."""
        earned = feedback.truth if feedback.reward is None else feedback.reward
        known = np.isfinite(feedback.scores[CONTROL]) & np.isfinite(feedback.scores[CANDIDATE])
        hashed, where = np.unique(hashes(feedback.units)[known], return_inverse=True)
        credit = np.bincount(where, weights=np.where(feedback.arm == 1, earned, -earned)[known], minlength=len(hashed))
        outcome = np.where(credit > 0, 1, np.where(credit < 0, 0, 2))
        old = state["evidence"]
        met, (lost, won, ties) = met_of(old["met"]).add(hashed, outcome, 3)
        preference = preference_of(old["preference"]).count(lost, won, ties)
        learned = {"preference": preference.plain(), "met": met.plain(), "days": seen_days(old, feedback)}
        return self._judged({**state, "evidence": {**old, **learned}})

    def observe(self, state: Mapping[str, Any], calls: Calls) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "evidence": add_counts(state["evidence"], calls, 0.5)})

    def advance(self, state: Mapping[str, Any], at: int) -> tuple[dict[str, Any], Verdict]:
        return self._judged({**state, "now": at})

    def _judged(self, state: dict[str, Any]) -> tuple[dict[str, Any], Verdict]:
        broken = guards(state["evidence"], self.spec, self.name)
        if broken is not None:
            return state, broken
        wins = preference_of(state["evidence"]["preference"])
        found = wins.verdict(self.spec.alpha, self.name, (CONTROL, CANDIDATE), self.spec.margin)
        return state, patient(found, state, self.spec)


def team_draft(spec: RolloutSpec | None = None, group: str = "") -> Interleave:
    """The rankings pick in turn; a coin says who picks first in each round.

    >>> made = team_draft().merge([np.array([0.9, 0.5]), np.array([0.1, 0.8])], "query-7", "rollout-1")
    >>> sorted(made.place.tolist()), sorted(made.arm.tolist()), sorted(made.propensity.tolist())
    ([0, 1], [0, 1], [0.5, 1.0])
    """
    return Interleave(TEAM_DRAFT, group, spec or RolloutSpec(TEAM_DRAFT))


def probabilistic(spec: RolloutSpec | None = None, group: str = "") -> Interleave:
    """Each place is drawn from one of two soft rankings, a coin says from which: every list is possible."""
    return Interleave(PROBABILISTIC, group, spec or RolloutSpec(PROBABILISTIC))
