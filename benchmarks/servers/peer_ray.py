"""Ray Serve, one replica, behind whichever proxy the environment asks for. Argument: "batched" for `@serve.batch`."""

import sys
import time

import numpy as np
import ray
from peer_model import BATCH, PORT, WAIT_SECONDS, load
from ray import serve


@serve.deployment(num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0})
class Peer:
    """One row of JSON in, one number out."""

    def __init__(self, together):
        self.score, self.together = load(), together

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_SECONDS)
    async def batched(self, rows):
        """Rows that came together."""
        return self.score(np.array(rows, dtype=float)).tolist()

    async def __call__(self, request):
        row = (await request.json())["row"]
        return {"prediction": await self.batched(row) if self.together else float(self.score(np.array([row]))[0])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=10**8, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    serve.run(
        Peer.bind("batched" in sys.argv),
        route_prefix="/predict",
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    )
    while True:
        time.sleep(60)
