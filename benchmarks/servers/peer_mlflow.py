"""A folder for `mlflow models serve`, of scikit-learn's flavour. Argument: "signature" for a model that knows its columns."""

import os
import shutil
import sys

import joblib
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from peer_model import FEATURES, FOLDER, KIND, PORT


class Nothing:
    """A model of no cost."""

    def predict(self, X, params=None):
        return np.full(len(X), 0.5)


if __name__ == "__main__":
    import peer_mlflow

    signature = None
    if sys.argv[1:] == ["signature"]:
        signature = infer_signature(pd.DataFrame(np.ones((5, len(FEATURES))) * 0.5, columns=FEATURES), np.ones((5, 2)) * 0.5)
    path = f"mlflow-{KIND}"
    shutil.rmtree(path, ignore_errors=True)
    model = peer_mlflow.Nothing() if KIND == "none" else joblib.load(FOLDER / f"{KIND}.joblib")
    how = {} if KIND == "none" else {"pyfunc_predict_fn": "predict_proba"}
    mlflow.sklearn.save_model(
        model, path, signature=signature, pip_requirements=["mlflow"], serialization_format="cloudpickle", **how
    )
    os.execv(
        sys.executable,
        [
            sys.executable,
            "-m",
            "mlflow",
            "models",
            "serve",
            "-m",
            path,
            "-p",
            str(PORT),
            "--env-manager",
            "local",
            "--workers",
            "1",
        ],
    )
