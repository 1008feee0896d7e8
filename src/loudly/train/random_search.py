"""Random search: seeded, needs nothing. Source: Bergstra & Bengio 2012."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from loudly.core.canon import Json
from loudly.train.space import Choice, Range, lies_in, read_space


class RandomSearch:
    """Points drawn uniformly (log-uniformly where asked)."""

    def __init__(self, space: Mapping[str, Json], seed: int) -> None:
        self._space = read_space(space)
        self._rng = np.random.default_rng(seed)
        self._starts: list[dict[str, Json]] = []

    def start_from(self, params: Mapping[str, Json]) -> None:
        """A point to ask first; what it leaves open is drawn."""
        if lies_in(params, self._space):
            self._starts.append(dict(params))

    def ask(self) -> dict[str, Json]:
        drawn = {name: self._draw(entry) for name, entry in self._space.items()}
        return {**drawn, **self._starts.pop(0)} if self._starts else drawn

    def tell(self, params: Mapping[str, Json], loss: float) -> None:
        """Random search does not learn."""

    def report(self, params: Mapping[str, Json], step: int, loss: float) -> bool:
        return False

    def _draw(self, entry: Range | Choice) -> Json:
        match entry:
            case Choice(options):
                return options[int(self._rng.integers(len(options)))]
            case Range(low, high, log, whole):
                value = float(np.exp(self._rng.uniform(np.log(low), np.log(high)))) if log else float(self._rng.uniform(low, high))
                return round(value) if whole else value
