"""Ensembles and small graphs of models: named nodes, each a model over columns or over other nodes' answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from loudly.core.seams import Floats, Model
from loudly.errors import ModelError, nearest


@dataclass(frozen=True, slots=True)
class Node:
    """One model of a graph.

    model: a fitted estimator that some format stores, or a `Mean`.
    reads: columns of X by their index and other nodes by their name, in the order in which the model takes them; all columns
    by default. A node with k answers gives k columns.
    """

    model: object
    reads: tuple[int | str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Mean:
    """The (weighted) mean of what it reads, column by column of `outputs`. Weights are scaled to the sum 1."""

    weights: tuple[float, ...]
    outputs: int = 1

    def predict(self, X: Floats) -> Floats:
        """X: (n, members * outputs)."""
        if X.shape[1] != len(self.weights) * self.outputs:
            raise ModelError("The members answer in other shapes.", seen=f"{X.shape[1]} columns for {len(self.weights)} members")
        shares = np.asarray(self.weights) / sum(self.weights)
        answer: Floats = np.einsum("nmk,m->nk", X.reshape(len(X), len(self.weights), self.outputs), shares)
        return answer[:, 0] if self.outputs == 1 else answer


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by name, of which `output` answers. Raises: ModelError for an unknown name or a circle.

    >>> halves = Mean((1.0, 1.0))
    >>> Graph({"all": Node(halves, (0, 1))}, "all").predict(np.array([[1.0, 3.0]])).tolist()
    [2.0]
    """

    nodes: Mapping[str, Node]
    output: str
    order: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        for name, node in self.nodes.items():
            for source in node.reads or ():
                if isinstance(source, str) and source not in self.nodes:
                    raise ModelError(f"The node {name!r} reads {source!r}, which is no node.", do=nearest(source, self.nodes))
        if self.output not in self.nodes:
            raise ModelError(f"There is no node {self.output!r} to answer.", do=nearest(self.output, self.nodes))
        sorter = TopologicalSorter({n: [s for s in node.reads or () if isinstance(s, str)] for n, node in self.nodes.items()})
        try:
            object.__setattr__(self, "order", tuple(sorter.static_order()))
        except CycleError as circle:
            raise ModelError("The nodes read one another in a circle.", seen=" -> ".join(circle.args[1])) from circle

    def predict(self, X: Floats) -> Floats:
        """With the fitted estimators as they are, for use before they are stored."""
        return answer({name: _Scored(node.model) for name, node in self.nodes.items()}, self, X)


def answer(models: Mapping[str, Model], graph: Graph, X: Floats) -> Floats:
    """What the graph's output node answers; each node runs once."""
    made: dict[str, Floats] = {}
    for name in graph.order:
        reads = graph.nodes[name].reads
        given = X if reads is None else np.column_stack([X[:, s] if isinstance(s, int) else made[s] for s in reads])
        made[name] = models[name].predict(given)
    return made[graph.output]


@dataclass(frozen=True, slots=True)
class _Scored:
    """An estimator as a model: probabilities where it has them."""

    model: Any

    def predict(self, X: Floats) -> Floats:
        if not hasattr(self.model, "predict_proba"):
            return np.asarray(self.model.predict(X), dtype=np.float64)
        proba = np.asarray(self.model.predict_proba(X), dtype=np.float64)
        return proba[:, 1] if proba.shape[1] == 2 else proba


def mean(models: Sequence[object], weights: Sequence[float] | None = None, *, outputs: int = 1) -> Graph:
    """An ensemble that answers the (weighted) mean. outputs: answers a row of each member, k for k classes.

    Raises: ModelError for weights that are too few, below zero or all zero.
    """
    shares = tuple(float(w) for w in weights) if weights is not None else (1.0,) * len(models)
    if len(shares) != len(models) or not shares or min(shares) < 0 or sum(shares) <= 0:
        raise ModelError("An ensemble needs one weight for each model, none below zero.", seen=f"{shares} for {len(models)}")
    members = {f"member_{i}": Node(model) for i, model in enumerate(models)}
    return Graph({**members, "mean": Node(Mean(shares, outputs), tuple(members))}, "mean")


def stacked(models: Sequence[object], final: object) -> Graph:
    """A stack: `final` was fitted on the answers of the models, in their order (on held-out rows, or it learns to trust the
    member that has learned by heart)."""
    members = {f"member_{i}": Node(model) for i, model in enumerate(models)}
    return Graph({**members, "final": Node(final, tuple(members))}, "final")
