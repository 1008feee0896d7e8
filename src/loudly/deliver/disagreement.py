"""Where two versions disagree, overall and by slice: what a shadow is for, before any label has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loudly.core.canon import Json
from loudly.core.seams import Floats
from loudly.metrics.table import decided

OVERALL = "all"
SHOWN = 10


@dataclass(slots=True)
class Disagreement:
    """Sums by slice: rows, rows decided otherwise, and the mean absolute and signed gap of the scores."""

    sums: dict[str, list[float]] = field(default_factory=dict)
    decides: bool = True

    def add(self, control: Floats, candidate: Floats, slices: Mapping[str, Any], *, classes: bool) -> None:
        """A batch that both have scored. Shapes: (n,) or (n, k); slices name -> (n,) membership."""
        if not len(control):
            return
        self.decides = classes
        gap = (candidate - control).reshape(len(control), -1)
        known = np.isfinite(gap).all(axis=1)
        otherwise = decided(candidate) != decided(control) if classes else np.zeros(len(control), dtype=bool)
        for name, inside in {OVERALL: np.ones(len(control), dtype=bool), **slices}.items():
            rows = inside & known
            old = self.sums.setdefault(name, [0.0, 0.0, 0.0, 0.0])
            new = (rows.sum(), otherwise[rows].sum(), np.abs(gap[rows]).mean(axis=1).sum(), gap[rows].mean(axis=1).sum())
            self.sums[name] = [a + float(b) for a, b in zip(old, new, strict=True)]

    def report(self) -> dict[str, Json]:
        """Overall and the slices that disagree most: rows, share decided otherwise (of classes), mean |gap|, mean gap."""
        told = {
            name: {
                "rows": int(n),
                **({"decided_otherwise": other / n} if self.decides else {}),
                "mean_gap": size / n,
                "mean_shift": shift / n,
            }
            for name, (n, other, size, shift) in self.sums.items()
            if n
        }
        most = sorted((k for k in told if k != OVERALL), key=lambda k: -told[k]["mean_gap"])[:SHOWN]
        return {name: told[name] for name in (OVERALL, *most) if name in told}
