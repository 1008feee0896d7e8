"""The user's one object: decorators on plain functions, which stay callable by themselves.

    app = loudly.App("flights", label="late", time="scheduled", key="flight_id", metric="roc_auc")

    @app.data
    def flights(): return "flights.parquet"

    @app.train
    def fit(X, y): return HistGradientBoostingClassifier().fit(X, y)

Everything after `train` is optional, with defaults that are safe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

from loudly.app import verbs
from loudly.app.functions import a_function, only_once, takes, takes_data, train_spec
from loudly.core.canon import Json
from loudly.core.clock import duration
from loudly.core.values import Verdict
from loudly.deliver.rollout import check_stages, parse_rollout
from loudly.errors import ConfigError, UserFileError, nearest
from loudly.evaluate.behaviours import EXPECTATIONS, Behaviour
from loudly.evaluate.gate import Gate
from loudly.features.side import Side
from loudly.loop.policy import Governor, RetrainPolicy, Stage
from loudly.loop.replay import Replayed
from loudly.loop.rewards import NO_REWARD, SAY, has_reward
from loudly.loop.state import State
from loudly.loop.strategies import ranked
from loudly.loop.system import PROMOTE_ON, Labels, PromoteOn, System, TrainSpec
from loudly.loop.tolerances import default_gate, default_margins, default_monitor
from loudly.loop.why import DecisionRecord
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.streams import parse_stream
from loudly.plugins import names, resolve

F = TypeVar("F", bound=Callable[..., Any])
Columns = Sequence[str]
TRIGGERS = ("performance", "calibration", "estimate")


class App:
    """A system of one model: what it learns from, how it is judged, and how it may change.

    Args:
        name: names the model in the registry.
        label, time, key: columns of the table: what is predicted, when the row happened (event time), which row it is.
        metric: what "better" means; a name from the metric table.
        group: the column that names the list (a search query) a row is a part of, where scores are places; no model reads it.
        folder: where `loudly.toml` and the stores are; the current folder by default.
    """

    def __init__(
        self, name: str, *, label: str, time: str, key: str, metric: str, group: str = "", folder: str | Path | None = None
    ) -> None:
        if not name.isidentifier():
            raise UserFileError("The app's name must be a plain word.", seen=repr(name), do="Use e.g. 'flights'.")
        if metric not in names("metric"):
            raise UserFileError(f"There is no metric {metric!r}.", do=nearest(metric, names("metric")))
        if len({label, time, key, group}) < 4:
            seen = f"label={label!r}, time={time!r}, key={key!r}, group={group!r}"
            raise UserFileError("Label, time and key must be three columns, and a group one more.", seen=seen)
        self.name, self.folder = name, Path(folder) if folder else None
        self._columns = {"label": label, "time": time, "key": key, "metric": metric, "group": group}
        self._data: Callable[[], object] | None = None
        self._private: tuple[str, ...] = ()
        self._ignored: tuple[str, ...] = ()
        self._known_before: tuple[str, ...] = ()
        self._train: TrainSpec | None = None
        self._sides: list[Side] = []
        self._lists: dict[str, list[Callable[..., Any]]] = {"feature": [], "rule": [], "slice": [], "recipe": []}
        self._reward: Callable[..., Any] | None = None
        self._behaviours: list[Behaviour] = []
        self._gate = default_gate(metric)
        self._rollout = default_margins((parse_rollout(s) for s in ("shadow 1d", "canary 5% 25% 100%")), metric)
        self._labels = Labels()
        self._monitor = default_monitor(metric)
        self._retrain = RetrainPolicy()

    # -- decorators -------------------------------------------------------------------------------------------------

    @overload
    def data(self, function: F, /) -> F: ...
    @overload
    def data(
        self, function: None = None, /, *, private: Columns = (), ignored: Columns = (), known_before: Columns = ()
    ) -> Callable[[F], F]: ...
    def data(self, function: Any = None, /, *, private: Columns = (), ignored: Columns = (), known_before: Columns = ()) -> Any:
        """The table: a dataframe (polars, pandas, Arrow), a path, a glob, or an SQL source.

        private: columns that are pseudonymised before anything is written.  ignored: columns that are not inputs.  known_before:
        columns that are known before the event, though one of them alone predicts the label as only a leak does.
        """

        def register(given: F) -> F:
            only_once("data", self._data)
            takes("data", given, 0)
            for what, listed in (("private", private), ("ignored", ignored), ("known_before", known_before)):
                if isinstance(listed, str):
                    raise UserFileError(f"{what} is a list of columns.", seen=repr(listed), do=f"{what}=[{listed!r}]")
            self._data, self._private, self._ignored = given, tuple(private), tuple(ignored)
            self._known_before = tuple(known_before)
            return given

        return register if function is None else register(function)

    def side(self, name: str, *, on: str, by: Sequence[str] = (), within: str, refresh: str = "5m") -> Callable[[F], F]:
        """A side table (weather, prices): each row sees the newest side row that was known at its own time, and no later one.

        The function returns what `@app.data` returns; its columns become inputs, in training, in a replay and live alike.
        on: its column with the time from which a row was known.  by: columns that both tables have.
        within: an older side row counts as missing.  refresh: how often a server reads the table again.
        """
        if isinstance(by, str):
            raise UserFileError("by is a list of columns.", seen=repr(by), do=f"by=[{by!r}]")
        if duration(within) <= 0 or duration(refresh) <= 0:
            raise ConfigError("A side table needs times above zero.", seen=f"within={within!r}, refresh={refresh!r}")
        if name in [side.name for side in self._sides]:
            raise UserFileError(f"There are two side tables called {name!r}.", do="Rename one.")

        def register(given: F) -> F:
            takes("side", given, 0)
            self._sides.append(Side(name, given, on, tuple(by), duration(within), duration(refresh)))
            return given

        return register

    def feature(self, function: F, /) -> F:
        """A feature: parameter names are columns (or other features), values are polars Series; returns a Series.

        One definition for the training table and for one live row.
        """
        a_function("feature", function)
        if not inspect.signature(function).parameters:
            raise UserFileError(f"The feature {function.__name__!r} names no column.", do="def hour(scheduled): ...")
        return self._collect("feature", function)

    def rule(self, function: F, /) -> F:
        """A rung of the baseline ladder that must be beaten: rows (polars DataFrame) in, scores out."""
        takes("rule", function, 1)
        return self._collect("rule", function)

    def recipe(self, function: F, /) -> F:
        """Another way to make a model than `@app.train`, untuned: retraining tries it too, where the rollout has arms for it."""
        takes_data("recipe", function)
        return self._collect("recipe", function)

    def slice(self, function: F, /) -> F:
        """A named subset judged on its own: rows in; booleans out, or values (then one slice for each value)."""
        takes("slice", function, 1)
        return self._collect("slice", function)

    def reward(self, function: F, /) -> F:
        """What an answer was worth, for a rollout by a bandit: rows with their label, and answers; numbers in [0, 1], one a row.

        Without it the reward is 1 minus the loss: of the decision where the metric is one of decisions, else of the probability.
        """
        only_once("reward", self._reward)
        takes("reward", function, 2)
        self._reward = function
        return function

    def behaviour(self, *, expect: str, tolerance: float = 0.0) -> Callable[[F], F]:
        """What the model must do when its input changes: rows in, changed rows out.

        expect: "same" (invariance), "up" or "down" (direction), "minimum" (minimum functionality).
        """
        if expect not in EXPECTATIONS:
            raise UserFileError(f"A behaviour cannot expect {expect!r}.", do=nearest(expect, EXPECTATIONS))

        def register(given: F) -> F:
            takes("behaviour", given, 1)
            self._behaviours.append(Behaviour(given.__name__, given, expect, tolerance))
            return given

        return register

    @overload
    def train(self) -> str: ...
    @overload
    def train(self, function: F, /) -> F: ...
    @overload
    def train(
        self, /, *, tune: Mapping[str, Json], trials: int = ..., frame: str = ..., seed: int = ..., holdout: str = ...
    ) -> Callable[[F], F]: ...
    @overload
    def train(
        self, /, *, tune: Mapping[str, Json] = ..., trials: int = ..., frame: str, seed: int = ..., holdout: str = ...
    ) -> Callable[[F], F]: ...
    @overload
    def train(
        self, /, *, tune: Mapping[str, Json] = ..., trials: int = ..., frame: str = ..., seed: int, holdout: str = ...
    ) -> Callable[[F], F]: ...
    @overload
    def train(
        self, /, *, tune: Mapping[str, Json] = ..., trials: int = ..., frame: str = ..., seed: int = ..., holdout: str
    ) -> Callable[[F], F]: ...
    def train(  # type: ignore[misc]
        self,
        function: Any = None,
        /,
        *,
        tune: Mapping[str, Json] | None = None,
        trials: int = 20,
        frame: str | None = None,
        seed: int = 0,
        holdout: str = "7d",
    ) -> Any:
        """As a decorator: how a model is made, `def fit(X, y, *, learning_rate=0.1, start=None)` -> fitted estimator.

        tune: name -> (low, high), (low, high, "log"), (1, 9) for integers, or a list of choices.
        frame: what X is: "numpy" (float64, categories as codes, NaN for missing), "polars" (a table of the same numbers), or
        "raw": a table of the inputs in their own types, texts and times too, null for missing, and of the features as made.
        holdout: the newest stretch of labelled event time that judges the fit.

        Called with nothing, once a function is registered: trains a candidate now and returns its reference.
        """
        if function is None and self._train is not None and tune is None and frame is None:
            with verbs.using_stores(self.name, self.folder) as opened:
                return verbs.train(self.system, opened)

        def register(given: F) -> F:
            only_once("train", self._train)
            self._train = train_spec(given, tune or {}, trials, frame or "numpy", seed, duration(holdout))
            return given

        return register if function is None else register(function)

    # -- policies ---------------------------------------------------------------------------------------------------

    def gate(self, gate: Gate) -> None:
        """What a candidate must pass before it may take traffic; unsaid: worse by 0.01 at most, of mae, mse and rmse by 2 %."""
        self._gate = gate

    def rollout(
        self,
        *stages: str,
        margin: float | str | None = None,
        alpha: float | None = None,
        deadline: str | None = None,
        paired: bool | None = None,
    ) -> None:
        """How a candidate meets traffic, stage after stage: "shadow 1d", "canary 5% 25% 100%", "blue-green", "ab 50% for 14d".

        Several candidates: "ab 40% 30% 30% for 14d". By rewards: "thompson among 3 for 14d", "linucb on age, income for 14d".
        Rankings in one list: "interleave team draft for 14d", "interleave team draft among 3 for 14d".
        An A/B test or a bandit on a share of the units that grows: "ab 50% for 21d ramped 1% 10% 100% every 1d".

        margin: in units of the metric (of the reward, for a bandit), by how much the candidate may be worse at most, 0.02 where it
        is not said; "2%": of what is expected of the champion, and for slices 5 % of it. By mae, mse and rmse the default is "5%".
        alpha: risk of a wrong verdict.  deadline: after this an undecided candidate leaves.  paired: both versions score each
        row (safe where the answer does not influence the label).
        """
        if not stages:
            raise UserFileError("A rollout needs at least one stage.", do='app.rollout("shadow 1d", "canary 5% 100%")')
        until = duration(deadline) if deadline is not None else None
        read = tuple(parse_rollout(stage, margin=margin, alpha=alpha, deadline=until, paired=paired) for stage in stages)
        self._rollout = check_stages(read if margin is not None else default_margins(read, self._columns["metric"]))

    def labels(
        self, *, arrive_within: str, arrives: str | None = None, promote_on: PromoteOn = "complete", nearly_all: float = 0.9
    ) -> None:
        """When labels come: nearly all within `arrive_within` of the event; `arrives` names a column that tells when.

        promote_on: "complete": a promotion rests on rows so old that labels of each class have come, as those before told, or older
        than `arrive_within` while these are few; "known": on nothing while they are few; "any": on every label as it comes.
        nearly_all: the share of a class's labels that is complete: more is surer, and waits longer where a few are very slow.
        """
        if promote_on not in PROMOTE_ON:
            raise UserFileError("A promotion may rest on other labels.", seen=repr(promote_on), do=nearest(promote_on, PROMOTE_ON))
        if not 0 < nearly_all < 1:
            raise UserFileError("Nearly all is a share between 0 and 1.", seen=str(nearly_all), do="e.g. nearly_all=0.9")
        self._labels = Labels(duration(arrive_within), arrives, promote_on, nearly_all)

    def monitor(
        self,
        settings: MonitorSettings | None = None,
        *,
        context: Sequence[str] | None = None,
        alarms_a_month: float | None = None,
        pages: str | None = None,
        streams: Sequence[str] | None = None,
    ) -> None:
        """How windows are cut and judged, and how many alarms are affordable; the words change the settings' own.

        context: columns, or "hour", "weekday", "hour_of_week", "month", "season", within which shift is judged: what they
        explain pages nobody.  alarms_a_month: false alarms about shifts in 30 days, over all columns.  pages: which shifts page,
        "harmful", "all" or "none".  streams: detectors of single values, "ddm on errors", "page-hinkley threshold=20 on temp".
        """
        said = {"context": context, "alarms_a_month": alarms_a_month, "pages": pages}
        known: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
        if "context" in known and not isinstance(context, str):
            known["context"] = tuple(known["context"])
        if streams is not None:
            known["streams"] = tuple(parse_stream(text, partial(resolve, "stream")) for text in streams)
        self._monitor = replace(settings or self._monitor, **known)

    def retrain(
        self,
        stage: str = "stateless",
        *,
        on: Sequence[str] = ("performance", "estimate"),
        growth: float | None = None,
        every: str | None = None,
        cooldown: str = "14d",
        at_most: int = 4,
        period: str = "90d",
        enough_labels: int = 1000,
    ) -> None:
        """When to retrain: "manual", "stateless", "stateful" or "continual"; drift alone never does.

        on: ranked evidence of harm.  growth: share of new labelled rows.  every: age.  The rest is the governor.
        """
        if stage not in set(Stage):
            raise UserFileError(f"There is no stage {stage!r} of continual learning.", do=nearest(stage, set(Stage)))
        for trigger in on:
            if trigger not in TRIGGERS:
                hint = "drift alone never retrains; " if trigger in ("shift", "drift") else ""
                raise UserFileError(f"{trigger!r} cannot trigger a retraining.", do=hint + nearest(trigger, TRIGGERS))
        if growth is not None and not (isinstance(growth, (int, float)) and 0 < growth <= 10):
            raise UserFileError("Growth is a share of the rows trained on.", seen=repr(growth), do="e.g. growth=0.3 for 30 % more")
        if at_most < 1 or enough_labels < 1:
            raise UserFileError("An impossible governor.", seen=f"at_most={at_most}, enough_labels={enough_labels}")
        governor = Governor(duration(cooldown), at_most, duration(period), enough_labels)
        age = duration(every) if every else None
        self._retrain = RetrainPolicy(Stage(stage), tuple(on), growth, age, governor)

    # -- the value, and verbs for notebooks -------------------------------------------------------------------------

    @property
    def system(self) -> System:
        """All of it as a value. Raises UserFileError while data or train are missing."""
        if self._data is None or self._train is None:
            missing = [n for n, v in (("@app.data", self._data), ("@app.train", self._train)) if v is None]
            raise UserFileError(f"The app {self.name!r} has no {' and no '.join(missing)}.", do="Add a function for it.")
        if any(spec.bandit for spec in self._rollout) and not has_reward(self._columns["metric"], self._reward):
            raise UserFileError(NO_REWARD, seen=f"metric={self._columns['metric']!r}", do=SAY)
        made = System(
            name=self.name,
            **self._columns,
            data=self._data,
            train=self._train,
            private=self._private,
            ignored=self._ignored,
            known_before=self._known_before,
            sides=tuple(self._sides),
            features=tuple(self._lists["feature"]),
            recipes=tuple(self._lists["recipe"]),
            rules=tuple(self._lists["rule"]),
            slices=tuple(self._lists["slice"]),
            reward=self._reward,
            behaviours=tuple(self._behaviours),
            gate=self._gate,
            rollout=self._rollout,
            labels=self._labels,
            monitor=self._monitor,
            retrain=self._retrain,
        )
        for spec in self._rollout:
            if spec.interleaves:
                ranked(made)
        return made

    def ship(self, version: str | None = None, beside: Sequence[str] = ()) -> Verdict:
        """Starts the rollout of a version (the newest by default), or makes it champion where there is none.

        beside: further candidates; where the rollout has more arms, the newest that have passed their gate by default.
        """
        with verbs.using_stores(self.name, self.folder) as opened:
            return verbs.ship(self.system, opened, version, beside)

    def status(self) -> State:
        """What is true now: champion, rollout, alarms."""
        with verbs.using_stores(self.name, self.folder) as opened:
            return verbs.status(opened)

    def why(self, version: str | None = None) -> DecisionRecord:
        """The decision record of a version: evidence, run, gate, rollout, verdict."""
        with verbs.using_stores(self.name, self.folder) as opened:
            return verbs.why(opened, version)

    def replay(self, *, since: str | None = None, until: str | None = None, step: str = "1d") -> Replayed:
        """Pushes history through the live code on its own clock, in memory, and tells what would have happened."""
        return verbs.replay(self.system, since=since, until=until, step=duration(step))

    def _collect(self, kind: str, function: F) -> F:
        known = [f.__name__ for f in self._lists[kind]]
        if function.__name__ in known:
            raise UserFileError(f"There are two {kind}s called {function.__name__!r}.", do="Rename one.")
        self._lists[kind].append(function)
        return function
