"""Tree ensembles of scikit-learn and XGBoost as one ONNX `TreeEnsemble` in doubles: the cuts are the original's own.

Converters cut in float32, so a value near a threshold falls on the other side. Here thresholds, leaves and sums stay
float64; where the library itself rounds rows to float32 (forests, XGBoost) the graph rounds them likewise.

Source: ONNX `ai.onnx.ml` opset 5, TreeEnsemble.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from loudly.adapters.onnx_format import OnnxModel
from loudly.core.seams import Model
from loudly.errors import ModelError

BOOSTED = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
SINGLE = (DecisionTreeClassifier, DecisionTreeRegressor)
LEQ, LT = 0, 1
OPSET, TREE_OPSET, IR = 21, 5, 10
SUM = 1


@dataclass(frozen=True, slots=True)
class _Tree:
    """One tree. Arrays are (nodes,); a leaf has `left` < 0. leaf: (nodes, outputs)."""

    feature: Any
    cut: Any
    left: Any
    right: Any
    missing_left: Any
    leaf: Any


@dataclass(frozen=True, slots=True)
class _Forest:
    """Trees that are summed, what is added to the sum, and what is done with it ("none", "sigmoid", "softmax", "exp")."""

    trees: tuple[_Tree, ...]
    start: Any
    width: int
    link: str = "none"
    mode: int = LEQ
    rounds: bool = False


class OnnxTrees:
    """Histogram boosting, random forests, extra trees and single trees of scikit-learn; boosted trees of XGBoost."""

    name = "onnx-trees"
    runs = "onnx"

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, (*BOOSTED, *FORESTS, *SINGLE)) or _is_xgboost(fitted)

    def compile(self, fitted: object, width: int) -> bytes:
        """The graph. Raises: ModelError for what it cannot say (categorical splits, several outputs, other objectives)."""
        forest = _forest(fitted)
        if forest.width != width:
            raise ModelError("The model reads other columns.", seen=f"{forest.width} against {width}")
        return _graph(forest)

    def cuts(self, fitted: object) -> tuple[tuple[int, float], ...]:
        """Every (column, threshold): where two forms of one model could part."""
        return tuple(
            (int(tree.feature[i]), float(tree.cut[i]))
            for tree in _forest(fitted).trees
            for i in np.flatnonzero((np.asarray(tree.left) >= 0) & np.isfinite(tree.cut))
        )

    def load(self, data: bytes) -> Model:
        return OnnxModel(data)


def _is_xgboost(fitted: object) -> bool:
    return type(fitted).__module__.startswith("xgboost.") and (hasattr(fitted, "get_booster") or hasattr(fitted, "save_raw"))


def _forest(fitted: Any) -> _Forest:
    if isinstance(fitted, BOOSTED):
        return _boosted(fitted)
    if isinstance(fitted, FORESTS):
        return _averaged(fitted, [e.tree_ for e in fitted.estimators_])
    if isinstance(fitted, SINGLE):
        return _averaged(fitted, [fitted.tree_])
    return _xgboost(fitted.get_booster() if hasattr(fitted, "get_booster") else fitted)


def _boosted(fitted: Any) -> _Forest:
    outputs = len(fitted._predictors[0])
    trees = [_boosted_tree(p.nodes, k, outputs) for stage in fitted._predictors for k, p in enumerate(stage)]
    link = fitted._loss.link.__class__.__name__
    known = {"IdentityLink": "none", "LogLink": "exp", "LogitLink": "sigmoid", "MultinomialLogit": "softmax"}
    if link not in known:
        raise ModelError("This loss has a link that the graph does not say.", seen=link)
    start = np.asarray(fitted._baseline_prediction, dtype=np.float64).reshape(-1)
    return _Forest(tuple(trees), start, int(fitted.n_features_in_), known[link])


def _boosted_tree(nodes: Any, output: int, outputs: int) -> _Tree:
    leaf = nodes["is_leaf"].astype(bool)
    if nodes["is_categorical"][~leaf].any():
        raise ModelError("The trees split on sets of categories, which the graph does not say.")
    left = np.where(leaf, -1, nodes["left"].astype(np.int64))
    values = np.zeros((len(nodes), outputs))
    values[:, output] = nodes["value"]
    return _Tree(nodes["feature_idx"], nodes["num_threshold"], left, nodes["right"], nodes["missing_go_to_left"], values)


def _averaged(fitted: Any, trees: Sequence[Any]) -> _Forest:
    if fitted.n_outputs_ != 1:
        raise ModelError("The forest has several outputs.", seen=str(fitted.n_outputs_))
    made = [
        _Tree(t.feature, t.threshold, t.children_left, t.children_right, t.missing_go_to_left, t.value[:, 0, :] / len(trees))
        for t in trees
    ]
    return _Forest(tuple(made), np.zeros(made[0].leaf.shape[1]), int(fitted.n_features_in_), rounds=True)


def _xgboost(booster: Any) -> _Forest:
    said = json.loads(booster.save_raw("json"))["learner"]
    objective, parameters = said["objective"]["name"], said["learner_model_param"]
    known = {"binary:logistic": "sigmoid", "multi:softprob": "softmax", "reg:squarederror": "none", "count:poisson": "exp"}
    if objective not in known:
        raise ModelError("This objective is not said by the graph.", seen=objective)
    if said["gradient_booster"]["name"] != "gbtree":
        raise ModelError("Only boosted trees have a graph.", seen=said["gradient_booster"]["name"])
    model = said["gradient_booster"]["model"]
    outputs = max(1, int(parameters["num_class"]))
    best = said.get("attributes", {}).get("best_iteration")
    kept = None if best is None else (int(best) + 1) * outputs * int(model["gbtree_model_param"]["num_parallel_tree"])
    pairs = list(zip(model["trees"], model["tree_info"], strict=True))[:kept]
    trees = tuple(_xgboost_tree(tree, group, outputs) for tree, group in pairs)
    base = np.atleast_1d(np.asarray(json.loads(parameters["base_score"]), dtype=np.float64))
    start = np.broadcast_to(base, (outputs,))
    if known[objective] == "sigmoid":
        start = np.log(start / (1 - start))
    if known[objective] == "exp":
        start = np.log(start)
    return _Forest(trees, start, int(parameters["num_feature"]), known[objective], LT, rounds=True)


def _xgboost_tree(tree: Any, group: int, outputs: int) -> _Tree:
    if any(tree.get("split_type", ())):
        raise ModelError("The trees split on sets of categories, which the graph does not say.")
    left = np.asarray(tree["left_children"], dtype=np.int64)
    conditions = np.asarray(tree["split_conditions"], dtype=np.float32).astype(np.float64)
    values = np.zeros((len(left), outputs))
    values[:, group] = conditions
    right, missing = np.asarray(tree["right_children"], dtype=np.int64), np.asarray(tree["default_left"])
    return _Tree(np.asarray(tree["split_indices"]), conditions, left, right, missing, values)


def _graph(forest: _Forest) -> bytes:
    outputs = forest.trees[0].leaf.shape[1]
    nodes, x = [], "x"
    if forest.rounds:
        nodes += [
            helper.make_node("Cast", ["x"], ["x32"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["x32"], ["x64"], to=TensorProto.DOUBLE),
        ]
        x = "x64"
    nodes.append(helper.make_node("TreeEnsemble", [x], ["sum"], domain="ai.onnx.ml", **_arrays(forest, outputs)))
    nodes.append(helper.make_node("Add", ["sum", "start"], ["raw"]))
    ends = {"none": "Identity", "sigmoid": "Sigmoid", "softmax": "Softmax", "exp": "Exp"}
    nodes.append(helper.make_node(ends[forest.link], ["raw"], ["p"]))
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [None, forest.width])],
        [helper.make_tensor_value_info("p", TensorProto.DOUBLE, [None, outputs])],
        [numpy_helper.from_array(np.ascontiguousarray(np.asarray(forest.start, dtype=np.float64)), "start")],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="loudly")
    return bytes(made.SerializeToString(deterministic=True))


@dataclass(slots=True)
class _Lists:
    """The nodes and leaves of all trees, one behind the other, as TreeEnsemble wants them."""

    feature: list[int] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    child: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    is_leaf: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    target: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def node(self, feature: int, cut: float, missing: int, children: Sequence[tuple[int, bool]]) -> None:
        """An inner node; children: the place of each and whether it is a leaf."""
        self.feature.append(feature)
        self.cut.append(cut)
        self.missing.append(missing)
        for side, (place, last) in enumerate(children):
            self.child[side].append(place)
            self.is_leaf[side].append(int(last))

    def tree(self, tree: _Tree, output: int) -> None:
        """One tree, for one of its outputs."""
        place, leaf_place = _places(tree, len(self.feature), len(self.weight))
        self.roots.append(len(self.feature))
        if not place:  # a tree of one leaf: a cut whose two sides are that leaf
            self.node(0, 0.0, 1, [(len(self.weight), True)] * 2)
        for i in place:
            children = [
                (leaf_place[c], True) if c in leaf_place else (place[c], False) for c in (int(tree.left[i]), int(tree.right[i]))
            ]
            self.node(int(tree.feature[i]), float(tree.cut[i]), int(tree.missing_left[i]), children)
        for i in leaf_place:
            self.target.append(output)
            self.weight.append(float(tree.leaf[i, output]))


def _arrays(forest: _Forest, outputs: int) -> dict[str, Any]:
    """The attributes of TreeEnsemble."""
    lists = _Lists()
    for tree, output in _single_output(forest.trees, outputs):
        lists.tree(tree, output)
    modes = np.full(len(lists.feature), forest.mode, dtype=np.uint8)
    return {
        "n_targets": outputs,
        "aggregate_function": SUM,
        "post_transform": 0,
        "tree_roots": lists.roots,
        "nodes_featureids": lists.feature,
        "nodes_modes": numpy_helper.from_array(modes, "modes"),
        "nodes_splits": numpy_helper.from_array(np.asarray(lists.cut, dtype=np.float64), "splits"),
        "nodes_truenodeids": lists.child[0],
        "nodes_falsenodeids": lists.child[1],
        "nodes_trueleafs": lists.is_leaf[0],
        "nodes_falseleafs": lists.is_leaf[1],
        "nodes_missing_value_tracks_true": lists.missing,
        "leaf_targetids": lists.target,
        "leaf_weights": numpy_helper.from_array(np.asarray(lists.weight, dtype=np.float64), "weights"),
    }


def _single_output(trees: Iterable[_Tree], outputs: int) -> Iterable[tuple[_Tree, int]]:
    """A tree once for each output that it speaks of."""
    for tree in trees:
        for k in range(outputs):
            if outputs == 1 or np.any(tree.leaf[:, k]):
                yield tree, k


def _places(tree: _Tree, inner: int, leaves: int) -> tuple[dict[int, int], dict[int, int]]:
    """Where each inner node and each leaf of a tree goes in the lists of all."""
    left = np.asarray(tree.left)
    return (
        {int(i): inner + n for n, i in enumerate(np.flatnonzero(left >= 0))},
        {int(i): leaves + n for n, i in enumerate(np.flatnonzero(left < 0))},
    )
