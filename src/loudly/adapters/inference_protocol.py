"""Open Inference Protocol v2 over REST: each column of the schema is a tensor of shape [n, 1], in JSON or in binary.

Source: the protocol's specification (kserve/open-inference-protocol) and the binary tensor data extension of Triton.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from loudly.adapters.asgi_codec import Refused
from loudly.core.values import Field, Kind, Schema
from loudly.errors import LoudlyError, nearest
from loudly.serve.front import Answered
from loudly.serve.request import check, fits, misfit
from loudly.serve.rows import Rows, asked, rows_of

DATATYPES = {
    Kind.NUMBER: "FP64",
    Kind.INTEGER: "INT64",
    Kind.BOOLEAN: "BOOL",
    Kind.CATEGORY: "BYTES",
    Kind.TEXT: "BYTES",
    Kind.TIME: "BYTES",
}
NUMPY = {
    "BOOL": "?",
    **{f"{sign}INT{bits}": f"<{letter}{bits // 8}" for sign, letter in (("", "i"), ("U", "u")) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
OUTPUTS = {"prediction": "FP64", "version": "BYTES", "arm": "BYTES", "propensity": "FP64", "fallback": "BOOL"}
HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its rows, its id, and which outputs it wants, with whether each is to be binary."""

    rows: Rows
    id: str
    outputs: Mapping[str, bool]


def broken(message: str, status: int = 400, rows: int = 1, why: str = "the body is no tensors") -> Refused:
    """A refusal as the protocol words it."""
    return Refused(status, {"error": message}, rows=rows, why=why)


def server(version: str) -> dict[str, Any]:
    """Metadata of the server."""
    return {"name": "loudly", "version": version, "extensions": ["binary_tensor_data", "model_repository"]}


def model(name: str, versions: Sequence[str], schema: Schema, classes: Sequence[str]) -> dict[str, Any]:
    """Metadata of the model. versions: those that can be asked by name.  classes: that its scores are of, in a parameter."""
    inputs = [{"name": f.name, "datatype": DATATYPES[f.kind], "shape": [-1, 1]} for f in asked(schema)]
    outputs: list[dict[str, Any]] = [{"name": n, "datatype": kind, "shape": [-1]} for n, kind in OUTPUTS.items()]
    outputs[0] |= {"shape": [-1, -1], **({"parameters": {"classes": list(classes)}} if classes else {})}
    return {"name": name, "versions": list(versions), "platform": "loudly", "inputs": inputs, "outputs": outputs}


def read(body: bytes, length: str | None, schema: Schema, most_rows: int) -> Asked:
    """A request. length: the header's `Inference-Header-Content-Length`, where tensors follow the JSON. Raises: Refused."""
    head, tail = _split(body, length)
    try:
        said = json.loads(head)
    except (ValueError, RecursionError) as wrong:
        raise broken(f"no JSON: {wrong}") from wrong
    if not isinstance(said, dict) or not isinstance(said.get("inputs"), list):
        raise broken('a request is an object with "inputs"')
    fields = {f.name: f for f in asked(schema)}
    columns: dict[str, list[Any]] = {}
    at = 0
    for tensor in said["inputs"]:
        name, values, at = _tensor(tensor, tail, at, fields, most_rows)
        if name in columns:
            raise broken(f"input {name!r} is given twice")
        columns[name] = values
    if at != len(tail):
        raise broken(f"{len(tail) - at:,} bytes belong to no tensor")
    return Asked(_rows(columns, schema, most_rows), _id(said), _outputs(said))


def told(asking: Asked, name: str, version: str, answered: Answered, first: int, last: int) -> tuple[bytes, int | None]:
    """The answer, and the length of its JSON where binary tensors follow it."""
    span = slice(first, last)
    given = {
        "prediction": np.asarray(answered.predictions[span], dtype=np.float64),
        "version": answered.versions[span],
        "arm": answered.arms[span],
        "propensity": np.asarray(answered.propensities[span], dtype=np.float64),
        "fallback": np.asarray(answered.fallbacks[span], dtype=bool),
    }
    tensors, tail = [], []
    for output, binary in asking.outputs.items():
        values, kind = given[output], OUTPUTS[output]
        shape = list(values.shape) if isinstance(values, np.ndarray) else [last - first]
        tensor: dict[str, Any] = {"name": output, "datatype": kind, "shape": shape}
        if binary:
            raw = _packed(values)
            tensor["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            tensor["data"] = values.ravel().tolist() if isinstance(values, np.ndarray) else list(values)
        tensors.append(tensor)
    made: dict[str, Any] = {"model_name": name, "model_version": version, "id": asking.id, "outputs": tensors}
    if any(answered.fallbacks[span]):  # also for whoever asks for the prediction alone
        made["parameters"] = {"fallback": True}
    head = msgspec.json.encode(made)
    return head + b"".join(tail), len(head) if tail else None


def _split(body: bytes, length: str | None) -> tuple[bytes, bytes]:
    if length is None:
        return body, b""
    if not length.isascii() or not length.isdigit() or int(length) > len(body):
        raise broken(f"{HEADER} is {length!r}, the body has {len(body):,} bytes")
    return body[: int(length)], body[int(length) :]


def _tensor(tensor: Any, tail: bytes, at: int, fields: Mapping[str, Field], most_rows: int) -> tuple[str, list[Any], int]:
    """Name and values of an input, and where the next one's bytes begin."""
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise broken("each input is an object with a name")
    name, kind, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if name not in fields:
        raise broken(f"there is no input {name[:80]!r}; {nearest(name[:80], list(fields)[:50])}")
    if not isinstance(kind, str) or not (kind == "BYTES" or kind in NUMPY):
        raise broken(f"input {name!r}: the datatype {str(kind)[:20]!r} is not known; {nearest(str(kind), [*NUMPY, 'BYTES'])}")
    if not isinstance(shape, list) or not _is_shape(shape):
        raise broken(f"input {name!r}: the shape is [n] or [n, 1], seen {shape!r:.80}")
    count = shape[0]
    if count > most_rows:
        raise Refused(413, {"error": f"a request may have {most_rows:,} rows at most"})
    size = _parameters(tensor).get("binary_data_size")
    if size is not None:
        if not isinstance(size, int) or size < 0 or at + size > len(tail):
            raise broken(f"input {name!r}: binary_data_size is {size!r:.20}, {len(tail) - at:,} bytes are left")
        values = _unpacked(name, kind, tail[at : at + size], count)
        return name, _fit(values, fields[name]), at + size
    data = tensor.get("data")
    flat = _flat(data) if isinstance(data, list) else None
    if flat is None or len(flat) != count:
        raise broken(f"input {name!r}: data is a list of {count:,} values")
    return name, _fit(flat, fields[name]), at


def _is_shape(shape: list[Any]) -> bool:
    return (
        len(shape) in (1, 2)
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in shape)
        and (len(shape) == 1 or shape[1] == 1)
    )


def _flat(data: list[Any]) -> list[Any]:
    return [v for one in data for v in (one if isinstance(one, list) else (one,))]


def _unpacked(name: str, kind: str, raw: bytes, count: int) -> list[Any]:
    if kind != "BYTES":
        dtype = np.dtype(NUMPY[kind])
        if len(raw) != count * dtype.itemsize:
            raise broken(f"input {name!r}: {count:,} values of {kind} are {count * dtype.itemsize:,} bytes, seen {len(raw):,}")
        return list(np.frombuffer(raw, dtype).tolist())
    values: list[bytes] = []
    at = 0
    while at + 4 <= len(raw) and len(values) < count:
        (length,) = struct.unpack_from("<I", raw, at)
        values.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    if at != len(raw) or len(values) != count:
        raise broken(f"input {name!r}: the bytes are no {count:,} values with their lengths")
    try:
        return [v.decode() for v in values]
    except UnicodeDecodeError as wrong:
        raise broken(f"input {name!r}: {wrong}") from wrong


def _fit(values: list[Any], field: Field) -> list[Any]:
    """Tensors have no null: NaN is what they say for it. Whole numbers may come as floats and booleans as 0 and 1."""
    match field.kind:
        case Kind.NUMBER if field.nullable:
            return [None if isinstance(v, float) and math.isnan(v) else v for v in values]
        case Kind.INTEGER:
            whole = [None if field.nullable and isinstance(v, float) and math.isnan(v) else v for v in values]
            return [int(v) if isinstance(v, float) and v.is_integer() else v for v in whole]
        case Kind.BOOLEAN:
            return [bool(v) if isinstance(v, int | float) and v in (0, 1) else v for v in values]
        case _:
            return values


def _rows(columns: dict[str, list[Any]], schema: Schema, most_rows: int) -> Rows:
    lengths = {name: len(values) for name, values in columns.items()}
    if not lengths or len(set(lengths.values())) > 1:
        raise broken(f"all inputs have the same number of rows, seen {str(lengths)[:200]}")
    given = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    problems = check(given, schema)
    if problems:
        first = problems[0]
        raise broken(
            f"row {first.row}, input {first.field!r}: expected {first.expected}, seen {first.seen} (schema {schema.version})",
            rows=len(given),
            why=misfit(first),
        )
    try:
        return rows_of(given, schema)
    except (LoudlyError, OverflowError) as wrong:
        raise broken(str(wrong)) from wrong


def _id(said: Mapping[str, Any]) -> str:
    given = said.get("id", "")
    if not isinstance(given, str | int) or isinstance(given, bool) or not fits(str(given), Kind.TEXT):
        raise broken("id is a text")
    return str(given)[:200]


def _parameters(said: Mapping[str, Any]) -> Mapping[str, Any]:
    given = said.get("parameters", {})
    if not isinstance(given, dict):
        raise broken("parameters is an object")
    return given


def _outputs(said: Mapping[str, Any]) -> dict[str, bool]:
    """Which outputs are wanted: those that are named, or all of them."""
    binary = bool(_parameters(said).get("binary_data_output"))
    wanted = said.get("outputs", [])
    if not isinstance(wanted, list):
        raise broken("outputs is a list")
    found = {}
    for one in wanted:
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or name not in OUTPUTS:
            raise broken(f"there is no output {str(name)[:80]!r}; {nearest(str(name)[:80], OUTPUTS)}")
        found[name] = bool(_parameters(one).get("binary_data", binary))
    return found or dict.fromkeys(OUTPUTS, binary)


def _packed(values: Any) -> bytes:
    if isinstance(values, np.ndarray):
        return values.tobytes()
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (v.encode() for v in values))
