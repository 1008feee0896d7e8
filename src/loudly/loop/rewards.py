"""What came of each answer, as a number in [0, 1]: what a bandit learns from.

By default it is 1 minus the loss of the answer that the client got: the error of the decision where the metric is one of
decisions, the squared error of the probability otherwise. A row that an arm failed to answer has the reward of what was answered
instead, for that is what came of asking this arm. `@app.reward` says otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Floats
from loudly.core.values import Task
from loudly.errors import RolloutError, UserFileError, one_line
from loudly.loop.system import System
from loudly.metrics.table import in_traffic, metric

NO_REWARD = "A number that is predicted has no loss between 0 and 1, so a bandit cannot learn from it."
SAY = 'e.g. @app.reward with def reward(rows, answers): return (1 - (rows["price"] - answers).abs() / 100).clip(0, 1)'


def rewards(system: System, task: Task, rows: pl.DataFrame, answers: Floats, truth: Floats) -> Floats:
    """(n,) in [0, 1]. rows: as served, with the label.  answers: (n,) or (n, k), what clients got.

    Raises: UserFileError where the user's function gives something else, RolloutError where there is no default.
    """
    if system.reward is None:
        return _default(system, task, answers, truth)
    shown = rows.select(name for name in rows.columns if not name.startswith("_"))
    name = system.reward.__name__
    try:
        given = system.reward(shown, pl.Series("answer", answers))
    except Exception as wrong:  # the user's function may raise anything; whoever brought the labels is told which function it was
        raise UserFileError(f"The reward {name!r} failed.", seen=one_line(wrong), do=SAY) from wrong
    try:
        made = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as wrong:
        raise UserFileError(f"The reward {name!r} gave no numbers.", seen=str(wrong), do=SAY) from wrong
    if made.shape != (rows.height,):
        raise UserFileError(f"The reward {name!r} gives one number a row.", seen=f"{made.shape} for {rows.height} rows", do=SAY)
    outside = ~((made >= 0) & (made <= 1))
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        seen = f"{made[row]:g} for {system.key}={rows[system.key][row]!r}, and {int(outside.sum()) - 1} more"
        do = "Scale by bounds that are known beforehand: (value - low) / (high - low), and clip."
        raise UserFileError(f"The reward {name!r} gave a value outside [0, 1].", seen=seen, do=do)
    return made


def has_reward(name: str, reward: Any) -> bool:
    """Whether there is a reward: the user's own, or the default of the metric of that name."""
    return reward is not None or metric(name).tasks != (Task.REGRESSION,)


def _default(system: System, task: Task, answers: Floats, truth: Floats) -> Floats:
    """1 minus the loss, within [0, 1]: a score that is no probability, or the constant fallback, may lose more than all."""
    if task is Task.REGRESSION:
        raise RolloutError(NO_REWARD, do=SAY)
    judged = in_traffic(system.metric, task)
    spec = judged if judged.name == "accuracy" else metric("brier")
    assert spec.loss is not None
    worst = 2.0 if answers.ndim == 2 and spec.name == "brier" else 1.0
    return np.clip(1.0 - spec.loss(truth, answers) / worst, 0.0, 1.0)
