"""Failed answers, counted so that the arm of each is one independent draw: a unit once a rollout, and a call once.

One user retries, one poisoned row fails a whole batch: failures come in bursts, and a unit sticks to its arm, so that a test
that counts requests takes one accident for many (equal models with errors in bursts of five: 35 to 44 % rolled back). Whether a
unit ever fails does not depend on its draw where both arms err alike, so the arm of its first failure is the candidate's with
the share of the moment, whatever the burst. Of a call the first row that tells is taken: rows of one call may fail together.
Where both arms score each row, a row that only one of them failed tells, and is the candidate's with probability 1/2.

Source: Deng, Knoblich & Lu 2018 (KDD) on the unit of randomisation against that of analysis; McNemar 1947 on discordant pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loudly.stats.clusters import Met, hashes

MOST = 2048


@dataclass(frozen=True, slots=True)
class Failing:
    """The units whose failure has been counted, as hashes, in bounded memory.

    >>> told, counts = Failing().add(["ann", "bob"], {"control": np.zeros(2, bool), "candidate": np.ones(2, bool)})
    >>> counts, told.add(["ann"], {"control": np.zeros(1, bool), "candidate": np.ones(1, bool)})[1]
    ({'control': 0, 'candidate': 1}, {'control': 0, 'candidate': 0})
    """

    met: Met = field(default_factory=Met)

    def add(self, units: Sequence[Any], failed: Mapping[str, NDArray[np.bool_]]) -> tuple[Failing, dict[str, int]]:
        """After one call; with what is to be counted of it. failed: arm -> (n,) whose answer that arm was asked for and failed."""
        each = np.stack(list(failed.values()))
        first = np.flatnonzero(each.sum(axis=0) == 1)[:1]
        met, counts = self.met.add(hashes([units[row] for row in first]), each[:, first].argmax(axis=0), len(failed), MOST)
        return Failing(met), dict(zip(failed, counts, strict=True))
