"""The artefact: one self-contained file with the model's bytes and all it needs to answer.

A zip without compression and without times, so that equal contents are equal bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loudly.core.canon import Json, canonical
from loudly.core.values import Schema, plain, schema_of
from loudly.errors import ModelError

EPOCH = (1980, 1, 1, 0, 0, 0)
MODEL, SCHEMA, FEATURES, META, FAST = "model.bin", "schema.json", "features.json", "meta.json", "fast.bin"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is in the file. `meta` holds task, classes, metric, parameters; `fast` the bytes of the fast form, where it has one."""

    model: bytes
    format: str
    schema: Schema
    features: Mapping[str, Any]
    meta: Mapping[str, Any]
    fast: bytes = b""


def pack(
    model: bytes, format: str, schema: Schema, features: Mapping[str, Json], meta: Mapping[str, Json], fast: bytes = b""
) -> bytes:
    """The bytes of a bundle: deterministic. A fast form that reads the model's own bytes is not stored twice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (
            (META, canonical({**meta, "format": format})),
            (SCHEMA, canonical(plain(schema))),
            (FEATURES, canonical(features)),
            (MODEL, model),
            *(((FAST, fast),) if fast and fast != model else ()),
        ):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data)
    return buffer.getvalue()


def unpack(data: bytes) -> Bundle:
    """The contents of a bundle. Raises: ModelError for bytes that are none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            read = {name: archive.read(name) for name in (MODEL, SCHEMA, FEATURES, META)}
            fast = archive.read(FAST) if FAST in archive.namelist() else read[MODEL]
    except (zipfile.BadZipFile, KeyError) as wrong:
        raise ModelError(
            "These bytes are no model of ours.", seen=str(wrong), do="Take the digest from `loudly status`."
        ) from wrong
    meta = json.loads(read[META])
    schema, features = schema_of(json.loads(read[SCHEMA])), json.loads(read[FEATURES])
    return Bundle(read[MODEL], meta.pop("format"), schema, features, meta, fast)
