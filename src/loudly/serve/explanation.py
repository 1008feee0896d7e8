"""Why a version answered as it did: what each of its columns contributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Explanation:
    """One row explained: base + all contributions = score, in the space that is named.

    prediction: of the version's own model, as `/predict` answers it.  method: "tree-shap", "linear", "shapley" (every set of
    columns) or "shapley-sampling".  space: "log-odds" (of one class), "logits" (before the softmax) or "output" (as predicted).
    base, score, contributions: numbers, or lists with one for each class.  error: largest standard error, 0 where exact.
    """

    prediction: Any
    version: str
    arm: str
    method: str
    space: str
    base: Any
    score: Any
    contributions: Mapping[str, Any]
    error: float
