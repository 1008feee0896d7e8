"""Rows that stand for what few rows cannot show: two more of each class, in every interval of decisions and of scores' order.

Where a model is right on all of the few rows of a class, or two models treat them alike, the rows alone leave no doubt, and most
models that are worse by the margin pass. So an interval counts for each class one row more on which the first model is as good
as it mostly is and the second is not, and one on which it is the other way round; of one model, one row of each kind.

Source: Laplace's rule of succession; Bonett & Price 2012, "Adjusted Wald confidence interval for a difference of binomial
proportions based on paired data", here for each class. For scores the rows and their size are our own: `benchmarks/gate.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loudly.core.seams import Floats

# Among the scores of other classes a row that is placed badly stands here, and among its own class's one placed well there: average
# precision is of the rows at the top.
BADLY, WELL = 0.25, {"roc_auc": 0.5, "average_precision": 0.75}


def of_decisions(truth: Floats, decisions: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """The truth and the decisions (n,) of one or two models, with two rows more for each class: one right, one wrong."""
    classes, counts = np.unique(truth, return_counts=True)
    usual = classes[np.argsort(-counts, kind="stable")]
    wrong = np.where(classes == usual[0], usual[1], usual[0])
    more = ([*classes, *wrong], [*wrong, *classes])
    return np.append(truth, [*classes, *classes]), [np.append(d, m) for d, m in zip(decisions, more, strict=False)]


def of_scores(name: str, truth: Floats, scores: Sequence[Floats]) -> tuple[Floats, list[Floats]]:
    """The truth and the scores (n,) or (n, k) of one or two models, with two rows more for each class, to measure AUC or average
    precision.

    One is placed well among its class (the median, or a quartile), the other on the wrong side of three quarters of the other
    classes' rows: of a positive their lower quartile, of a negative the upper one.

    >>> truth, told = of_scores("roc_auc", np.array([0.0, 0, 0, 1, 1, 1]), [np.array([0.1, 0.2, 0.3, 0.5, 0.7, 0.9])])
    >>> truth[6:], told[0][6:].round(2)
    (array([0., 0., 1., 1.]), array([0.2 , 0.8 , 0.7 , 0.15]))
    """
    classes, made = np.unique(truth), []
    for i, score in enumerate(scores):
        more = [_two(score, truth == kind, int(kind), WELL[name]) for kind in classes]
        made.append(np.concatenate([score, *(rows[::-1] if i else rows for rows in more)]))
    return np.append(truth, np.repeat(classes, 2)), made


def _two(score: Floats, own: NDArray[np.bool_], kind: int, well: float) -> Floats:
    """(2,) or (2, k): the score of a row of a class that is placed well, and that of one placed badly."""
    mine, others = score[own], score[~own]
    if score.ndim == 1:
        return np.array([np.quantile(mine, well if kind else 1 - well), np.quantile(others, BADLY if kind else 1 - BADLY)])
    badly = np.median(others, axis=0)
    badly[kind] = np.quantile(others[:, kind], BADLY)
    return np.stack([np.median(mine, axis=0), badly])
