"""LitServe with its own batching."""

import litserve
import numpy as np
from peer_model import BATCH, PORT, WAIT_SECONDS, load


class Peer(litserve.LitAPI):
    """One row of JSON in, one number out."""

    def setup(self, device):
        self.score = load()

    def decode_request(self, request):
        return request["row"]

    def batch(self, inputs):
        return np.array(inputs, dtype=float)

    def predict(self, x):
        return self.score(x)

    def unbatch(self, output):
        return output.tolist()

    def encode_response(self, output):
        return {"prediction": output}


if __name__ == "__main__":
    api = Peer(max_batch_size=BATCH, batch_timeout=WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=60)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="warning")
