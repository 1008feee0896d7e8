"""Failed answers, counted so that the arm of each is one independent draw: a unit once a rollout, and a call once.

One user retries, one poisoned row fails a whole batch: failures come in bursts, and a unit sticks to its arm, so that a test
that counts requests takes one accident for many (equal models with errors in bursts of five: 35 to 44 % rolled back). Whether a
unit ever fails does not depend on its draw where both arms err alike, so the arm of its first failure is the candidate's with
the share of the moment, whatever the burst. Of a call the first row that tells is taken: rows of one call may fail together.
Where both arms score each row, a row that only one of them failed tells, and is the candidate's with probability 1/2.

Source: Deng, Knoblich & Lu 2018 (KDD) on the unit of randomisation against that of analysis; McNemar 1947 on discordant pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loudly.stats.clusters import Met, hashes

MOST = 2048


def telling(failed: Mapping[str, NDArray[np.bool_]]) -> tuple[int, str] | None:
    """The row of a call that is counted, and the arm that failed it. failed: arm -> (n,) whose answer it was asked for and failed.

    >>> telling({"control": np.array([True, False]), "candidate": np.array([True, True])})
    (1, 'candidate')
    """
    each = np.stack(list(failed.values()))
    rows = np.flatnonzero(each.sum(axis=0) == 1)
    return (int(rows[0]), list(failed)[int(each[:, rows[0]].argmax())]) if len(rows) else None


@dataclass(frozen=True, slots=True)
class Failing:
    """The units whose failure has been counted, as hashes, in bounded memory.

    >>> known, first = Failing().add("ann")
    >>> first, known.add("ann")[1]
    (True, False)
    """

    met: Met = field(default_factory=Met)

    def add(self, unit: str) -> tuple[Failing, bool]:
        """After one failure more; with whether it is to be counted."""
        met, (counted,) = self.met.add(hashes([unit]), np.zeros(1, dtype=np.int64), 1, MOST)
        return Failing(met), counted > 0
