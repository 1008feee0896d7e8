"""FastAPI + pydantic as its documentation writes it, with `async def`, its faster way; 30 named fields."""

import numpy as np
import uvicorn
from fastapi import FastAPI
from peer_model import FEATURES, PORT, load
from pydantic import create_model

Row = create_model("Row", id=(str, ...), at=(str, ...), **dict.fromkeys(FEATURES, (float, ...)))
Answer = create_model("Answer", prediction=(float, ...), version=(str, ...))
score = load()
app = FastAPI()


@app.post("/predict", response_model=Answer)
async def predict(row: Row):
    """One row."""
    X = np.array([[getattr(row, f) for f in FEATURES]])
    return {"prediction": float(score(X)[0]), "version": "1"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
