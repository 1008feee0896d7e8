"""The model itself as a representation: its softmax ("BBSDs") or its decision ("BBSDh").

A shift that does not move the model's outputs cannot be seen here, and one that does is likely to matter.
Source: Lipton, Wang & Smola 2018 (ICML): "black box shift detection".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from loudly.core.seams import Floats

Represent = Callable[[Floats], Floats]


def softmax(predict: Represent) -> Represent:
    """The model's probabilities, as columns. Shapes: (n, d) -> (n, classes); a binary score becomes one column.

    >>> softmax(lambda x: x[:, 0])(np.ones((3, 2))).shape
    (3, 1)
    """

    def scores(rows: Floats) -> Floats:
        made = np.asarray(predict(rows), dtype=np.float64)
        return made[:, None] if made.ndim == 1 else made

    return scores


def decision(predict: Represent) -> Represent:
    """The most likely class, as one column. Shapes: (n, d) -> (n, 1). A binary score is cut at one half.

    >>> decision(lambda x: x)(np.array([[0.1, 0.9], [0.8, 0.2]])).ravel().tolist()
    [1.0, 0.0]
    """

    def decided(rows: Floats) -> Floats:
        made = np.asarray(predict(rows), dtype=np.float64)
        chosen = made >= 0.5 if made.ndim == 1 else made.argmax(axis=1)
        return chosen.astype(np.float64)[:, None]

    return decided
