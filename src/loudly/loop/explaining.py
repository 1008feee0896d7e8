"""Explanations of the versions that answer: by the model itself where it is a sum of its columns, else by Shapley values.

The model is the original, not its fast form. Nothing is logged: an explanation is no traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.clock import stopwatch
from loudly.core.seams import Contributions, Floats, Model
from loudly.errors import DataError, LoudlyError, ModelError, one_line
from loudly.loop.host import Host
from loudly.loop.serving import ORIGINAL, Ready
from loudly.serve.explanation import Explanation
from loudly.serve.rows import Rows
from loudly.stats.shapley import MOST_EXACT, shapley

BACKGROUND_ROWS, MOST_KEPT, SEED = 64, 4, 0
TOLERANCE = 1e-4
LINKS: dict[str, Callable[[Floats], Floats]] = {
    "output": lambda score: score,
    "log-odds": lambda score: 1 / (1 + np.exp(-score)),
    "logits": lambda score: np.exp(score - score.max(axis=1, keepdims=True)) / _total(score),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A version that can be explained. model: the original.  score: (n, d) matrix -> (n,) or (n, k).  background: (m, d)."""

    ready: Ready
    model: Model
    score: Callable[[Floats], Floats]
    background: Floats


class Explaining:
    """Explains rows for a Live. Many threads may ask."""

    def __init__(self, live: Host) -> None:
        self._live = live
        self._subjects: dict[str, Subject] = {}

    def explain(self, rows: Rows, seconds: float) -> list[Explanation]:
        """Each row explained by the version that answers its unit.

        Raises: RolloutError while there is no champion, DataError for rows that do not fit or without rows to compare with,
        ModelError where the model fails, TimeoutError after so many seconds.
        """
        until = stopwatch() + seconds
        rows, units, router = self._live.answering.prepared(rows)
        told = router.give_up(rows, units, "")  # who answers whom, without asking a model
        table = rows.table()
        found: dict[int, Explanation] = {}
        for index in np.unique(told.arm).tolist():
            mine = np.flatnonzero(told.arm == index)
            made = self._by(told.versions[index], told.names[index], table[mine], until)
            found.update(zip(mine.tolist(), made, strict=True))
        return [found[i] for i in range(table.height)]

    def _by(self, version: str, arm: str, table: pl.DataFrame, until: float) -> list[Explanation]:
        subject = self._subject(version)
        if subject.ready.frame == "raw":
            raise DataError(f"{version} cannot be explained: it takes its columns raw, and what is explained is numbers.")
        try:
            X = subject.ready.features.matrix(table)
            prediction = subject.score(X)
            made = _own(subject, X, prediction) or _agnostic(subject, X, until)
        except (TimeoutError, LoudlyError):
            raise
        except Exception as wrong:
            raise ModelError(f"{version} could not score these rows.", seen=one_line(wrong)) from wrong
        names = subject.ready.features.columns
        return [_told(names, prediction[i], version, arm, *made, i) for i in range(len(X))]

    def _subject(self, version: str) -> Subject:
        ready = self._live.ready[version]
        known = self._subjects.get(version)
        if known is not None and known.ready is ready:
            return known
        if len(self._subjects) >= MOST_KEPT:
            self._subjects.clear()
        model = ready.model if ready.served == ORIGINAL else ready.format.load(ready.bundle.model)
        self._subjects[version] = made = Subject(ready, model, _score(ready, model), self._background(ready))
        return made

    def _background(self, ready: Ready) -> Floats:
        """Some rows of the newest training table, drawn by a fixed seed."""
        table = self._live.retraining.reference()
        if table.is_empty():
            raise DataError("There are no training rows at hand to compare with.", do="Train once with this store.")
        return ready.features.matrix(table.sample(min(BACKGROUND_ROWS, table.height), seed=SEED))


def _score(ready: Ready, model: Model) -> Callable[[Floats], Floats]:
    if ready.frame != "polars":
        return model.predict
    columns = list(ready.features.columns)
    return lambda X: model.predict(pl.DataFrame(X, schema=columns, orient="row"))  # type: ignore[arg-type]


def _own(subject: Subject, X: Floats, prediction: Floats) -> tuple[Contributions, Floats] | None:
    """What the model says of itself, where it can and where it adds up to what it predicts."""
    ask: Any = getattr(subject.model, "contributions", None)
    made: Contributions | None = ask(X, subject.background) if ask is not None else None
    if made is None:
        return None
    linked = LINKS[made.space](made.score)
    gap = np.abs(linked - prediction.reshape(linked.shape)) if linked.size == prediction.size else np.inf
    if not np.all(gap <= TOLERANCE * np.maximum(1.0, np.abs(linked))):
        return None
    return made, np.zeros(len(X))


def _agnostic(subject: Subject, X: Floats, until: float) -> tuple[Contributions, Floats]:
    """Shapley values row by row, in the space of the predictions; the orders are drawn alike for each row."""
    parts, errors, base = [], [], np.zeros(1)
    for row in X:
        if stopwatch() > until:
            raise TimeoutError
        base, found, error = shapley(subject.score, row, subject.background, np.random.default_rng(SEED))
        parts.append(found)
        errors.append(float(error.max(initial=0.0)))
    method = "shapley" if X.shape[1] <= MOST_EXACT else "shapley-sampling"
    return Contributions(method, "output", base, np.stack(parts)), np.asarray(errors)


def _told(
    names: Sequence[str], prediction: Any, version: str, arm: str, made: Contributions, errors: Floats, index: int
) -> Explanation:
    parts = made.parts[index]
    score = made.base + parts.sum(axis=0)
    one = parts.shape[1] == 1
    told = dict(zip(names, parts[:, 0].tolist() if one else parts.tolist(), strict=True))
    base, total = (float(made.base[0]), float(score[0])) if one else (made.base.tolist(), score.tolist())
    return Explanation(prediction.tolist(), version, arm, made.method, made.space, base, total, told, float(errors[index]))


def _total(score: Floats) -> Floats:
    return np.asarray(np.exp(score - score.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))
