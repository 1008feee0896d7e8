"""Peers of the verdicts: tests that know when to look, and some that do not. Each is a half-width in standard errors at each look.

Group-sequential boundaries are computed here by recursive numerical integration (Armitage, McPherson & Rowe 1969), so that nothing
but scipy is needed, and checked against the tables of Jennison & Turnbull 2000. mSPRT is that of Johari, Koomen, Pekelis & Walsh
2017 (KDD), with a normal mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import norm

# Jennison & Turnbull 2000, tables 2.1 (Pocock) and 2.3 (O'Brien-Fleming): two-sided, 5 %.
PUBLISHED = {("pocock", 5): 2.413, ("pocock", 10): 2.555, ("obrien-fleming", 5): 2.040, ("obrien-fleming", 10): 2.087}
NODES, WEIGHTS = np.polynomial.legendre.leggauss(160)


def shape(kind: str, looks: int) -> np.ndarray:
    """The boundary for z at each of `looks` even looks, up to a constant."""
    k = np.arange(1, looks + 1)
    return np.ones(looks) if kind == "pocock" else np.sqrt(looks / k)


def crossing(z: np.ndarray) -> float:
    """Probability that a standardised sum leaves ±z at one of its even looks."""
    inside, points, density = 1.0, np.zeros(1), np.ones(1)
    for k, bound in enumerate(z, start=1):
        edge = bound * np.sqrt(k)
        new = NODES * edge
        density = (norm.pdf(new[:, None] - points) * density).sum(axis=1) * WEIGHTS * edge
        points, inside = new, density.sum()
    return float(1 - inside)


@cache
def constant(kind: str, looks: int, alpha: float = 0.05) -> float:
    """What the shape is multiplied by, so that the boundary is crossed with probability alpha."""
    return float(brentq(lambda c: crossing(c * shape(kind, looks)) - alpha, 1.5, 4.5, xtol=1e-6))


@dataclass(frozen=True, slots=True)
class Peer:
    """A test that looks after so many values (n) and then takes so many standard errors (z) for the half-width."""

    name: str
    n: np.ndarray
    z: np.ndarray


def naive(every: int, most: int) -> Peer:
    """Means compared at 5 % whenever somebody looks."""
    n = np.arange(every, most + 1, every)
    return Peer("naive z, every hour", n, np.full(len(n), 1.96))


def fixed(n: int) -> Peer:
    """One look, when it is over."""
    return Peer("fixed sample, one look", np.array([n]), np.array([1.96]))


def group(kind: str, looks: int, most: int) -> Peer:
    """Looks at even steps of a size that was fixed before."""
    name = {"pocock": "Pocock", "obrien-fleming": "O'Brien-Fleming"}[kind]
    return Peer(f"{name}, {looks} looks", most * np.arange(1, looks + 1) // looks, constant(kind, looks) * shape(kind, looks))


def msprt(deviation: float, tau: float, most: int, alpha: float = 0.05, first: int = 100) -> Peer:
    """A look after every value. tau: deviation of the effects that the mixture expects. Eq. (11) of Johari et al., inverted."""
    n = np.arange(first, most + 1)
    variance = deviation**2 / n
    z = np.sqrt((variance + tau**2) / tau**2 * (2 * np.log(1 / alpha) + np.log((variance + tau**2) / variance)))
    return Peer("mSPRT, every label", n, z)


def sample_size(effect: float, deviation: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Values that one look needs to find the effect."""
    return int(np.ceil(((ndtri(1 - alpha / 2) + ndtri(power)) * deviation / effect) ** 2))


def ends(peer: Peer, values: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """For each run: promoted (1), rolled back (-1) or neither (0), and after how many values. Shape of values: (n, runs)."""
    looks = peer.n[peer.n <= len(values)]
    z, total, squares = peer.z[: len(looks), None], np.cumsum(values, axis=0)[looks - 1], np.cumsum(values**2, axis=0)[looks - 1]
    n = looks[:, None]
    mean = total / n
    error = np.sqrt(np.maximum(squares / n - mean**2, 0) / n)
    below = (mean + z * error < 0) & (error > 0)
    above = (mean - z * error > -margin) & (error > 0)
    either = above | below
    any_, first = either.any(axis=0), either.argmax(axis=0)
    run = np.arange(values.shape[1])
    end = np.where(any_, np.where(above[first, run], 1, -1), 0)
    return end, np.where(any_, looks[first], np.iinfo(np.int64).max)
