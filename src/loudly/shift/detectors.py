"""The two-sample tests as detectors: a state that is data, windows in, evidence out, chance from the state alone.

| name | sees | cost | use it |
|---|---|---|---|
| `rank-embedding` | anything, at any n | linear | the default |
| `ks` | one column that moved | one sort a column | on a model's scores; published figures |
| `mmd` | smooth changes of the joint distribution | quadratic | up to 5,000 rows |
| `mmd-agg`, `mmd-fuse` | the same at ten bandwidths | ten times that | where the bandwidth is in doubt |
| `energy` | the same without a bandwidth | quadratic | heavy tails |
| `mean-embedding` | as mmd, approximately | linear | above 5,000 rows |
| `classifier` | interactions of columns | one fit | hundreds of rows and more |
| `disagreement` | rows where the reference taught nothing | 300 small systems | 10 to 50 rows |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from loudly.core.seams import Floats
from loudly.core.values import Evidence
from loudly.shift.rank_embedding import fit
from loudly.shift.two_sample.classifier import classifier
from loudly.shift.two_sample.disagreement import fit_disagreement
from loudly.shift.two_sample.energy import energy
from loudly.shift.two_sample.kolmogorov_smirnov import kolmogorov_smirnov
from loudly.shift.two_sample.mean_embedding import mean_embedding
from loudly.shift.two_sample.mmd import mmd
from loudly.shift.two_sample.mmd_agg import mmd_agg
from loudly.shift.two_sample.mmd_fuse import mmd_fuse

Test = Callable[[Floats, Floats, np.random.Generator], Evidence]


@dataclass(frozen=True, slots=True)
class TwoSample:
    """A two-sample test behind the seam `Detector`. `most`: rows of either sample that are used, drawn at random.

    >>> rng = np.random.default_rng(0)
    >>> state = KS.init(rng.normal(size=(300, 2)))
    >>> state, evidence = KS.update(state, rng.normal(size=(300, 2)) + 1)
    >>> evidence.p_value < 1e-6, state["windows"]
    (True, 1)
    """

    name: str
    test: Test
    most: int

    def init(self, reference: Any) -> dict[str, Any]:
        """The reference, and how many windows have been seen: with it the chance of the next one is fixed."""
        return {"reference": np.asarray(reference, dtype=np.float64), "windows": 0}

    def update(self, state: Mapping[str, Any], window: Any) -> tuple[dict[str, Any], Evidence]:
        """Evidence with an exact or asymptotic p-value. Shapes: reference (n, d), window (m, d). The state is not changed."""
        rng = np.random.default_rng(int(state["windows"]))
        reference = self._thinned(np.asarray(state["reference"], dtype=np.float64), rng)
        rows = self._thinned(np.asarray(window, dtype=np.float64), rng)
        return {**state, "windows": state["windows"] + 1}, self.test(reference, rows, rng)

    def _thinned(self, rows: Floats, rng: np.random.Generator) -> Floats:
        return rows if len(rows) <= self.most else rows[np.sort(rng.permutation(len(rows))[: self.most])]


def _ranked(reference: Floats, window: Floats, rng: np.random.Generator) -> Evidence:
    found = fit(reference, seed=int(rng.integers(2**31))).check(window)
    return found.evidence[0] if found.evidence else Evidence("rank embedding, permuted", None, about=found.reason)


def _disagreed(reference: Floats, window: Floats, rng: np.random.Generator) -> Evidence:
    return fit_disagreement(reference, seed=int(rng.integers(2**31))).check(window)


KS = TwoSample("ks", lambda a, b, rng: kolmogorov_smirnov(a, b), 1_000_000)
MMD = TwoSample("mmd", lambda a, b, rng: mmd(a, b, rng=rng), 5_000)
MMD_AGG = TwoSample("mmd-agg", lambda a, b, rng: mmd_agg(a, b, rng=rng), 2_000)
MMD_FUSE = TwoSample("mmd-fuse", lambda a, b, rng: mmd_fuse(a, b, rng=rng), 2_000)
ENERGY = TwoSample("energy", lambda a, b, rng: energy(a, b, rng=rng), 5_000)
MEAN_EMBEDDING = TwoSample("mean-embedding", lambda a, b, rng: mean_embedding(a, b, rng=rng), 20_000)
CLASSIFIER = TwoSample("classifier", lambda a, b, rng: classifier(a, b, rng=rng), 20_000)
RANK_EMBEDDING = TwoSample("rank-embedding", _ranked, 50_000)
DISAGREEMENT = TwoSample("disagreement", _disagreed, 1_000)
