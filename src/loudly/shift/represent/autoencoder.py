"""Autoencoders, untrained and trained: the encoder of images with random weights, and a small perceptron that was fitted.

Source: Rabanser et al. 2019 ("UAE", "TAE"): an encoder of three 3 × 3 convolutions (16, 8, 2 channels), each followed by a 2 × 2
maximum, is a strong representation for MMD even with random weights. Written in numpy: no deep-learning library is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from loudly.core.late import late
from loudly.core.seams import Floats
from loudly.errors import DataError

Single = NDArray[np.float32]
Represent = Callable[[Floats], Floats]

sklearn = late("sklearn")

CHANNELS = (16, 8, 2)
BATCH = 512


def untrained_encoder(side: int, seed: int = 0, colours: int = 1) -> Represent:
    """A convolutional encoder with Glorot-uniform random weights, for square images of `side` pixels.

    Shapes: a map from (n, side * side * colours) to (n, 2 * ceil(side / 8)²): 32 for 28 pixels.

    >>> untrained_encoder(28)(np.zeros((3, 784))).shape
    (3, 32)
    """
    rng = np.random.default_rng(seed)
    weights, before = [], colours
    for channels in CHANNELS:
        limit = np.sqrt(6 / (9 * (before + channels)))
        weights.append(rng.uniform(-limit, limit, (9 * before, channels)).astype(np.float32))
        before = channels

    def encode(rows: Floats) -> Floats:
        if rows.shape[1] != side * side * colours:
            raise DataError("These are not images of that side.", seen=f"{rows.shape[1]} columns", do=f"side² × colours of {side}")
        parts = [_convolve(rows[i : i + BATCH], side, colours, weights) for i in range(0, len(rows), BATCH)]
        return np.concatenate(parts) if parts else np.zeros((0, CHANNELS[-1] * (-(-side // 8)) ** 2))

    return encode


def trained_encoder(rows: Floats, dimensions: int = 32, hidden: int = 128, epochs: int = 6, seed: int = 0) -> Represent:
    """The encoder of a perceptron d - hidden - dimensions - hidden - d, fitted to give its rows back.

    Cost: `epochs` passes over the rows; seconds for 50,000 images on one core.

    >>> x = np.random.default_rng(0).normal(size=(60, 4))
    >>> trained_encoder(x, 2, 8, 1)(x).shape
    (60, 2)
    """
    net = sklearn.neural_network.MLPRegressor(
        hidden_layer_sizes=(hidden, dimensions, hidden), max_iter=epochs, batch_size=min(256, len(rows)), random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        net.fit(rows, rows)
    (one, two), (bias, code) = net.coefs_[:2], net.intercepts_[:2]

    def encode(given: Floats) -> Floats:
        out: Floats = np.maximum(np.maximum(given @ one + bias, 0) @ two + code, 0)
        return out

    return encode


def _convolve(rows: Floats, side: int, colours: int, weights: list[Single]) -> Floats:
    made: Single = rows.reshape(len(rows), side, side, colours).astype(np.float32)
    for weight in weights:
        padded = np.pad(made, ((0, 0), (1, 1), (1, 1), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        made = _halved(np.maximum(patches.reshape(*patches.shape[:3], -1) @ weight, 0))
    return made.reshape(len(rows), -1).astype(np.float64)


def _halved(x: Single) -> Single:
    """The largest of each 2 × 2; an odd border is repeated."""
    n, height, width, channels = x.shape
    even = np.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    out: Single = even.reshape(n, (height + 1) // 2, 2, (width + 1) // 2, 2, channels).max(axis=(2, 4))
    return out
