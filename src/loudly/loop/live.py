"""The one thing that serves and replays: rows in, answers out; labels in; time passes.

A server calls `answer`, `feedback` and `tick`; a replay calls the same three with the data's own clock. What they decide
goes into the ledger; what is true is folded from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import RLock
from typing import Any, assert_never

import polars as pl

from loudly.core.canon import Json
from loudly.core.clock import moment
from loudly.core.seams import Clock, Strategy
from loudly.core.values import Decision, Event, Task, Verdict, plain
from loudly.data.pseudonym import pseudonymise
from loudly.deliver.disagreement import Disagreement
from loudly.errors import RolloutError
from loudly.labels.book import Arrival, LabelBook
from loudly.loop import traffic
from loudly.loop.answering import Answering
from loudly.loop.arms import advance, arms_of, beginning, context_now, decided, new_context, rivals, routing_of, unlike
from loudly.loop.asides import Asides
from loudly.loop.confirming import Confirming
from loudly.loop.counting import Counting
from loudly.loop.knowing import known
from loudly.loop.label_values import encode
from loudly.loop.past import Past
from loudly.loop.pins import Pins
from loudly.loop.plan import Confirm, Hold, NextStage, Plan, Promote, Retrain, RollBack, Step
from loudly.loop.policy import decide
from loudly.loop.restart import insist, insist_all, learn_from, refresh
from loudly.loop.retraining import Retraining, not_taken
from loudly.loop.serving import Ready, open_version
from loudly.loop.sides import Sides
from loudly.loop.standing import AGAIN
from loudly.loop.state import State, fold, fold_all
from loudly.loop.stores import Stores
from loudly.loop.strategies import strategy_of
from loudly.loop.system import System
from loudly.loop.tally import Tally
from loudly.loop.teaching import hear, lateness, patient, teach, unripe_of
from loudly.loop.unmatched import Unmatched
from loudly.loop.unripe import Unripe
from loudly.loop.untaught import Untaught
from loudly.monitor.alerts import Alerts
from loudly.monitor.notify import page
from loudly.monitor.watch import Watch
from loudly.serve.replies import CONTROL, Replies
from loudly.serve.router import Router, Timer
from loudly.validate.conform import Conformed, conform


class Live:
    """A wheel that turns. One writer; `answer` may be called from many threads once it is built."""

    def __init__(
        self, system: System, stores: Stores, clock: Clock, *, key: bytes, tally: Tally | None = None, timer: Timer | None = None
    ) -> None:
        self.system, self.stores, self.clock = system, stores, clock
        self.key, self.tally, self.timer = key, tally or Tally(), timer
        self.lock = RLock()
        self.state = fold_all(stores.ledger.read())
        self.past = Past()
        self.sides = Sides(system, key)
        self.book = LabelBook(system.key, system.label, system.labels.keep, stores.shelf)
        self.watch = Watch(system.monitor, system.labels.arrive_within, metric=system.metric, time=system.time, key=system.key)
        self.unmatched = Unmatched()
        self.alerts = Alerts(system.monitor, self.watch.weight, self.watch.explain)
        self.retraining = Retraining(system, stores, self.tally)
        self.ready: dict[str, Ready] = {}
        self.router: Router | None = None
        self.strategy: Strategy | None = None
        self.rollout_state: dict[str, Any] = {}
        self.rollout_verdict: Verdict | None = None
        self.given: dict[str, int] = {}
        self.unripe, self.untaught = Unripe(), Untaught(stores.shelf)
        self.disagreement = Disagreement()
        self.asides = Asides(self)
        self.counting = Counting(self)
        self.answering = Answering(self)
        self.pins = Pins(self)
        self.confirming = Confirming(self)
        if self.state.champion is not None:
            self.adopt(self.state.champion)
            self.resume_rollout()

    # -- what happens ------------------------------------------------------------------------------------------------

    def record(self, *events: Event) -> None:
        """Appends to the ledger and folds: the only way anything changes."""
        if not events:
            return
        with self.lock:
            before = self.state.position
            self.stores.ledger.append(events, before)
            for recorded in self.stores.ledger.read(before):
                self.state = fold(self.state, recorded)

    def event(self, kind: str, **data: Json) -> None:
        """One event, now."""
        self.record(Event(kind, self.clock.now(), data))

    # -- the three verbs ---------------------------------------------------------------------------------------------

    def answer(self, rows: pl.DataFrame) -> tuple[Replies, Conformed]:
        """Answers rows of traffic; those that do not fit the schema are set aside with their reason.

        Raises: RolloutError while there is no champion.
        """
        if self.router is None:
            raise RolloutError("Nothing answers yet: there is no champion.", do="Run `loudly train`, then `loudly ship`.")
        router = self.router.held()
        schema = router.routing.schema
        assert schema is not None
        with self.tally.spend("conform"):
            fitted = self.sides.live(conform(pseudonymise(rows, self.system.private, self.key), schema), schema)
            units = fitted.good[self.system.key].to_list()
        with self.tally.spend("predict"):
            replies = router.answer(fitted.good, units)
        now = moment(self.clock)
        with self.tally.spend("log"):
            logged = traffic.logged(fitted.good, replies, router.routing.rollout, now)
            _, behind = self.answering.log("predictions", partial(traffic.to_bytes, logged))
        with self.lock:
            self.asides.table(fitted.aside)
            if not behind:
                self.fold_answers(logged, now)
            self.counting.answers(fitted.good, replies)
            self.counting.log()
        return replies, fitted

    def feedback(self, labels: pl.DataFrame) -> Arrival:
        """Labels (key, label) that have arrived now; unknown and repeated keys are named in the ledger, by the next tick.

        While the past is folded they are put on disk, and joined after it. Raises: WheelAway where the disk does not take them.
        """
        now, labels = moment(self.clock), pseudonymise(labels, self.system.private, self.key)  # the key may be private
        told = partial(traffic.labels_to_bytes, labels, now)
        sequence, behind = self.answering.log("labels", told) if self.answering.behind else (0, False)
        if behind:
            return self.answering.keep(labels, sequence)
        with self.lock:
            self.answering.fold()  # what it counts stands before the labels in the log
            if not sequence:
                self.answering.log("labels", told)
            return self.labelled(labels, now)

    def labelled(self, labels: pl.DataFrame, now: int) -> Arrival:
        """Labels that are logged already. The caller holds the lock, and has folded the answers before."""
        with self.tally.spend("labels"):
            arrival = self.pins.arrived(labels, now)
        self.unmatched.add(arrival)
        if arrival.joined.height and self.state.champion is not None:
            self.fold_labels(arrival.joined, now)
        return arrival

    def tick(self) -> Plan:
        """Time has passed: windows close, alarms are raised, and the policy's plan is applied."""
        now = self.clock.now()
        with self.lock:
            self.answering.fold()
            self.asides.fold()
            refresh(self)
            if self.past.open:
                return Plan(now, (), AGAIN)
            for book in (self.book, self.pins.book):
                book.sweep(now)
            with self.tally.spend("monitor"):
                judged = self.watch.close(now)
                of_clock = self.alerts.by_clock(self.watch.by_clock(now), now, self.state.champion)
                alarms = (*self.watch.told(), *of_clock, *self.alerts.events(judged, now, self.state.champion))
                told = *(Event("window_judged", now, w.plain()) for w in judged if w.worth_telling), *alarms
                if told:  # a window is judged once
                    insist_all(self, *told)
        page(self.stores.notify, alarms)  # a door may be slow, and others answer meanwhile
        with self.lock:
            if self.strategy is not None:
                advance(self, now)
                self.route()
            self.confirming.advance(now)
            self._report_odd()
            plan = self.plan()
        self.apply(plan)
        return plan

    def plan(self) -> Plan:
        """What the policy wants as of now; nothing is done."""
        with self.tally.spend("policy"):
            return decide(known(self), self.system.retrain)

    def apply(self, plan: Plan) -> None:
        """Does what the plan says, step by step."""
        for step in plan.steps:
            self._do(step)

    # -- folding traffic ---------------------------------------------------------------------------------------------

    def fold_answers(self, logged: pl.DataFrame, now: int) -> None:
        """Answered rows, as logged, go to the label book and the monitor. now: when the last of them was answered."""
        ready = self.ready.get(self.state.champion or "")
        if ready is not None and ready.task is Task.MULTICLASS:
            logged = traffic.alike(logged, len(ready.classes))
        with self.tally.spend("labels"):
            self.book.predicted(logged, logged["_at"])
        with self.tally.spend("monitor"):
            self.watch.rows(logged, traffic.column(logged, "_control"), now)

    def fold_labels(self, joined: pl.DataFrame, now: int) -> None:
        """Labelled rows go to the monitor, the next training and, with the next tick, the rollout. now: when the labels came."""
        ready = self.ready[self.state.champion or ""]
        with self.tally.spend("monitor"):
            truth, at = encode(joined[self.system.label], ready.classes), joined[self.system.time].dt.epoch("us").to_numpy()
            self.watch.labels(truth, traffic.column(joined, "_control"), at, now, joined)
        self.retraining.learned(joined)
        self.confirming.labels(joined, now)
        hear(self, joined, now)

    def end(self) -> None:
        """The last tick is over: what was odd since is told."""
        with self.lock:
            self.asides.fold()
            refresh(self)
            self._report_odd()

    def _report_odd(self) -> None:
        if of_sides := self.sides.report(self.clock.now()):
            insist_all(self, *of_sides)
        if told := self.unmatched.told():
            self.event("labels_unmatched", **told)
            self.unmatched = Unmatched()
        if aside := self.asides.told():
            insist(self, "rows_set_aside", **aside)  # it is told once

    # -- doing -------------------------------------------------------------------------------------------------------

    def _do(self, step: Step) -> None:
        match step:
            case Retrain():
                self.retrain(step.trigger, self.watch.blamed(step.trigger, step.reason), stateful=step.stateful)
            case NextStage(version, stage, reason):
                self._report_disagreement(version)
                self._enter(version, stage, reason)
            case Promote(version, reason, verdict):
                self._judged(version, verdict)
                self.promote(version, reason)
            case RollBack(version, reason, verdict):
                self._judged(version, verdict)
                self.roll_back(version, reason)
            case Confirm(version, reason, verdict):
                told = plain(verdict) if verdict is not None else None
                self.event("promotion_confirmed", version=version, reason=reason, verdict=told)
                self.confirming.follow()
            case Hold(wanted, reason):
                if self.alerts.news(f"held {wanted}: {reason}"):
                    self.event("held", wanted=wanted, reason=reason)
            case _:
                assert_never(step)

    def retrain(self, trigger: str, reason: str, *, stateful: bool = False, offer: bool = True, harm: Any = None) -> str | None:
        """Makes a candidate, with those of recipes beside it; where a gate passes and `offer` is set, starts the rollout.

        The fit holds no lock: answers go on meanwhile, and so do others who write into the ledger.
        Returns the reference of the train function's, or None where no model came of it (said in the ledger). Raises: Conflict
        where somebody else has registered a version of that number meanwhile.
        """
        now, before = self.clock.now(), (self.state.champion, self.state.rollout is None)
        champion = self.ready.get(self.state.champion or "")
        self.retraining.fitting = True
        try:
            made = self.retraining.run(
                self.state, now, trigger, reason, champion, stateful=stateful, broken=self.watch.broken_spans(), harm=harm
            )
        finally:
            self.retraining.fitting = False
        with self.lock:
            insist_all(self, *made.events, sound=lambda: not_taken(self.state, made.ready))
            learn_from(self)  # somebody else may have made a dataset during the fit
            self.ready.update(made.ready)
            if offer and made.passed:
                moved = before != (self.state.champion, self.state.rollout is None)
                if why := "somebody else has decided during its fit" if moved else unlike(self, made.passed[0]):
                    self.event("held", wanted=f"the rollout of {made.passed[0]}", reason=why)
                else:
                    self.offer(made.passed[0], trigger, made.passed[1:])
            return made.version

    def offer(self, version: str, reason: str, named: Sequence[str] = ()) -> None:
        """Starts the rollout of a version; where nothing answers yet it becomes champion at once.

        named: further candidates; where a stage has more arms, the newest that have passed their gate by default.
        """
        if version not in self.state.versions:
            raise RolloutError(f"There is no version {version!r}.", seen=", ".join(self.state.versions))
        if self.state.champion is None or not self.system.rollout:
            first = self.state.champion is None
            self.promote(version, "the first version that passed its gate" if first else "no rollout is asked for")
            return
        if self.state.rollout is not None:
            raise RolloutError("A rollout is running; one at a time.", seen=self.state.rollout.version)
        self.record(*beginning(self, version, named, reason))
        self.given = {}
        self.rollout_state = {}
        self._enter(version, 0, "its gate has passed")

    def promote(self, version: str, reason: str) -> None:
        """The version answers everything from now on; the champion before stays warm."""
        teach(self, self.clock.now())  # the confirmation goes on from what is known now
        because: Json = list(self.state.evidence.get(version, ()))
        previous, lost = self.state.champion, rivals(self, version)
        self.adopt(version)
        self.event("champion_changed", version=version, previous=previous, reason=reason, because=because, **lost)
        self.confirming.follow(self.rollout_state, self.unripe)
        self._end_rollout()
        self.crown(version)
        self.stores.tracker.aliased(self.system.name, "champion", self.state.versions[version])

    def roll_back(self, version: str, reason: str) -> None:
        """The candidate leaves; the champion answers everything again. A champion gives way to the one before it."""
        state = self.state
        if state.rollout is not None and version == state.champion:
            self.roll_back(state.rollout.version, f"{version}, which it was held against, is rolled back")
        answers, gone = sum(n for arm, n in self.given.items() if arm != CONTROL), rivals(self, version)
        stays = state.previous if version == state.champion else state.champion
        self.event("version_rolled_back", version=version, champion=stays, reason=reason, answers=answers, **gone)
        self._end_rollout()
        if version == state.champion and state.previous is not None:
            self.promote(state.previous, f"{version} was rolled back: {reason}")

    def _judged(self, version: str, verdict: Verdict | None) -> None:
        self._report_disagreement(version)
        if verdict is not None:
            self.event("rollout_judged", version=version, verdict=plain(verdict), **rivals(self, version))

    def _report_disagreement(self, version: str) -> None:
        if told := self.disagreement.report():
            self.event("disagreement_reported", version=version, by=told)
        self.disagreement = Disagreement()

    def _enter(self, version: str, stage: int, reason: str) -> None:
        spec = self.system.rollout[stage]
        seen = {**new_context(self, spec), **lateness(self, spec)}
        insist(self, "stage_started", version=version, stage=stage, strategy=spec.strategy, reason=reason, **seen)
        if self.state.rollout is not None:  # somebody else may have ended it
            self._begin_stage(stage, self.clock.now(), self.rollout_state.get("evidence"))
            self.counting.begun()

    def resume_rollout(self) -> None:
        """The rollout of the ledger, or none: after a restart, or when somebody else has written."""
        self.confirming.follow()
        rollout = self.state.rollout
        if rollout is None or rollout.stage >= len(self.system.rollout):
            self._end_rollout()
            return
        self._begin_stage(rollout.stage, rollout.stage_at, None)

    def _begin_stage(self, stage: int, at: int, carry: Any) -> None:
        spec, arms, context = patient(self, stage), arms_of(self), context_now(self.state.rollout)
        for arm in arms:
            self.adopt(arm.version)
        task, rates = self.ready[arms[1].version].task, self.state.rollout.rates if self.state.rollout is not None else ()
        self.strategy = strategy_of(self.system, spec, task, context.features if context else 0, rates)
        self.rollout_state = decided(self, self.strategy.init(arms, at, carry))
        self.unripe = unripe_of(self, spec) if spec.rewarded or carry is None else self.unripe
        self.rollout_verdict = Verdict(Decision.UNDECIDED, spec.strategy, "just begun", missing="labels")
        self.route()

    def _end_rollout(self) -> None:
        self.strategy, self.rollout_state, self.rollout_verdict = None, {}, None
        self.unripe, self.untaught = Unripe(), Untaught(self.stores.shelf)
        self.route()

    def adopt(self, version: str, state: State | None = None) -> None:
        """Loads a version's artefact from the store, under the digest the ledger holds. state: that of now by default."""
        if version not in self.ready:
            known, parts = (state or self.state).versions[version], self.stores
            self.ready[version] = open_version(known, self.system.features, parts.blobs, parts.formats, True, parts.fast)

    def crown(self, version: str) -> None:
        """A new champion changes what is expected; alarms about the old one end."""
        expected = self.state.expects(version, self.system.metric)
        ready = self.ready[version]
        self.watch.crown(ready, self.retraining.reference(), expected, self.clock.now(), ready.usual)
        self.record(*self.alerts.reset(self.state.alarms, self.clock.now()))

    def route(self) -> None:
        """Answers go by the state of now."""
        champion = self.state.champion
        if champion is None:
            return
        routing = routing_of(self, champion)
        if self.router is None:
            self.router = Router(routing, self.timer)
        else:
            self.router.swap(routing)
