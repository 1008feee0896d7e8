"""Making a candidate from what has been learned since: dataset version, run, judgments, registration, smoke."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from loudly.core.canon import Json, canonical, digest
from loudly.core.values import Dataset, Decision, Event, Evidence, ModelVersion, Role, Run, Verdict, plain
from loudly.data.snapshot import extend
from loudly.errors import Conflict, DataError, ExecutorError, ModelError, TrainingError
from loudly.evaluate.card import card
from loudly.loop.candidate import Candidate, make_candidate
from loudly.loop.serving import Ready, make_ready
from loudly.loop.state import State
from loudly.loop.stores import Stores
from loudly.loop.system import System, TrainSpec
from loudly.loop.tally import Tally
from loudly.loop.tuning import Tuning, starts, tune
from loudly.serve.replies import Served
from loudly.serve.router import Router, Routing
from loudly.store.shelf import Pile
from loudly.train.fit import takes_start
from loudly.train.run import run_key
from loudly.validate.key_predictors import blocking, judge_key_predictors, key_predictor_of

SMOKE_ROWS = 50
FAILURES = (DataError, TrainingError, ModelError, ExecutorError)
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Made:
    """What a retraining gave: the events that tell it, and its versions where there are some.

    version: that of the train function.  ready: by version.  passed: those whose gate has passed, in the order they were made.
    """

    events: tuple[Event, ...]
    version: str | None = None
    ready: Mapping[str, Ready] = field(default_factory=dict)
    passed: tuple[str, ...] = ()

    def beside(self, other: Made) -> Made:
        """With what a recipe has made of the same rows."""
        events, ready = (*self.events, *other.events), {**self.ready, **other.ready}
        return Made(events, self.version, ready, (*self.passed, *other.passed))


class Retraining:
    """Keeps the labelled rows: the dataset as of the last fit and what labels have brought since.

    `tuning` says how the next training tunes; somebody at the command line sets it. fitting: whether a training is under way.
    """

    def __init__(self, system: System, stores: Stores, tally: Tally) -> None:
        self.system, self.stores, self.tally = system, stores, tally
        self.tuning = Tuning()
        self._base: pl.DataFrame | None = None
        self._fresh = Pile(stores.shelf)
        self.fitting = False
        self._dataset: Dataset | None = None
        self._brought = np.zeros(0, dtype=np.uint64)  # of the base's rows those that traffic has, by their hash

    @property
    def new_rows(self) -> int:
        """Labelled rows since the last fit."""
        return len(self._fresh)

    def begin(self, dataset: Dataset, labelled: pl.DataFrame) -> None:
        """The first table: a dataset version and its labelled rows."""
        self._dataset, self._base, self._brought = dataset, labelled, np.zeros(0, dtype=np.uint64)
        self._fresh.take()

    def follow(self, dataset: Dataset, labelled: pl.DataFrame) -> None:
        """Goes on from a dataset that another process has made. Rows that traffic has brought and that it lacks are new again."""
        base, brought = self._base, self._brought
        self._dataset, self._base, self._brought = dataset, labelled, np.zeros(0, dtype=np.uint64)
        if base is not None and len(brought):
            self._fresh.add(base.filter(np.isin(self._hashes(base), brought)))
        self.told_before()

    @property
    def dataset(self) -> Dataset | None:
        """The dataset version of the newest fit."""
        return self._dataset

    def forget(self, dataset: Dataset, gone: Callable[[pl.DataFrame], pl.Series]) -> None:
        """Goes on from a dataset version without some rows, and forgets those that labels have brought since."""
        self._dataset = dataset
        self._base = None if self._base is None else self._base.filter(~gone(self._base))
        self._fresh.erase(gone)

    def learned(self, joined: pl.DataFrame) -> None:
        """Labelled rows have come."""
        self._fresh.add(joined.drop([c for c in joined.columns if c.startswith("_")]))

    def told_before(self) -> None:
        """A restart has folded all labels again: rows that the dataset has are not new, and are let go.

        Cost: one sort of the dataset's rows, and a binary search for each that was folded.
        """
        if self._base is None or self._base.is_empty():
            return
        had = np.sort(self._hashes(self._base))

        def again(rows: pl.DataFrame) -> pl.Series:
            mine = self._hashes(rows)
            found = had[np.searchsorted(had, mine).clip(max=len(had) - 1)] == mine
            self._brought = np.append(self._brought, mine[found])
            return pl.Series(found)

        self._fresh.erase(again)

    def _hashes(self, rows: pl.DataFrame) -> NDArray[np.uint64]:
        """(n,) of key and time: which row it is, by this process."""
        key, time = pl.col(self.system.key).cast(pl.String), pl.col(self.system.time).cast(pl.Datetime("us"))
        return rows.select(key, time).hash_rows().to_numpy()

    def reference(self) -> pl.DataFrame:
        """The rows the newest fit has seen: what windows are compared with."""
        return self._base if self._base is not None else pl.DataFrame()

    def run(
        self,
        state: State,
        now: int,
        trigger: str,
        reason: str,
        champion: Ready | None,
        *,
        stateful: bool,
        broken: Sequence[Span],
        harm: Callable[[pl.DataFrame], pl.DataFrame] | None,
    ) -> Made:
        """One retraining. `broken`: spans of event time whose rows are set aside. `harm`: damage for a rehearsal.

        Recipes are tried on the same rows, as many as the rollout has arms for beside control and the candidate.
        """
        events = [Event("retrain_triggered", now, {"trigger": trigger, "reason": reason})]
        with self.tally.spend("data"):
            fresh, told = self._taken(now, broken)
            events.extend(told)
            stopped, told = self._key_predictors(state, now, fresh)
            events.extend(told)
            if stopped:
                events.append(Event("retrain_failed", now, {"trigger": trigger, "reason": stopped}))
                return Made(tuple(events))
            table, told = self._grown(state, now, fresh)
        events.extend(told)
        start, told = self._start(now, champion) if stateful else (None, [])
        events.extend(told)
        make = partial(self._make, state, now, champion, table, harm)
        try:
            with self.tally.spend("train"):
                params, searched = self._params(now, champion)
                events.extend(searched)
                self.tuning.progress("fitting and judging", 0, None)
            made = Made(tuple(events)).beside(make(self.system.train, params, start, len(state.versions) + 1))
        except FAILURES as wrong:
            events.append(Event("retrain_failed", now, {"trigger": trigger, "reason": str(wrong)}))
            return Made(tuple(events))
        made = replace(made, version=next(iter(made.ready)))
        for recipe in self.system.recipes[: self.system.room] if champion is not None else ():
            train = replace(self.system.train, fit=recipe, tune={}, recipe=recipe.__name__)
            try:
                made = made.beside(make(train, {}, None, len(state.versions) + len(made.ready) + 1))
            except FAILURES as wrong:
                failed = {"trigger": trigger, "reason": f"the recipe {recipe.__name__}: {wrong}"}
                made = made.beside(Made((Event("retrain_failed", now, failed),)))
        return made

    def _start(self, now: int, champion: Ready | None) -> tuple[Callable[[], object] | None, list[Event]]:
        """What stateful training continues from; nothing, aloud, where it cannot."""
        why = "there is no champion to continue from"
        if champion is not None and takes_start(self.system.train.fit) and not champion.bundle.meta.get("recipe"):
            return champion.estimator, []
        if champion is not None:
            recipe = champion.bundle.meta.get("recipe")
            why = f"the recipe {recipe} has made the champion" if recipe else "the train function takes no `start`"
        return None, [Event("guarantee_weakened", now, {"what": "stateful training is stateless", "reason": why})]

    def _make(
        self,
        state: State,
        now: int,
        champion: Ready | None,
        table: pl.DataFrame,
        harm: Callable[[pl.DataFrame], pl.DataFrame] | None,
        train: TrainSpec,
        params: Mapping[str, Json],
        start: Callable[[], object] | None,
        number: int,
    ) -> Made:
        """One candidate, fitted, judged and registered. Raises: one of FAILURES."""
        with self.tally.spend("train"):
            made = make_candidate(
                replace(self.system, train=train),
                harm(table) if harm is not None else table,
                self.stores.formats,
                self.tally,
                self.stores.executor,
                champion=champion,
                champion_saw=state.fitted_at.get(state.champion or "", 0),
                params=params,
                start=start,
                clean=table if harm is not None else None,
                side=self._side(),
                fast=self.stores.fast,
            )
        with self.tally.spend("register"):
            return self._register(train, now, made, number, state.champion if start is not None else None)

    def _side(self) -> tuple[str, ...]:
        """The columns of the dataset that were joined from side tables."""
        return tuple(f.name for f in self._dataset.schema.role(Role.SIDE)) if self._dataset is not None else ()

    def _taken(self, now: int, broken: Sequence[Span]) -> tuple[pl.DataFrame, list[Event]]:
        """The labelled rows since the last fit, less those of broken windows and those that would spoil every later fit."""
        fresh = self._fresh.take()
        if fresh.is_empty():
            return pl.DataFrame(), []
        fresh, lost = self._sound(fresh, broken)
        told = [_set_aside(now, lost, "the feed was broken when they were served")] if lost else []
        known = fresh.filter(pl.col(self.system.time).dt.epoch("us") <= now)
        if early := fresh.height - known.height:  # a champion that had learned from one would never meet a newer row
            told.append(_set_aside(now, early, "their time is after now"))
        bounded = known.filter(~pl.any_horizontal(pl.lit(False), cs.float().is_infinite()).fill_null(False))
        if odd := known.height - bounded.height:  # few models take one, and the table of every later fit would have it
            told.append(_set_aside(now, odd, "a number of theirs is infinite"))
        return bounded, told

    def _key_predictors(self, state: State, now: int, fresh: pl.DataFrame) -> tuple[str, list[Event]]:
        """What became of the key predictors in new rows; why nothing may be learned from these, or nothing."""
        if fresh.is_empty():
            return "", []
        keys = [key_predictor_of(k) for k in state.key_predictors]
        judged = judge_key_predictors(keys, fresh, label=self.system.label, time=self.system.time)
        told = [Event("table_judged", now, {"verdict": plain(v)}) for v in judged]
        stopped = "; ".join(v.reason for v in blocking(judged))
        return stopped, [*told, *([_set_aside(now, fresh.height, stopped)] if stopped else [])]

    def _grown(self, state: State, now: int, fresh: pl.DataFrame) -> tuple[pl.DataFrame, list[Event]]:
        """All labelled rows; a new dataset version where there are new ones."""
        assert self._base is not None
        assert self._dataset is not None
        if fresh.columns:
            fresh = fresh.select([c for c in self._base.columns if c in fresh.columns])
            label = self.system.label  # a JSON 1 is a 1.0 of the table
            fresh = fresh.with_columns(fresh[label].cast(self._base[label].dtype, strict=False))
            self._dataset = extend(self._dataset, fresh, self.stores.blobs, self.system.time)
            self._brought = np.append(self._brought, self._hashes(fresh))
            self._base = pl.concat([self._base, fresh], how="diagonal_relaxed").sort(self.system.time, maintain_order=True)
        if state.dataset == self._dataset:
            return self._base, []
        return self._base, [Event("dataset_versioned", now, {"dataset": plain(self._dataset), "digest": self._dataset.digest})]

    def _sound(self, rows: pl.DataFrame, broken: Sequence[Span]) -> tuple[pl.DataFrame, int]:
        at = pl.col(self.system.time).dt.epoch("us")
        bad = pl.lit(False)
        for first, last in broken:
            bad |= (at >= first) & (at < last)
        kept = rows.filter(~bad)
        return kept, rows.height - kept.height

    def _params(self, now: int, champion: Ready | None) -> tuple[dict[str, Json], tuple[Event, ...]]:
        """Tuned parameters are found once and kept, until somebody tunes again or other parameters are to be tuned."""
        spec = self.system.train
        known = dict(champion.bundle.meta["params"]) if champion is not None else {}
        kept = champion is not None and not self.tuning.again and set(known) == set(spec.tune)
        if kept or not spec.tune:
            return known, ()
        name = spec.search if spec.search in self.stores.searches else "random"
        search = self.stores.searches[name](spec.tune, spec.seed)
        first = starts(self.system, known)
        assert self._base is not None
        how: dict[str, Any] = {"first": first, "side": self._side(), "progress": self.tuning.progress}
        found = tune(self.system, self._base, search, self.tally, self.stores.executor, **how)
        told = Event("search_finished", now, {"search": name, "metric": self.system.metric, "starts": list(first), **found.plain()})
        if name == spec.search:
            return dict(found.params), (told,)
        lacking = f"{spec.search} is not installed, so points are drawn at random and none is stopped early"
        return dict(found.params), (Event("guarantee_weakened", now, {"what": "tuning", "reason": lacking}), told)

    def _register(self, train: TrainSpec, now: int, made: Candidate, number: int, start: str | None) -> Made:
        assert self._dataset is not None
        ref = f"{self.system.name}/{number}"
        key = run_key(
            self._dataset.digest,
            (train.fit, *self.system.features),
            made.params,
            train.seed,
            start,
            made.ready.features.plain(),
        )
        model = self.stores.blobs.put(made.data)
        metrics = {e.about: e.effect for e in made.report.metrics}
        run = Run(
            key, self._dataset.digest, dict(made.params), train.seed, start, metrics, model, made.ready.format.name, made.rows
        )
        version = ModelVersion(
            self.system.name, number, model, made.ready.format.name, made.ready.task, self._dataset.digest,
            made.ready.schema.version, key, now,
        )  # fmt: skip
        described = self.stores.blobs.put(card(version, run, made.report, made.gate, made.fast).encode())
        told = [
            Event("run_finished", now, {"version": ref, "run": plain(run), "split": made.split.plain(), **_recipe(train)}),
            *([Event("ladder_climbed", now, {"version": ref, "verdict": plain(made.ladder)})] if made.ladder else []),
            *(Event("guarantee_weakened", now, {"version": ref, "what": what, "reason": said}) for what, said in made.weakened),
            *_fast_told(now, ref, made),
            Event("gate_judged", now, {"version": ref, "verdict": plain(made.gate)}),
            Event(
                "version_registered",
                now,
                {
                    "version": ref,
                    "model_version": plain(version),
                    "metric": self.system.metric,
                    "expected": made.report.value,
                    "fitted_at": made.fitted_at,
                    "trained_rows": made.rows,
                    "card": described,
                },
            ),
        ]
        self.stores.tracker.ran(run, {})
        self.stores.tracker.registered(version, run, made.data, {"gate": str(made.gate.decision)})
        gate = made.gate
        if gate.passed:
            smoke = self.smoke(made, model)
            told.append(Event("artefact_queried", now, {"version": ref, "verdict": plain(smoke)}))
            gate = gate if smoke.passed else smoke
        return Made(tuple(told), ref, {ref: made.ready}, (ref,) if gate.passed else ())

    def smoke(self, made: Candidate, model: str) -> Verdict:
        """The stored artefact, read back and queried through the router's path, answers as the fitted one did."""
        with self.stores.blobs.open(model) as stream:
            again = make_ready(stream.read(), self.system.features, self.stores.formats, True, self.stores.fast)
        rows = self.reference().tail(SMOKE_ROWS)
        replies = Router(Routing(Served("smoke", again.predict))).answer(rows, rows[self.system.key].cast(pl.String).to_list())
        gap = float(np.max(np.abs(replies.answer - made.ready.predict(rows))))
        evidence = Evidence("stored against fitted", gap, n=rows.height, about="largest difference", tolerance=0.0)
        if replies.errors or gap > 0:
            told = replies.errors[0] if replies.errors else f"answers differ by {gap:g}"
            return Verdict(Decision.FAIL, "artefact", told, (evidence,))
        return Verdict(Decision.PASS, "artefact", f"{rows.height} rows answered, all as fitted", (evidence,))


def _recipe(train: TrainSpec) -> dict[str, Json]:
    """The recipe of a run, as the data of an event; nothing for the train function."""
    return {"recipe": train.recipe} if train.recipe else {}


def _set_aside(now: int, rows: int, reason: str) -> Event:
    return Event("rows_set_aside", now, {"where": "training", "rows": rows, "reasons": {reason: rows}})


def not_taken(state: State, made: Mapping[str, Ready]) -> None:
    """Raises: Conflict where somebody else has registered a version of that number since the fit began."""
    if taken := [version for version in made if version in state.versions]:
        raise Conflict("Somebody else has trained meanwhile.", seen=", ".join(taken), do="Train again: it gets the next number.")


def _fast_told(now: int, ref: str, made: Candidate) -> list[Event]:
    """What was judged of the fast form; where the original serves instead, that is said aloud."""
    told = [Event("fast_form_judged", now, {"version": ref, "serves": made.ready.served, "verdict": plain(made.fast)})]
    lacking = {"version": ref, "what": "serving from a fast form", "reason": f"the original answers: {made.fast.reason}"}
    return (
        told
        if made.fast.passed or not (made.fast.failed or made.fast.missing)
        else [*told, Event("guarantee_weakened", now, lacking)]
    )


def policy_digest(system: System) -> str:
    """What the user's policy says, as one digest: it goes into the ledger when it changes."""
    said = {
        "rollout": [s.said() for s in system.rollout],
        "gate": _spoken(plain(system.gate)),
        "retrain": plain(system.retrain),
        "monitor": _spoken(plain(system.monitor)),
        "labels": plain(system.labels),
    }
    return digest(canonical(said))


def _spoken(said: dict[str, Json]) -> dict[str, Json]:
    """Without a word that came later, where it is not said: old policies have the digests that they had."""
    return {name: value for name, value in said.items() if name != "relative" or value}
