"""MLServer with a runtime of its own, adaptive batching, and no second process (its faster way)."""

import json
import sys
from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
from peer_model import BATCH, PORT, WAIT_SECONDS, load


class Peer(MLModel):
    """A tensor in, a tensor out."""

    async def load(self):
        self.score = load()
        return True

    async def predict(self, payload):
        X = NumpyCodec.decode_input(payload.inputs[0])
        out = NumpyCodec.encode_output("y", self.score(X).reshape(-1, 1))
        return InferenceResponse(model_name=self.name, outputs=[out])


if __name__ == "__main__":
    from mlserver.cli import main

    here = Path.cwd() / "mlserver"
    here.mkdir(exist_ok=True)
    ports = {"http_port": PORT, "grpc_port": PORT + 1, "metrics_port": PORT + 2}
    (here / "settings.json").write_text(json.dumps({**ports, "host": "127.0.0.1", "debug": False, "parallel_workers": 0}))
    batching = {"max_batch_size": BATCH, "max_batch_time": WAIT_SECONDS}
    (here / "model-settings.json").write_text(json.dumps({"name": "m", "implementation": "peer_mlserver.Peer", **batching}))
    sys.argv = ["mlserver", "start", str(here)]
    main()
