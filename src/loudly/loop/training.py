"""From a dataset to a judged candidate: split, features, search, fit, ladder, evaluation, gate, final fit, bundle.

Pure in the sense that matters: the same dataset, system, seed and champion give the same bytes and the same events.
"""

from __future__ import annotations
