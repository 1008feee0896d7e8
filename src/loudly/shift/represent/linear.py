"""Principal components and sparse random projections of rows.

Source: Pearson 1901; Achlioptas 2003; both as in Rabanser et al. 2019 with 32 dimensions.
"""

from __future__ import annotations

from collections.abc import Callable

from loudly.core.late import late
from loudly.core.seams import Floats

Represent = Callable[[Floats], Floats]

sklearn = late("sklearn")

DIMENSIONS = 32


def principal_components(rows: Floats, dimensions: int = DIMENSIONS, seed: int = 0) -> Represent:
    """The first principal components. Shapes: (n, d) -> a map to (n, min(dimensions, n, d)).

    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(100, 5))
    >>> principal_components(x, 2)(x[:3]).shape
    (3, 2)
    """
    kept = min(dimensions, *rows.shape)
    solver = "randomized" if min(rows.shape) > 2 * kept else "full"
    return _of(sklearn.decomposition.PCA(kept, svd_solver=solver, random_state=seed).fit(rows).transform)


def sparse_projection(rows: Floats, dimensions: int = DIMENSIONS, seed: int = 0) -> Represent:
    """A sparse random projection: nothing is learned but the number of columns. Shapes: (n, d) -> a map to (n, dimensions).

    >>> import numpy as np
    >>> sparse_projection(np.zeros((1, 100)), 8)(np.ones((3, 100))).shape
    (3, 8)
    """
    thrown = sklearn.random_projection.SparseRandomProjection(dimensions, dense_output=True, random_state=seed)
    return _of(thrown.fit(rows).transform)


def _of(transform: Callable[[Floats], Floats]) -> Represent:
    return transform
