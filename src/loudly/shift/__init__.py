"""Has the world moved, where, since when, and does it matter? Usable alone: arrays or dataframes in, evidence and verdicts out.

`detect(reference, window)` is the one call; `fit(reference)` keeps what a reference says, for many windows. The rest has a module
a method: `two_sample` tests, `represent`ations, `streams`.
"""

from loudly.shift.rank_embedding import RankReference, detect, fit

__all__ = ["RankReference", "detect", "fit"]
