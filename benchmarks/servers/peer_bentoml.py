"""BentoML with its own batching."""

import bentoml
import numpy as np
from peer_model import BATCH, load


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000}, logging={"access": {"enabled": False}})
class Peer:
    """Rows in, numbers out."""

    def __init__(self):
        self.score = load()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """(n, 30) -> (n,)."""
        return self.score(np.asarray(rows, dtype=float))
