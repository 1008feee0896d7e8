"""Graphs of models as one bundle of their parts, each in its own format."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loudly.core.canon import canonical
from loudly.core.seams import Floats, Model, ModelFormat
from loudly.errors import ModelError, UntrustedModel, one_line
from loudly.register.bundle import EPOCH
from loudly.register.graph import Graph, Mean, Node, answer
from loudly.register.pickle_format import PickleFormat
from loudly.register.skops_format import SkopsFormat

PLAN, MEAN = "graph.json", "mean"
DEFAULT: tuple[ModelFormat, ...] = (SkopsFormat(), PickleFormat())


@dataclass(frozen=True, slots=True)
class GraphFormat:
    """Stores a `Graph`: a plan in JSON and the bytes of each part.

    formats: what the parts are stored in; `over` hands in others.  executes_code: whether parts are taken whose loading runs
    code; a graph of safe parts is safe, so there are two formats.
    """

    name: str = "graph"
    executes_code: bool = False
    formats: tuple[ModelFormat, ...] = DEFAULT

    def over(self, formats: Sequence[ModelFormat]) -> GraphFormat:
        """The same over other formats for the parts."""
        return GraphFormat(self.name, self.executes_code, tuple(formats))

    def accepts(self, fitted: object) -> bool:
        return isinstance(fitted, Graph) and all(
            isinstance(n.model, Mean) or self._form(n.model) is not None for n in fitted.nodes.values()
        )

    def dump(self, fitted: object) -> bytes:
        if not isinstance(fitted, Graph):
            raise ModelError("This is no graph of models.", seen=type(fitted).__name__)
        plan: dict[str, Any] = {"output": fitted.output, "nodes": {}}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for number, (name, node) in enumerate(fitted.nodes.items()):
                said: dict[str, Any] = {"order": number, "reads": None if node.reads is None else list(node.reads)}
                if isinstance(node.model, Mean):
                    said |= {"format": MEAN, "weights": list(node.model.weights), "outputs": node.model.outputs}
                else:
                    form = self._form(node.model)
                    if form is None:
                        raise ModelError(f"No format of {self.name!r} stores the node {name!r}.", seen=type(node.model).__name__)
                    said["format"] = form.name
                    archive.writestr(zipfile.ZipInfo(f"parts/{number}", EPOCH), form.dump(node.model))
                plan["nodes"][name] = said
            archive.writestr(zipfile.ZipInfo(PLAN, EPOCH), canonical(plan))
        return buffer.getvalue()

    def load(self, data: bytes) -> GraphModel:
        graph, forms, parts = self._read(data)
        models = {name: forms[name].load(parts[name]) if name in forms else graph.nodes[name].model for name in graph.nodes}
        return GraphModel(graph, models)  # type: ignore[arg-type]

    def restore(self, data: bytes) -> Graph:
        graph, forms, parts = self._read(data)
        made = {
            name: Node(forms[name].restore(parts[name]) if name in forms else node.model, node.reads)
            for name, node in graph.nodes.items()
        }
        return Graph(made, graph.output)

    def _form(self, model: object) -> ModelFormat | None:
        """The first format that stores a part, of those that this graph may hold."""
        return next((f for f in self.formats if f.accepts(model) and (self.executes_code or not f.executes_code)), None)

    def _read(self, data: bytes) -> tuple[Graph, dict[str, ModelFormat], dict[str, bytes]]:
        """The graph without its models, and the format and bytes of each. Raises: UntrustedModel for a part that would run code
        in a graph that is said to be safe."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                plan = json.loads(archive.read(PLAN))
                said = dict(sorted(plan["nodes"].items(), key=lambda item: item[1]["order"]))
                parts = {n: archive.read(f"parts/{s['order']}") for n, s in said.items() if s["format"] != MEAN}
        except (zipfile.BadZipFile, KeyError, ValueError) as wrong:
            raise ModelError("These bytes are no graph of ours.", seen=one_line(wrong)) from wrong
        by_name = {f.name: f for f in self.formats}
        absent = sorted({said[n]["format"] for n in parts} - set(by_name))
        if absent:
            raise ModelError("A part is in a format that is not at hand.", seen=", ".join(absent), do="Install its extra.")
        forms = {name: by_name[said[name]["format"]] for name in parts}
        unsafe = [name for name, form in forms.items() if form.executes_code]
        if unsafe and not self.executes_code:
            raise UntrustedModel("A graph that is said to be safe has parts that run code when loaded.", seen=", ".join(unsafe))
        nodes = {
            name: Node(
                Mean(tuple(s["weights"]), s["outputs"]) if s["format"] == MEAN else None,
                None if s["reads"] is None else tuple(s["reads"]),
            )
            for name, s in said.items()
        }
        return Graph(nodes, plan["output"]), forms, parts


@dataclass(frozen=True, slots=True)
class GraphModel:
    """A loaded graph."""

    graph: Graph
    models: dict[str, Model]

    def predict(self, X: Floats) -> Floats:
        return answer(self.models, self.graph, X)


def code_graph() -> GraphFormat:
    """The format of graphs with parts whose loading runs code: it loads only under a digest the ledger holds."""
    return GraphFormat("graph-with-code", True)
