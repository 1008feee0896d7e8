"""JSON Schemas of what the server takes and says, by name: the components of its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loudly.adapters.asgi_examples import examples
from loudly.core.values import Field, Kind, Role, Schema
from loudly.serve.front import Front
from loudly.serve.request import json_schema
from loudly.serve.rows import asked

TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
TRUTH: dict[str, Any] = {"type": "boolean"}
SCORE: dict[str, Any] = {"type": ["number", "null"]}
ONE_VALUE: dict[str, Any] = {"type": ["string", "number", "boolean"]}
NAME_OR_NUMBER: dict[str, Any] = {"type": ["string", "integer"]}
NOTHING: dict[str, Any] = {"type": "null"}
ANYTHING: dict[str, Any] = {"type": "object", "additionalProperties": True}
SHAPE: dict[str, Any] = {"type": "array", "items": WHOLE}
INT64 = {"minimum": -(2**63) + 1, "maximum": 2**63 - 1}
LABELS: Mapping[Kind, dict[str, Any]] = {
    Kind.NUMBER: {"type": "number"},
    Kind.INTEGER: {"type": "integer", **INT64},
    Kind.BOOLEAN: TRUTH,
    Kind.CATEGORY: TEXT,
    Kind.TEXT: TEXT,
}


def ref(name: str) -> dict[str, Any]:
    """A component by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(title: str, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "title": title, "properties": {**required, **(optional or {})}, "required": list(required)}


def many(item: Mapping[str, Any], most: int) -> dict[str, Any]:
    """The schema of a list with at least one item."""
    return {"type": "array", "items": dict(item), "minItems": 1, "maxItems": most}


def components(front: Front, most_rows: int, explain_rows: int) -> dict[str, Any]:
    """All components, typed from the champion's schema where there is one."""
    schema = front.schema()
    row = json_schema(schema, front.example()) if schema is not None else {"type": "object", "title": "Row"}
    label = label_field(schema)
    told = LABELS.get(label.kind, ONE_VALUE) if label is not None else ONE_VALUE
    shown = examples(front, label)
    made = {
        "Row": row,
        "Columns": _columns("Columns", schema, row, most_rows),
        "FewColumns": _columns("FewColumns", schema, row, explain_rows),
        "Label": record("Label", {front.key: {"type": ["string", "integer"]}, front.label_name: told}),
        **ANSWERS,
        "Answer": record("Answer", ANSWER | {"prediction": PARTS | {"description": _meaning(front.classes())}}),
        **WATCHING,
        **PROTOCOL,
    }
    return {name: {**one, "example": shown[name]} if name in shown else one for name, one in made.items()}


def _meaning(classes: Sequence[str]) -> str:
    """What a prediction says."""
    if not classes:
        return "The value that is predicted."
    if len(classes) > 2:
        return f"How likely each class is, in this order: {', '.join(classes)}."
    return f"How likely {classes[-1]!r} is, the other class being {classes[0]!r}."


def label_field(schema: Schema | None) -> Field | None:
    """The column of the labels, as training saw it."""
    labels = schema.role(Role.LABEL) if schema is not None else ()
    return labels[0] if labels else None


def _columns(title: str, schema: Schema | None, row: Mapping[str, Any], most_rows: int) -> dict[str, Any]:
    fields = asked(schema) if schema is not None else ()
    lists = {f.name: many(row["properties"][f.name], most_rows) for f in fields}
    required = [f.name for f in fields if not f.nullable]
    inner = {"type": "object", "title": f"{title}Lists", "properties": lists, "required": required}
    return record(title, {"columns": inner})


PARTS: dict[str, Any] = {"anyOf": [SCORE, {"type": "array", "items": SCORE}]}
CLASSES = {"classes": {"type": "array", "items": TEXT, "description": "Of several classes: what each score is of."}}
ANSWER = {
    "prediction": PARTS,
    "version": TEXT,
    "arm": TEXT,
    "propensity": SCORE,
    "fallback": TRUTH,
}
EXPLANATION = {
    "prediction": PARTS,
    "version": TEXT,
    "arm": TEXT,
    "method": {"type": "string", "enum": ["tree-shap", "linear", "shapley", "shapley-sampling"]},
    "space": {"type": "string", "enum": ["log-odds", "logits", "output"]},
    "base": PARTS,
    "score": PARTS,
    "contributions": {"type": "object", "title": "ByColumn", "additionalProperties": PARTS},
    "error": SCORE,
}
PROBLEM = {"loc": {"type": "array", "items": {"type": ["string", "integer"]}}, "msg": TEXT, "type": TEXT}
PROBLEM_OF_A_FIELD = {"row": WHOLE, "field": TEXT, "expected": TEXT, "seen": TEXT, "schema_version": TEXT}
ANSWERS: dict[str, Any] = {
    "Answer": record("Answer", ANSWER),
    "Answers": record("Answers", {"schema_version": TEXT, "answers": {"type": "array", "items": ref("Answer")}}, CLASSES),
    "Explanation": record("Explanation", EXPLANATION),
    "Explanations": record(
        "Explanations", {"schema_version": TEXT, "explanations": {"type": "array", "items": ref("Explanation")}}, CLASSES
    ),
    "Arrived": record(
        "Arrived",
        {"joined": WHOLE, "unknown": WHOLE, "repeated": WHOLE},
        {"changed": WHOLE, "spooled": WHOLE, "unfollowed": WHOLE, "strange": WHOLE},
    ),
    "Problem": record("Problem", PROBLEM, PROBLEM_OF_A_FIELD),
    "Refusal": record("Refusal", {"detail": {"anyOf": [TEXT, {"type": "array", "items": ref("Problem")}]}}),
}
EVIDENCE = {
    "method": TEXT,
    "effect": SCORE,
    "low": SCORE,
    "high": SCORE,
    "n": WHOLE,
    "about": TEXT,
    "unit": TEXT,
    "confidence": {"type": "number"},
    "tolerance": SCORE,
    "p_value": SCORE,
    "detail": ANYTHING,
}
DECISION = {"type": "string", "enum": ["PASS", "FAIL", "UNDECIDED"]}
VERDICT = {
    "result": DECISION,
    "decision": DECISION,
    "subject": TEXT,
    "reason": TEXT,
    "evidence": {"type": "array", "items": ref("Evidence")},
    "missing": TEXT,
    "expected_at": {"type": ["integer", "null"]},
}
STATUS = {
    "champion": {"type": ["string", "null"]},
    "candidate": {"type": ["string", "null"]},
    "arms": ANYTHING,
    "served_from": ANYTHING,
    "loaded": {"type": "array", "items": TEXT},
    "alarms": {"type": "object", "additionalProperties": TEXT},
    "held_back": ANYTHING,
    "heard": {"type": "object", "additionalProperties": TEXT},
    "waiting_for_labels": WHOLE,
    "labels_overdue": WHOLE,
    "catching_up": ANYTHING | {"type": ["object", "null"]},
    "ledger": WHOLE,
    "log": ANYTHING,
}
OF_A_DOOR = {"door": TEXT, "wheel_away": TRUTH, "door_lost": WHOLE}
WEBHOOK = record("Webhook", {}, {"metadata": {"anyOf": [record("Metadata", {}, {"version": TEXT}), NOTHING]}})
WATCHING: dict[str, Any] = {
    "Alive": record("Alive", {"status": {"type": "string", "enum": ["alive"]}}),
    "Ready": record("Ready", {"ready": TRUTH}, {"schema_version": TEXT, "reason": TEXT}),
    "Status": record("Status", {"champion": STATUS["champion"]}, {**STATUS, **OF_A_DOOR}) | {"additionalProperties": True},
    "Document": record("Document", {"openapi": TEXT, "info": ANYTHING, "paths": ANYTHING, "components": ANYTHING}),
    "Evidence": record("Evidence", EVIDENCE),
    "StandingVerdict": record("StandingVerdict", VERDICT),
    "Webhook": WEBHOOK,
    "Promotion": record("Promotion", {"version": NAME_OR_NUMBER, "ledger": WHOLE, "reason": {"type": "string", "minLength": 1}}),
    "Promoted": record("Promoted", {"champion": TEXT}),
}
TENSOR = {"name": TEXT, "datatype": TEXT, "shape": SHAPE}
DETAILS = {"parameters": {"type": "object"}, "data": {"type": "array", "items": {}}}
METADATA = {"name": TEXT, "datatype": TEXT, "shape": SHAPE}
WANTED = record("WantedOutput", {"name": TEXT}, {"parameters": {"type": "object"}})
PROTOCOL: dict[str, Any] = {
    "InputTensor": record("InputTensor", TENSOR, DETAILS),
    "OutputTensor": record("OutputTensor", TENSOR, DETAILS),
    "WantedOutput": WANTED,
    "InferRequest": record(
        "InferRequest",
        {"inputs": {"type": "array", "items": ref("InputTensor"), "minItems": 1}},
        {"id": NAME_OR_NUMBER, "parameters": {"type": "object"}, "outputs": {"type": "array", "items": ref("WantedOutput")}},
    ),
    "InferResponse": record(
        "InferResponse",
        {"model_name": TEXT, "model_version": TEXT, "id": TEXT, "outputs": {"type": "array", "items": ref("OutputTensor")}},
    ),
    "TensorMetadata": record("TensorMetadata", METADATA, {"parameters": {"type": "object"}}),
    "ServerMetadata": record("ServerMetadata", {"name": TEXT, "version": TEXT, "extensions": {"type": "array", "items": TEXT}}),
    "ModelMetadata": record(
        "ModelMetadata",
        {
            "name": TEXT,
            "versions": {"type": "array", "items": TEXT},
            "platform": TEXT,
            "inputs": {"type": "array", "items": ref("TensorMetadata")},
            "outputs": {"type": "array", "items": ref("TensorMetadata")},
        },
    ),
    "IndexRequest": record("IndexRequest", {}, {"ready": TRUTH}),
    "VersionState": record(
        "VersionState",
        {"name": TEXT, "version": TEXT, "state": {"type": "string", "enum": ["READY", "UNAVAILABLE"]}, "reason": TEXT},
    ),
    "Index": {"type": "array", "title": "Index", "items": ref("VersionState")},
    "RepositoryRequest": record(
        "RepositoryRequest", {}, {"parameters": record("RepositoryParameters", {}, {"version": NAME_OR_NUMBER})}
    ),
    "Live": record("Live", {"live": TRUTH}),
    "ModelReady": record("ModelReady", {"name": TEXT, "ready": TRUTH}),
    "ProtocolError": record("ProtocolError", {"error": TEXT}),
}
