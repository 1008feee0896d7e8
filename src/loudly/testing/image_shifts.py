"""The ten shifts of *Failing Loudly*, on images: noise, affine transformations, adversarial examples, knocked-out classes.

Source: Rabanser, Günnemann & Lipton, "Failing Loudly: An Empirical Study of Methods for Detecting Dataset Shift" (NeurIPS 2019)
and its public code; the transformations are those of Keras' ImageDataGenerator, which it uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from loudly.core.seams import Floats, Ints

Attack = Callable[[Floats, Ints], Floats]


@dataclass(frozen=True, slots=True)
class Affine:
    """Ranges of a random transformation: degrees, shares of the side, degrees of shear, zoom, and which flips may happen."""

    rotate: float
    move: float
    shear: float
    zoom: float
    horizontal: bool = False
    vertical: bool = False


NOISE = {"s_gn": 1.0, "m_gn": 10.0, "l_gn": 100.0}
AFFINE = {
    "s_img": Affine(10, 0.05, 0.1, 0.1),
    "m_img": Affine(40, 0.2, 0.2, 0.2, horizontal=True),
    "l_img": Affine(90, 0.4, 0.3, 0.4, horizontal=True, vertical=True),
}
SHIFTS = (*NOISE, *AFFINE, "adv", "ko", "m_img+ko", "oz+m_img")


def shifted(
    name: str, share: float, images: Floats, labels: Ints, n: int, rng: np.random.Generator, attack: Attack
) -> tuple[Floats, Ints]:
    """The first `n` rows of a target sample with a shift of `share` of its rows.

    Shapes: images (pool, height * width) in [0, 1] in random order, labels (pool,).  `attack` gives adversarial images.
    Raises: KeyError for a name that is not in SHIFTS.
    """
    if name == "ko":
        return _without(images, labels, share, n)
    if name == "m_img+ko":
        kept, known = _without(images, labels, share, n)
        return _some(kept, 0.5, rng, lambda x: moved(x, AFFINE["m_img"], rng)), known
    if name == "oz+m_img":
        only = np.flatnonzero(labels == 0)[:n]
        return _some(images[only], share, rng, lambda x: moved(x, AFFINE["m_img"], rng)), labels[only]
    kept, known = images[:n], labels[:n]
    if name == "adv":
        hit = _chosen(len(kept), share, rng)
        out = kept.copy()
        out[hit] = attack(kept[hit], known[hit])
        return out, known
    if name in NOISE:
        return _some(kept, share, rng, lambda x: noisy(x, NOISE[name], rng)), known
    return _some(kept, share, rng, lambda x: moved(x, AFFINE[name], rng)), known


def noisy(images: Floats, amount: float, rng: np.random.Generator) -> Floats:
    """Gaussian noise of `amount`/255 a pixel, cut to [0, 1]."""
    return np.clip(images + rng.normal(0, amount / 255, images.shape), 0.0, 1.0)


def moved(images: Floats, ranges: Affine, rng: np.random.Generator) -> Floats:
    """Each image turned, moved, sheared, zoomed and flipped at random within the ranges; the border repeats."""
    side = round(images.shape[1] ** 0.5)
    return np.stack([_move(image.reshape(side, side), ranges, rng).ravel() for image in images]) if len(images) else images


def _move(image: Floats, ranges: Affine, rng: np.random.Generator) -> Floats:
    side = image.shape[0]
    turn = np.deg2rad(rng.uniform(-ranges.rotate, ranges.rotate))
    shear = np.deg2rad(rng.uniform(-ranges.shear, ranges.shear))
    zoom = rng.uniform(1 - ranges.zoom, 1 + ranges.zoom, 2)
    move = rng.uniform(-ranges.move, ranges.move, 2) * side
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ np.array([[1.0, -np.sin(shear)], [0.0, np.cos(shear)]]) @ np.diag(zoom)
    centre = np.full(2, (side - 1) / 2)
    out: Floats = scipy.ndimage.affine_transform(image, matrix, centre - matrix @ centre + rotation @ move, order=1, mode="nearest")
    if ranges.horizontal and rng.random() < 0.5:
        out = out[:, ::-1]
    return out[::-1] if ranges.vertical and rng.random() < 0.5 else out


def _without(images: Floats, labels: Ints, share: float, n: int) -> tuple[Floats, Ints]:
    """The first n rows after `share` of class 0 is knocked out."""
    zeros = np.flatnonzero(labels == 0)
    gone = zeros[: round(share * len(zeros))]
    kept = np.setdiff1d(np.arange(len(labels)), gone)[:n]
    return images[kept], labels[kept]


def _some(images: Floats, share: float, rng: np.random.Generator, change: Callable[[Floats], Floats]) -> Floats:
    hit = _chosen(len(images), share, rng)
    out = images.copy()
    out[hit] = change(images[hit])
    return out


def _chosen(n: int, share: float, rng: np.random.Generator) -> Ints:
    """Rows that are hit: each with probability `share`, as a window cut out of a shifted stream would have them."""
    return np.flatnonzero(rng.random(n) < share)
