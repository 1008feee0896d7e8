"""Which rows go wrong: a shallow tree on confirmed losses, told as rules, each with its effect on rows the tree never saw.

The tree is grown on one half of the rows and judged on the other, so a rule that fits noise shows an interval around zero
and is not told. With the losses of a reference period a rule also says what was so before: rows that were always hard are
no news.

Source: Breiman et al. 1984 (the tree); Welch 1947 (the intervals; by days a jackknife), Bonferroni over the leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.errors import DataError
from loudly.stats.clusters import block_difference

sklearn = late("sklearn")

MOST_VALUES = 30
SMALLEST_LEAF = 30


@dataclass(frozen=True, slots=True)
class Rule:
    """A readable condition and what it costs: mean loss where it holds less mean loss where it does not, on held-out rows.

    before: the same mean loss in the reference period (None where none was given or none of its rows fit).
    news: whether the loss where it holds is surely above what it was before.
    """

    text: str
    rows: int
    share: float
    loss: float
    effect: float
    low: float
    high: float
    before: float | None = None
    news: bool = True


@dataclass(frozen=True, slots=True)
class _Test:
    """A 0/1 or numeric input of the tree and how it reads below (<=) and above a threshold."""

    column: str
    value: str | None
    kind: str


def error_rules(
    table: pl.DataFrame,
    loss: Any,
    columns: Sequence[str],
    reference: tuple[pl.DataFrame, Any] | None = None,
    depth: int = 3,
    alpha: float = 0.05,
    seed: int = 0,
    days: tuple[Any, Any] | None = None,
) -> tuple[Rule, ...]:
    """Rules under which rows are answered surely worse than others, the costliest (effect times rows) first.

    Shapes: loss (n,), any number per row that is larger where the answer was worse (0/1 errors, squared errors).
    Rows whose loss is not known (NaN) are left out. Fewer than 120 rows tell no rule: the answer is empty.
    days: the day of each row, and of each reference row (None without a reference). Rows of one day err alike, so the tree is
    then grown on half of the days and the intervals take days, not rows, as what was drawn. Without days rows count as independent.

    Raises: DataError where loss and table are not of one length.
    """
    told = np.asarray(loss, dtype=np.float64)
    if len(told) != table.height:
        raise DataError("Every row needs its loss.", seen=f"{len(told)} losses, {table.height} rows", do="join them by key first")
    known = np.isfinite(told)
    at_day = None if days is None else _days(days[0], table.height)[known]
    table, told = table.filter(pl.Series(known)), told[known]
    if table.height < 4 * SMALLEST_LEAF:
        return ()
    inputs, tests = _inputs(table, columns, table)
    half = _half(table.height, at_day, np.random.default_rng(seed))
    if min(half.sum(), (~half).sum()) < 2 * SMALLEST_LEAF:
        return ()
    leaf = max(SMALLEST_LEAF, table.height // 100)
    tree = sklearn.tree.DecisionTreeRegressor(max_depth=depth, min_samples_leaf=leaf, random_state=seed)
    tree.fit(inputs[half], told[half])
    paths = _paths(tree, tests)
    at = tree.apply(inputs[~half])
    past = None if reference is None else _past(tree, tests, columns, reference, table, days)
    held = told[~half], None if at_day is None else at_day[~half]
    rules = [_rule(text, held, at == node, alpha / len(paths), node, past) for node, text in paths.items()]
    return tuple(sorted((r for r in rules if r is not None and r.low > 0), key=lambda r: -r.effect * r.rows))


def _rule(
    text: str, held: tuple[Floats, Any], inside: Any, alpha: float, node: int, past: tuple[Any, Floats, Any] | None
) -> Rule | None:
    loss, day = held
    if min(inside.sum(), (~inside).sum()) < 5 or not text:
        return None
    found = block_difference(loss[inside], loss[~inside], None if day is None else (day[inside], day[~inside]))
    before, news = None, True
    if past is not None:
        mine = past[0] == node
        then = past[1][mine]
        if len(then) >= 5:
            risen = block_difference(loss[inside], then, None if day is None else (day[inside], past[2][mine]))
            before, news = float(then.mean()), risen.value - risen.reach(alpha) > 0
    reach = found.reach(alpha)
    return Rule(
        text, int(inside.sum()), float(inside.mean()), float(loss[inside].mean()), found.value, found.value - reach,
        found.value + reach, before, news,
    )  # fmt: skip


def _half(n: int, day: Any, rng: np.random.Generator) -> Any:
    """(n,) which rows grow the tree: half of the rows, or of the days."""
    if day is None:
        return rng.random(n) < 0.5
    names, codes = np.unique(day, return_inverse=True)
    return (rng.permutation(len(names)) < len(names) // 2)[codes]


def _days(given: Any, n: int) -> Any:
    made = np.asarray(given)
    if made.shape != (n,):
        raise DataError("Every row needs its day.", seen=f"{made.shape} days, {n} rows")
    return made


def _past(
    tree: Any,
    tests: Sequence[_Test],
    columns: Sequence[str],
    reference: tuple[pl.DataFrame, Any],
    table: pl.DataFrame,
    days: tuple[Any, Any] | None,
) -> tuple[Any, Floats, Any]:
    losses = np.asarray(reference[1], dtype=np.float64)
    known = np.isfinite(losses)
    inputs, same = _inputs(reference[0].filter(pl.Series(known)), columns, table)
    assert list(same) == list(tests)
    return tree.apply(inputs), losses[known], None if days is None else _days(days[1], len(losses))[known]


def _inputs(table: pl.DataFrame, columns: Sequence[str], like: pl.DataFrame) -> tuple[Floats, list[_Test]]:
    """(n, tests) numbers, one column per number, per missing number, and per frequent category of `like`."""
    made: list[Any] = []
    tests: list[_Test] = []
    for name in columns:
        if like[name].dtype.is_numeric():
            numbers = table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            usual = float(np.nanmedian(like[name].cast(pl.Float64).to_numpy())) if like[name].count() else 0.0
            made.append(np.where(np.isfinite(numbers), numbers, usual))
            tests.append(_Test(name, None, "number"))
            if like[name].null_count():
                made.append(~np.isfinite(numbers))
                tests.append(_Test(name, None, "missing"))
            continue
        text = table[name].cast(pl.String).fill_null("missing")
        frequent = like[name].cast(pl.String).fill_null("missing").value_counts(sort=True)[name].head(MOST_VALUES)
        for value in frequent.to_list():
            made.append((text == value).to_numpy())
            tests.append(_Test(name, value, "category"))
    return np.column_stack(made).astype(np.float64), tests


def _paths(tree: Any, tests: Sequence[_Test]) -> dict[int, str]:
    """Leaf -> its condition in words; repeated thresholds of one number are said once, an equality silences its negations."""
    nodes = tree.tree_
    out: dict[int, str] = {}
    stack: list[tuple[int, tuple[tuple[_Test, bool, float], ...]]] = [(0, ())]
    while stack:
        node, path = stack.pop()
        if nodes.children_left[node] < 0:
            out[node] = _read(path)
            continue
        test, threshold = tests[nodes.feature[node]], float(nodes.threshold[node])
        stack.append((int(nodes.children_right[node]), (*path, (test, True, threshold))))
        stack.append((int(nodes.children_left[node]), (*path, (test, False, threshold))))
    return out


def _read(path: Sequence[tuple[_Test, bool, float]]) -> str:
    bounds: dict[tuple[str, str], float] = {}
    said: dict[str, list[str]] = {}
    for test, above, threshold in path:
        words = said.setdefault(test.column, [])
        if test.kind == "number":
            side = ">" if above else "<="
            before = bounds.get((test.column, side))
            bounds[test.column, side] = threshold if before is None else (max if above else min)(before, threshold)
        elif test.kind == "missing":
            words.append(f"{test.column} is {'' if above else 'not '}missing")
        elif above:
            said[test.column] = [f"{test.column} is {test.value}"]
        else:
            words.append(f"{test.column} is not {test.value}")
    for (column, side), threshold in bounds.items():
        said[column].append(f"{column} {side} {threshold:.4g}")
    return " and ".join(w for words in said.values() for w in words)
