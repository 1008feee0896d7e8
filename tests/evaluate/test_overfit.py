from __future__ import annotations

import numpy as np

from loudly.core.values import Decision
from loudly.evaluate.overfit import overfit


def test_a_model_that_knows_its_rows_by_heart_fails_and_an_honest_one_passes() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random(2000) < 0.4).astype(float)
    honest = 1 / (1 + np.exp(-rng.normal(1.2 * (truth - 0.5), 1)))
    assert overfit(truth, np.clip(truth * 0.98 + 0.01, 0, 1), 0.7, "roc_auc", 0.25).failed
    assert overfit(truth, honest, 0.78, "roc_auc", 0.25).passed
    assert overfit(truth, truth + 0.001, 0.5, "mae", 0.25).failed
    assert overfit(truth[:5], honest[:5], 0.7, "roc_auc", 0.25).decision is Decision.UNDECIDED
