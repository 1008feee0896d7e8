"""The context-conditional test with kernels: many columns at once, contexts that are numbers rather than strata.

Window and reference are compared by the maximum mean discrepancy of their conditional mean embeddings, averaged over contexts
of the window that were held out: where the window never goes, nothing is compared. The null is drawn by giving every row a
side anew with the probability that its context has of being in the window, so that the contexts stay as uneven as they are.
For a few hundred rows: it costs O(n^3) a permutation.

Source: Cobb & Van Looveren 2022, "Context-aware drift detection", ICML, sections 3-4 (MMD-based ADiTT, conditional resampling).
"""

from __future__ import annotations

import numpy as np
import scipy

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.errors import DataError
from loudly.stats.threads import OneThread

sklearn = late("sklearn")

FEWEST_ROWS = 20
HELD_OUT = 0.25


def context_mmd(
    reference: Floats,
    window: Floats,
    reference_context: Floats,
    window_context: Floats,
    permutations: int = 100,
    ridge: float = 0.01,
    most: int = 400,
    seed: int = 0,
) -> Evidence:
    """Evidence on whether rows changed beyond what their contexts explain; the effect is the squared discrepancy.

    Shapes: reference (m, d), window (n, d), contexts (m, c) and (n, c); at most `most` rows of each side are drawn.
    Fewer than 20 rows on a side: the effect is None. Units: a squared MMD in [0, 2], kernels with the median heuristic.
    """
    rng = np.random.default_rng(seed)
    sides = [(np.atleast_2d(x), np.atleast_2d(c)) for x, c in ((reference, reference_context), (window, window_context))]
    if not all(np.isfinite(part).all() for side in sides for part in side):
        raise DataError("Kernels need finite numbers.", seen="NaN or infinite values", do="drop or fill such rows first")
    if min(len(x) for x, _ in sides) < FEWEST_ROWS:
        return Evidence("context MMD", None, n=len(sides[1][0]), unit="squared MMD")
    linear, nystroem = sklearn.linear_model, sklearn.kernel_approximation.Nystroem  # imported before threads are counted
    with OneThread().held():  # a few hundred rows are slower on many threads, and far slower on a busy machine
        drawn = [(x[i], c[i]) for (x, c), i in ((s, rng.permutation(len(s[0]))[:most]) for s in sides)]
        held = int(HELD_OUT * len(drawn[1][0]))
        x = np.concatenate([drawn[0][0], drawn[1][0][held:]])
        c = np.concatenate([drawn[0][1], drawn[1][1][held:]])
        z = np.repeat([0, 1], [len(drawn[0][0]), len(drawn[1][0]) - held])
        K = _gram(x, x)
        scale = c.std(axis=0) + 1e-12
        L, at = _gram(c / scale, c / scale), _gram(c / scale, drawn[1][1][:held] / scale, _median(c / scale))
        model = linear.LogisticRegression(C=10.0, max_iter=1000)
        odds = sklearn.pipeline.make_pipeline(nystroem(n_components=min(60, len(c)), random_state=seed), model)
        chance = odds.fit(c / scale, z).predict_proba(c / scale)[:, 1]
        found = _discrepancy(K, L, at, z, ridge)
        null = [_discrepancy(K, L, at, _sides(rng, chance), ridge) for _ in range(permutations)]
        p = (1 + sum(value >= found for value in null)) / (1 + permutations)
        return Evidence(
            "context MMD", found, n=len(window), unit="squared MMD", p_value=p, detail={"drawn": len(x), "held_out": held}
        )


def _sides(rng: np.random.Generator, chance: Floats) -> Floats:
    """Sides drawn anew; both have at least two rows."""
    while True:
        z = (rng.random(len(chance)) < chance).astype(np.int64)
        if 2 <= z.sum() <= len(z) - 2:
            return np.asarray(z)


def _discrepancy(K: Floats, L: Floats, at: Floats, z: Floats, ridge: float) -> float:
    weights = np.zeros((len(z), at.shape[1]))
    for side, sign in ((0, -1.0), (1, 1.0)):
        rows = np.flatnonzero(z == side)
        inner = L[np.ix_(rows, rows)] + ridge * len(rows) * np.eye(len(rows))
        weights[rows] = sign * scipy.linalg.cho_solve(scipy.linalg.cho_factor(inner), at[rows])
    return float(np.einsum("ij,ij->j", weights, K @ weights).mean())


def _median(x: Floats) -> float:
    gaps = scipy.spatial.distance.cdist(x, x, "sqeuclidean")
    return float(np.median(gaps[np.triu_indices(len(x), 1)])) or 1.0


def _gram(a: Floats, b: Floats, width: float | None = None) -> Floats:
    return np.asarray(np.exp(-scipy.spatial.distance.cdist(a, b, "sqeuclidean") / (_median(a) if width is None else width)))
