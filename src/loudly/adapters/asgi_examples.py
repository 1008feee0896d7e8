"""Examples of what a server takes and says, by the names of the components: the newest training row, this model, these versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loudly.adapters.inference_protocol import DATATYPES, OUTPUTS
from loudly.core.values import Field, Kind
from loudly.serve.front import Front
from loudly.serve.rows import asked

ONE_OF_A_KIND: Mapping[Kind, Any] = {Kind.NUMBER: 1.5, Kind.INTEGER: 1, Kind.BOOLEAN: True}


class Unshown:
    """A front as it is, but that it shows no row of the training table: who has no key reads the document, too."""

    def __init__(self, front: Front) -> None:
        self._front = front

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)

    def example(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}


def examples(front: Front, label: Field | None) -> dict[str, Any]:
    """Component -> example. The row's own, and those of columns and tensors, are there once there is a champion."""
    schema, row = front.schema(), front.example()
    version = front.version() or f"{front.name}/1"
    number, frozen = version.rpartition("/")[2], schema.version if schema is not None else ""
    truth = ONE_OF_A_KIND.get(label.kind, (*label.values, "yes")[0]) if label is not None else True
    several = list(front.classes()) if len(front.classes()) > 2 else []

    def of_each(one: float) -> Any:
        """A score, or one for each of several classes."""
        return [one, *[0.0] * (len(several) - 1)] if several else one

    likely = [0.31, 0.69, *[0.0] * (len(several) - 2)] if several else 0.31
    answer = {"prediction": likely, "version": version, "arm": "control", "propensity": 1.0, "fallback": False}
    classes = {"classes": several} if several else {}
    verdict = {"decision": "UNDECIDED", "subject": version, "reason": "shadowing", "evidence": [], "missing": "400 labels"}
    made: dict[str, Any] = {
        "Label": {front.key: str(row.get(front.key, "r1")), front.label_name: truth},
        "Answers": {"schema_version": frozen, "answers": [answer], **classes},
        "Arrived": {"joined": 1, "unknown": 0, "repeated": 0},
        "Ready": {"ready": schema is not None, **({"schema_version": frozen} if schema is not None else {})},
        "Status": {"champion": front.version(), "candidate": None, "waiting_for_labels": 0, "ledger": 12, "alarms": {}},
        "StandingVerdict": {"result": "UNDECIDED", **verdict, "expected_at": None},
        "Webhook": {"name": front.name, "namespace": "prod", "phase": "Progressing", "metadata": {"version": version}},
        "Promotion": {"version": number, "ledger": 12, "reason": "the night's batch needs it"},
        "Promoted": {"champion": version},
        "IndexRequest": {"ready": True},
        "Index": [{"name": front.name, "version": number, "state": "READY", "reason": ""}],
        "RepositoryRequest": {"parameters": {"version": number}},
        "Refusal": {"detail": "too many rows are waiting"},
        "ProtocolError": {"error": f"there is no model 'other'; this is {front.name!r}"},
    }
    if schema is None or not row:
        return made
    fields = asked(schema)
    columns = {"columns": {f.name: [row.get(f.name)] for f in fields}}
    inputs = [{"name": f.name, "datatype": DATATYPES[f.kind], "shape": [1, 1], "data": [row.get(f.name)]} for f in fields]
    outputs: list[dict[str, Any]] = [
        {"name": n, "datatype": kind, "shape": [1], "data": [answer[n]]} for n, kind in OUTPUTS.items()
    ]
    if several:
        outputs[0] |= {"shape": [1, len(several)], "data": likely}
    told = {"model_name": front.name, "model_version": number, "id": "mine", "outputs": outputs}
    parts = {f.name: of_each(0.0) for f in fields if f.name != front.key}
    explained = {
        **{name: answer[name] for name in ("prediction", "version", "arm")},
        "method": "linear",
        "space": "logits" if several else "log-odds",
        "base": of_each(-0.8),
        "score": of_each(-0.8),
        "contributions": parts,
        "error": 0.0,
    }
    shown = {"schema_version": frozen, "explanations": [explained], **classes}
    request = {"id": "mine", "inputs": inputs}
    return {
        **made,
        "Columns": columns,
        "FewColumns": columns,
        "InferRequest": request,
        "InferResponse": told,
        "Explanations": shown,
    }
