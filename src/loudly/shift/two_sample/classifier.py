"""Classifier two-sample test: if a classifier can tell window from reference on rows it has not seen, they differ.

Half of each sample trains; the other half tests: by its mean logit with a permutation p-value ("C2ST-L", sharper), or by its
accuracy with a binomial one (as published first). It ranks the columns that tell them apart.
Cost: one fit. Source: Lopez-Paz & Oquab 2017 (ICLR); Cheng & Cloninger 2022 for logits; Rabanser et al. 2019 for the protocol.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from loudly.core.canon import Json
from loudly.core.late import late
from loudly.core.values import Evidence
from loudly.errors import ConfigError, nearest
from loudly.shift.two_sample.samples import two_samples
from loudly.stats.permutation import p_value, subsets, window_means

sklearn = late("sklearn")

FEWEST = 8
CUT = 1e-6
WAYS = ("logit", "accuracy")


def classifier(
    reference: Any, window: Any, *, rng: np.random.Generator, permutations: int = 1000, by: str = "logit", model: Any = None
) -> Evidence:
    """Held-out balanced accuracy above one half, and its p-value. Shapes: (n, d), (m, d), each of at least 8 rows.

    by: "logit" or "accuracy".  model: anything with fit and predict_proba; gradient boosted trees where it is not given.
    The larger sample is thinned to the size of the smaller, so that accuracy has 1/2 as its null.

    >>> rng = np.random.default_rng(0)
    >>> classifier(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 2, rng=rng).p_value < 0.01
    True
    """
    if by not in WAYS:
        raise ConfigError(f"A classifier test goes by no {by!r}.", do=nearest(by, WAYS))
    one, two = two_samples(reference, window, fewest=FEWEST)
    size = min(len(one), len(two))
    one, two = (x[rng.permutation(len(x))[:size]] for x in (one, two))
    half = size // 2
    train, test = np.concatenate([one[:half], two[:half]]), np.concatenate([one[half:], two[half:]])
    sides = np.repeat([0, 1], [half, half])
    fitted = (model if model is not None else _trees(half)).fit(train, sides)
    chance = np.clip(np.asarray(fitted.predict_proba(test))[:, 1], CUT, 1 - CUT)
    held = size - half
    right = int((chance[:held] < 0.5).sum() + (chance[held:] >= 0.5).sum())
    if by == "accuracy":
        p = float(scipy.stats.binomtest(right, 2 * held, 0.5, alternative="greater").pvalue)
    else:
        scores = scipy.special.logit(chance)[:, None]
        p = p_value(window_means(scores, subsets(2 * held, held, permutations, rng))[:, 0])
    effect = right / (2 * held) - 0.5
    detail: dict[str, Json] = {"by": by, "held_out": 2 * held}
    return Evidence(f"classifier two-sample, {by}", effect, n=size, about="rows", unit="accuracy - 1/2", p_value=p, detail=detail)


def _trees(half: int) -> Any:
    return sklearn.ensemble.HistGradientBoostingClassifier(
        max_iter=50, min_samples_leaf=max(2, min(20, half // 5)), early_stopping=False, random_state=0
    )
