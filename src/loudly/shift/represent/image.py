"""Images as columns, without a download: brightness on a coarse grid, and what fixed random convolutions make of them.

The grid keeps where light is; the convolutions (the untrained encoder of *Failing Loudly*) answer to edges and texture. Nothing is
learned, so the same image has the same columns everywhere. For meaning an encoder of one's own stands behind `onnx-image`.

Source: Rabanser et al. 2019 ("UAE"). Cost: about 0.1 ms for an image of 28 × 28.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from loudly.core.seams import Floats
from loudly.errors import DataError
from loudly.shift.represent.autoencoder import untrained_encoder

Embed = Callable[[Any], Floats]

SIDE = 28
GRID = 4


def small_image(seed: int = 0) -> Embed:
    """A map from images (n, height, width) or (n, height, width, colours), or flat squares (n, side²), to (n, 48).

    Values are taken as they come: give all of them in one scale, such as [0, 1].

    >>> small_image()(np.zeros((3, 32, 32, 3))).shape
    (3, 48)
    """
    encode = untrained_encoder(SIDE, seed)

    def embed(images: Any) -> Floats:
        grey = _grey(np.asarray(images, dtype=np.float64))
        if not len(grey):
            return np.zeros((0, GRID**2 + 2 * (-(-SIDE // 8)) ** 2))
        grid = resized(grey, GRID).reshape(len(grey), -1)
        return np.concatenate([grid, encode(resized(grey, SIDE).reshape(len(grey), -1))], axis=1)

    return embed


def resized(images: Floats, side: int) -> Floats:
    """(n, height, width) -> (n, side, side) by means over areas, so that nothing between two pixels is skipped.

    >>> resized(np.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[2.5, 4.5], [10.5, 12.5]]]
    """
    rows, columns = (_areas(n, side) for n in images.shape[1:])
    made: Floats = np.einsum("ah,nhw,bw->nab", rows, images, columns, optimize=True)
    return made


def _areas(n: int, side: int) -> Floats:
    """(side, n) the share that each pixel has in each cell."""
    low, high = np.arange(side)[:, None] * n / side, (np.arange(side)[:, None] + 1) * n / side
    pixel = np.arange(n)[None, :]
    share: Floats = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def _grey(images: Floats) -> Floats:
    if images.ndim == 4:
        return np.asarray(images.mean(axis=3))
    if images.ndim == 2 and round(images.shape[1] ** 0.5) ** 2 == images.shape[1]:
        side = round(images.shape[1] ** 0.5)
        return images.reshape(-1, side, side)
    if images.ndim != 3:
        do = "Give (n, height, width), (n, height, width, colours) or flat squares."
        raise DataError("These are no images.", seen=f"shape {images.shape}", do=do)
    return images
