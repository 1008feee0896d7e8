"""A feed that has switched units, named.

Measured values live on a lattice (0.1 °F, whole mph, hundredths of an inch). When most values of a window were never seen
before, and mapping them back by a known conversion makes them familiar again, the units have changed: the season moves
values along the lattice, a conversion moves them off it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loudly.core.seams import Floats

# name, scale, offset: new = scale * old + offset
CONVERSIONS: tuple[tuple[str, float, float], ...] = (
    ("°F to °C", 5 / 9, -160 / 9),
    ("°C to °F", 9 / 5, 32.0),
    ("°C to K", 1.0, 273.15),
    ("K to °C", 1.0, -273.15),
    ("°F to K", 5 / 9, 459.67 * 5 / 9),
    ("mph to m/s", 0.44704, 0.0),
    ("m/s to mph", 1 / 0.44704, 0.0),
    ("mph to km/h", 1.609344, 0.0),
    ("km/h to mph", 1 / 1.609344, 0.0),
    ("knots to m/s", 0.514444, 0.0),
    ("m/s to knots", 1 / 0.514444, 0.0),
    ("m/s to km/h", 3.6, 0.0),
    ("km/h to m/s", 1 / 3.6, 0.0),
    ("hPa to inHg", 0.02953, 0.0),
    ("inHg to hPa", 1 / 0.02953, 0.0),
    ("hPa to kPa", 0.1, 0.0),
    ("inch to mm", 25.4, 0.0),
    ("mm to inch", 1 / 25.4, 0.0),
    ("foot to m", 0.3048, 0.0),
    ("m to foot", 1 / 0.3048, 0.0),
    ("pound to kg", 0.45359237, 0.0),
    ("kg to pound", 1 / 0.45359237, 0.0),
    ("percent to share", 0.01, 0.0),
    ("share to percent", 100.0, 0.0),
    ("unit to thousand", 0.001, 0.0),
    ("thousand to unit", 1000.0, 0.0),
    ("hours to minutes", 60.0, 0.0),
    ("minutes to hours", 1 / 60, 0.0),
)
FEWEST = 50
UNKNOWN_SHARE = 0.5
GAIN = 0.4
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class UnitChange:
    """unknown: share of never seen values.  left: the share still unknown after mapping back by `conversion`."""

    conversion: str
    unknown: float
    left: float
    n: int


def unit_change(window: Mapping[float, int], known: Floats) -> UnitChange | None:
    """The conversion that explains a window's values, if one does. `known`: sorted values seen in good windows.

    Zeros are left out: every scaling maps them to themselves. Fewer than 50 values cannot tell.
    """
    values = np.array([v for v in window if v != 0.0])
    counts = np.array([window[float(v)] for v in values], dtype=np.float64)
    n = int(counts.sum())
    if n < FEWEST or len(known) < 2:
        return None
    near = TOLERANCE * float(np.median(np.abs(known)))
    unknown = _unknown(values, counts, known, near)
    if unknown < UNKNOWN_SHARE:
        return None
    tried = [(_unknown((values - offset) / scale, counts, known, near), name) for name, scale, offset in CONVERSIONS]
    left, name = min(tried)
    return UnitChange(name, unknown, left, n) if left <= unknown - GAIN else None


def _unknown(values: Floats, counts: Floats, known: Floats, near: float) -> float:
    """Share of the values that are not within `near` of a known one."""
    at = np.searchsorted(known, values)
    below = np.abs(values - known[np.clip(at - 1, 0, len(known) - 1)])
    above = np.abs(values - known[np.clip(at, 0, len(known) - 1)])
    return float(counts[np.minimum(below, above) > near].sum() / counts.sum())
