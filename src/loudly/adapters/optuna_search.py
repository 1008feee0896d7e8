"""Optuna's TPE behind the search seam: seeded, in memory, ask and tell.

Of several open points the later ones keep away from the earlier (Optuna's constant liar); one alone is drawn as without it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from loudly.core.canon import Json, canonical
from loudly.core.late import late
from loudly.errors import LoudlyError
from loudly.train.space import Choice, Range, lies_in, read_space

optuna: Any = late("optuna")


class OptunaSearch:
    """Tree-structured Parzen estimator over a plain space; median pruning of intermediate losses."""

    def __init__(self, space: Mapping[str, Json], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = read_space(space)
        with warnings.catch_warnings():  # before Optuna 5 the liar was called experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.MedianPruner())
        self._stopped: set[int] = set()
        self._asked: dict[bytes, list[Any]] = {}
        self._steps: dict[int, int] = {}

    def start_from(self, params: Mapping[str, Json]) -> None:
        """A point to try first, such as the champion's; one outside the space is left out."""
        if lies_in(params, self._space):
            self._study.enqueue_trial(dict(params), skip_if_exists=True)

    def ask(self) -> dict[str, Json]:
        trial = self._study.ask()
        params = {name: self._suggest(trial, name, entry) for name, entry in self._space.items()}
        self._asked.setdefault(canonical(params), []).append(trial)
        self._steps[trial.number] = -1
        return params

    def tell(self, params: Mapping[str, Json], loss: float) -> None:
        trial = self._open(params)[0]
        if trial.number in self._stopped:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif math.isfinite(loss):
            self._study.tell(trial, loss)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self._asked[canonical(params)].pop(0)

    def report(self, params: Mapping[str, Json], step: int, loss: float) -> bool:
        waiting = self._open(params)
        if not math.isfinite(loss):
            return False
        trial = next((t for t in waiting if t.number not in self._stopped and self._steps[t.number] < step), waiting[-1])
        self._steps[trial.number] = step
        trial.report(loss, step)
        stop = bool(trial.should_prune())
        if stop:
            self._stopped.add(trial.number)
        return stop

    def _open(self, params: Mapping[str, Json]) -> list[Any]:
        """The trials that wait at this point, in the order in which they were asked for."""
        waiting = self._asked.get(canonical(params))
        if not waiting:
            raise LoudlyError("This point was not asked for.", seen=str(dict(params)), do="tell() what ask() gave.")
        return waiting

    @staticmethod
    def _suggest(trial: Any, name: str, entry: Range | Choice) -> Json:
        match entry:
            case Choice(options):
                picked: Json = trial.suggest_categorical(name, options)
                return picked
            case Range(low, high, log, True):
                return int(trial.suggest_int(name, int(low), int(high), log=log))
            case Range(low, high, log, _):
                return float(trial.suggest_float(name, low, high, log=log))
