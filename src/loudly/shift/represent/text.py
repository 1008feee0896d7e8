"""Texts as columns, without a download: hashed character n-grams, thrown on a few random directions.

Nothing is learned and nothing is kept but a seed, so the same text has the same columns on every machine. It sees words, spelling,
script and length; not meaning: for that an encoder of one's own stands behind the plugin `onnx-text`.

Source: Weinberger et al. 2009 (hashing); Achlioptas 2003 and Li et al. 2006 (sparse random projections).
Cost: about 1 ms for 1,000 characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.errors import DataError

Embed = Callable[[Sequence[str]], Floats]

sklearn = late("sklearn")

BUCKETS = 2**16
LONGEST = 5_000


def hashed_text(dimensions: int = 128, seed: int = 0, *, shortest: int = 3, longest: int = 4) -> Embed:
    """A map from n texts to (n, dimensions); of a long text the first 5,000 characters count.

    shortest, longest: of the n-grams of characters, taken within words.

    >>> hashed_text(8)(["to be", "or not", "to be"]).shape
    (3, 8)
    """
    if dimensions < 1 or not 1 <= shortest <= longest:
        raise DataError("No such n-grams.", seen=f"{dimensions} columns of {shortest} to {longest} characters")
    grams = sklearn.feature_extraction.text.HashingVectorizer(
        analyzer="char_wb", ngram_range=(shortest, longest), n_features=BUCKETS, norm=None, alternate_sign=True, dtype=np.float64
    )
    thrown = sklearn.random_projection.SparseRandomProjection(dimensions, dense_output=True, random_state=seed)
    thrown.fit(np.zeros((1, BUCKETS)))

    def embed(texts: Sequence[str]) -> Floats:
        wrong = {type(t).__name__ for t in texts if not isinstance(t, str)}
        if wrong:
            raise DataError("These are no texts.", seen=", ".join(sorted(wrong)), do="Give strings; leave missing ones out.")
        if not len(texts):
            return np.zeros((0, dimensions))
        counts = grams.transform([t[:LONGEST] for t in texts])
        counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
        length = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
        made: Floats = thrown.transform(counts) / np.maximum(length, 1e-12)[:, None]
        return made

    return embed
