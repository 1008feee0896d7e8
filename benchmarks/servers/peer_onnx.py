"""FastAPI around ONNX Runtime, as one writes it by hand: no log, no monitor, no wheel. Run: python peer_onnx.py GRAPH PORT"""

import sys

import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

FEATURES = [f"f{i}" for i in range(30)]
Row = create_model("Row", id=(str, ...), at=(str, ...), **dict.fromkeys(FEATURES, (float, ...)))
Answer = create_model("Answer", prediction=(float, ...), version=(str, ...))
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0].name
app = FastAPI()


@app.get("/ready")
async def ready():
    """It answers."""
    return {}


@app.post("/predict", response_model=Answer)
async def predict(row: Row):
    """One row."""
    X = np.array([[getattr(row, f) for f in FEATURES]])
    return {"prediction": float(session.run(None, {given: X})[-1].ravel()[-1]), "version": "1"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
