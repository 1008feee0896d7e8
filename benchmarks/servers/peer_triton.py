"""Triton Inference Server with its Python backend (PyTriton) and dynamic batching without a delay."""

import numpy as np
from peer_model import BATCH, FEATURES, PORT, load
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

score = load()


@batch
def infer(x):
    """(n, 30) -> (n, 1)."""
    return [score(x).reshape(-1, 1)]


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1", http_port=PORT, grpc_port=PORT + 1, metrics_port=PORT + 2, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="m",
            infer_func=infer,
            inputs=[Tensor(name="x", dtype=np.float64, shape=(len(FEATURES),))],
            outputs=[Tensor(name="y", dtype=np.float64, shape=(1,))],
            config=ModelConfig(max_batch_size=BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
