"""Disagreement: could a model that agrees on the reference say otherwise on these few rows? A test for windows of 10 to 50 rows.

Half of the reference grows trees on the answers (labels, or what the model says), so it looks at columns that the answers depend on
and is hard of hearing for the rest. What it hears is news to a model; whether it does harm only labels say. On the trees' leaves a
linear head must keep the answers of that half while it is asked to change its answer on the window's rows; how far it comes is the
statistic: where the reference has taught nothing, it comes far. The head is solved in closed form, so the window and 299 reference
runs of the same n, drawn from the other half and the window together, cost milliseconds, and the rank among them is exact.

Source: Ginsberg, Liang & Krishnan 2023 (ICLR), "A learning based hypothesis test for harmful covariate shift" (Detectron: boosting
refitted for each run); its successor D3M keeps the features and samples the last layer, which is solved for here. Side by
side: `benchmarks/tiny_windows.py`. Cost: one fit of small trees; a window of n rows solves 300 systems of n equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Floats, Ints
from loudly.core.values import Evidence
from loudly.errors import DataError
from loudly.shift.two_sample.samples import two_samples
from loudly.stats.permutation import p_value, subsets

sklearn = late("sklearn")

FEWEST = 20
MOST_HELD = 500
MOST_ROWS = 100
TREES, LEAVES = 50, 8
RIDGE = 0.1  # a share of the fit half's rows


@dataclass(frozen=True, slots=True)
class DisagreementReference:
    """A reference that has been fitted. Made by `fit_disagreement`; `check` holds windows against it.

    trees: fitted, with `apply` (scikit-learn) or `predict(pred_leaf=True)` (LightGBM).  leaves: of each tree, in the fit half.
    usual: (leaves,) the mean membership there, so that changing all answers alike gains nothing.  freedom: (leaves, leaves) how far
    the head's weights may move together.  held: the other half's rows.
    """

    trees: Any
    leaves: tuple[Ints, ...]
    usual: Floats
    freedom: Floats
    held: Floats
    supervised: bool
    seed: int

    def check(self, window: Any, *, permutations: int = 299) -> Evidence:
        """How far the answers on the window can be changed, and its p-value. Shape: (n, d); 100 rows at most are used."""
        held, rows = two_samples(self.held, window, fewest=1)
        rng = np.random.default_rng((self.seed, len(rows)))
        given = len(rows)
        if given > MOST_ROWS:
            rows = rows[np.sort(rng.permutation(given)[:MOST_ROWS])]
        inside = _members(self.trees, self.leaves, np.concatenate([held, rows])) - self.usual
        reach = inside @ self.freedom @ inside.T
        runs = subsets(len(reach), len(rows), permutations, rng)
        found = _bent(reach[runs[:, :, None], runs[:, None, :]])
        detail = {
            "permutations": permutations,
            "supervised": self.supervised,
            "rows_used": len(rows),
            "usual": float(found[1:].mean()),
        }
        return Evidence(
            "disagreement, permuted", float(found[0]), n=given, about="rows", unit="change of answer reached",
            p_value=p_value(found), detail=detail,
        )  # fmt: skip


def fit_disagreement(reference: Any, answers: Any = None, *, trees: Any = None, seed: int = 0) -> DisagreementReference:
    """Fits a reference: half of its rows teach, half are held for the null. Shapes: (n, d), answers (n,) classes.

    answers: labels, or the classes the model gives; without them the trees are random and every column counts.
    trees: gradient boosting with scikit-learn's interface, unfitted (LightGBM's are quicker above 1,000 rows).
    Raises: DataError for fewer than 20 rows, or answers of another length.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(400, 4))
    >>> fitted = fit_disagreement(x, x[:, 0] > 0)
    >>> moved = rng.normal(size=(20, 4)) + [3, 0, 0, 0]
    >>> fitted.check(moved).p_value <= 0.01
    True
    """
    rows, _ = two_samples(reference, reference, fewest=FEWEST)
    order = np.random.default_rng(seed).permutation(len(rows))
    one, two = order[: len(rows) // 2], order[len(rows) // 2 :][:MOST_HELD]
    known = None if answers is None else np.asarray(answers).ravel()
    if known is not None and len(known) != len(rows):
        raise DataError("Every row of the reference needs its answer.", seen=f"{len(known)} answers, {len(rows)} rows")
    supervised = known is not None and len(np.unique(known[one])) > 1
    grown = _grown(rows[one], known[one] if known is not None and supervised else None, trees, seed)
    at = _leaves(grown, rows[one])
    leaves = tuple(np.unique(column) for column in at.T)
    inside = _members(grown, leaves, rows[one])
    usual: Floats = inside.mean(axis=0)
    kept = (inside - usual).T @ (inside - usual) + RIDGE * len(inside) * np.eye(inside.shape[1])
    return DisagreementReference(grown, leaves, usual, np.linalg.inv(kept).astype(np.float64), rows[two], supervised, seed)


def _grown(rows: Floats, answers: Any, trees: Any, seed: int) -> Any:
    if answers is None:
        return sklearn.ensemble.RandomTreesEmbedding(TREES, max_leaf_nodes=LEAVES, random_state=seed).fit(rows)
    usual = sklearn.ensemble.GradientBoostingClassifier(
        n_estimators=TREES,
        max_leaf_nodes=LEAVES,
        subsample=0.8,
        min_samples_leaf=max(2, min(5, len(rows) // 20)),
        random_state=seed,
    )
    return (usual if trees is None else trees).fit(rows, answers)


def _leaves(trees: Any, rows: Floats) -> Ints:
    """(n, trees) the leaf of each row in each tree."""
    found = trees.apply(rows) if hasattr(trees, "apply") else trees.predict(rows, pred_leaf=True)
    return np.asarray(found).reshape(len(rows), -1).astype(np.int64)


def _members(trees: Any, leaves: tuple[Ints, ...], rows: Floats) -> Floats:
    """(n, all leaves) 0/1, scaled so that a row has length one; a leaf that the fit half never reached is nobody's."""
    at = _leaves(trees, rows)
    found: Floats = np.concatenate([at[:, [j]] == known for j, known in enumerate(leaves)], axis=1) / np.sqrt(len(leaves))
    return found


def _bent(reach: Floats) -> Floats:
    """Mean change of answer on the rows of each run when a change of one is asked of each. Shape: (b, n, n) -> (b,)."""
    asked = np.ones((*reach.shape[:2], 1))
    reached: Floats = (reach @ np.linalg.solve(reach + np.eye(reach.shape[1]), asked)).mean(axis=(1, 2))
    return reached
