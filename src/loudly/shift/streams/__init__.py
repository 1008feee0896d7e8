"""Change detectors over streams of single values, by name: settings with `init`, `update` and `restore`."""

from __future__ import annotations

from loudly.shift.streams.adwin import Adwin
from loudly.shift.streams.conformal_martingale import ConformalMartingale
from loudly.shift.streams.cusum import Cusum
from loudly.shift.streams.ddm import Ddm
from loudly.shift.streams.e_detector import EDetector
from loudly.shift.streams.eddm import Eddm
from loudly.shift.streams.kswin import Kswin
from loudly.shift.streams.page_hinkley import PageHinkley
from loudly.shift.streams.risk import HarmfulShift

STREAMS: dict[str, type] = {
    "adwin": Adwin,
    "conformal-martingale": ConformalMartingale,
    "cusum": Cusum,
    "ddm": Ddm,
    "e-detector": EDetector,
    "eddm": Eddm,
    "harmful-shift": HarmfulShift,
    "kswin": Kswin,
    "page-hinkley": PageHinkley,
}

__all__ = ["STREAMS"]
