"""Profiles and references as bytes and as plain JSON: little-endian, versioned, the same bytes for the same counts.

A profile's bytes: b"LOUD", a format version, the reference's fingerprint, a JSON header of what is not an integer vector, the
vector in the narrowest integers that hold each stretch of it, and the reservoir's rows. Readable only beside its reference.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from loudly.core.canon import Json, canonical
from loudly.core.seams import Ints
from loudly.errors import DataError
from loudly.shift.bins import bins_from, plain_bins
from loudly.shift.embedding import Embedding
from loudly.shift.plan import Plan
from loudly.shift.profile import Profile
from loudly.shift.reference import Reference
from loudly.shift.reservoir import Reservoir, Rows, sample_of

MAGIC, FORMAT = b"LOUD", 3
WIDTHS = (np.dtype("<i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8"))
HEAD = struct.Struct("<4sH16sII")


def to_bytes(profile: Profile) -> bytes:
    """A profile as bytes; the same for the same rows, however they were split and merged.

    Cost: about 10 µs a column.
    """
    plan, sample = profile.plan, profile.sample.rows if profile.sample else None
    widths, parts = bytearray(), []
    for a, b in _stretches(plan):
        width = _width(profile.vector[a:b])
        widths.append(width)
        parts.append(profile.vector[a:b].astype(WIDTHS[width]).tobytes())
    header: Json = {
        "far": {name: {str(b): f"{x:x}" for b, x in own.items()} for name, own in profile.far.items()},
        "distinct": {n: None if d is None else [[k.hex(), d[k]] for k in sorted(d)] for n, d in profile.distinct.items()},
        "cells": {n: {c: list(v) for c, v in own.items()} for n, own in profile.cells.items()},
        "added": dict(profile.added),
        "sample": None if sample is None else len(sample.priority),
    }
    told = canonical(header)
    if sample is not None:
        parts += [np.ascontiguousarray(a).tobytes() for a in (sample.priority, sample.tie, sample.weight, sample.values)]
    head = HEAD.pack(MAGIC, FORMAT, plan.fingerprint.encode(), len(told), len(widths))
    return b"".join([head, told, bytes(widths), *parts])


def from_bytes(data: bytes, plan: Plan) -> Profile:
    """The inverse of `to_bytes`, beside the plan that the profile was made under.

    Raises: DataError for other bytes, another format or another reference.
    """
    if len(data) < HEAD.size or data[:4] != MAGIC:
        raise DataError("These bytes are no profile.", seen=repr(data[:8]), do="Give what `to_bytes` returned.")
    _, version, fingerprint, told, stretches = HEAD.unpack_from(data)
    if version != FORMAT:
        raise DataError(
            "The profile is of another format.", seen=f"{version}", do=f"Profile the window again: this reads {FORMAT}."
        )
    if fingerprint.decode() != plan.fingerprint:
        raise DataError(
            "The profile belongs to another reference.",
            seen=f"{fingerprint.decode()}, not {plan.fingerprint}",
            do="Read it beside the reference it was made with.",
        )
    header = json.loads(data[HEAD.size : HEAD.size + told])
    widths = data[HEAD.size + told : HEAD.size + told + stretches]
    at, vector = HEAD.size + told + stretches, plan.zero()
    try:
        for (a, b), width in zip(_stretches(plan), widths, strict=True):
            vector[a:b] = np.frombuffer(data, WIDTHS[width], b - a, at)
            at += (b - a) * WIDTHS[width].itemsize
        sample = _sample(data, at, header["sample"], plan)
    except (ValueError, IndexError) as broken:
        raise DataError("The profile's bytes end too early.", seen=f"{len(data)} bytes", do="Profile the window again.") from broken
    distinct = header["distinct"]
    return Profile(
        plan,
        vector,
        {name: {int(b): int(x, 16) for b, x in own.items()} for name, own in header["far"].items()},
        {n: None if d is None else {float.fromhex(k): int(c) for k, c in d} for n, d in distinct.items()},
        {n: {c: (v[0], v[1]) for c, v in own.items()} for n, own in header["cells"].items()},
        header["added"],
        sample,
    )


def _sample(data: bytes, at: int, rows: int | None, plan: Plan) -> Reservoir | None:
    if rows is None:
        return None
    columns = len(plan.bins)
    priority = np.frombuffer(data, np.float64, rows, at)
    tie = np.frombuffer(data, np.uint64, rows, at + 8 * rows)
    weight = np.frombuffer(data, np.float64, rows, at + 16 * rows)
    values = np.frombuffer(data, np.float64, rows * columns, at + 24 * rows).reshape(rows, columns)
    return sample_of(plan.keep, Rows(priority, tie, weight, values))


def _stretches(plan: Plan) -> Iterator[tuple[int, int]]:
    """What is narrowed together: the rows and features; and each column's head, counts and sums."""
    first = min((p.head for p in plan.places.values()), default=plan.size)
    yield 0, first
    for p in plan.places.values():
        yield p.head, p.counts
        yield p.counts, p.sums
        yield p.sums, p.end


def _width(vector: Ints) -> int:
    most = max(int(vector.max()), -int(vector.min()) - 1) if len(vector) else 0
    return next(i for i, bits in enumerate((7, 15, 31, 63)) if most < 2**bits)


def plain_profile(profile: Profile) -> dict[str, Json]:
    """As plain JSON: what a reader wants to know, and the bytes in base64."""
    body = base64.b64encode(to_bytes(profile)).decode()
    return {"format": FORMAT, "reference": profile.plan.fingerprint, "rows": profile.rows, "body": body}


def profile_of(data: Mapping[str, Any], plan: Plan) -> Profile:
    """The inverse of `plain_profile`, beside the plan that the profile was made under."""
    return from_bytes(base64.b64decode(data["body"]), plan)


def plain_reference(reference: Reference) -> dict[str, Any]:
    """A fitted reference as plain JSON: no rows of it but those of its reservoir."""
    plan, e = reference.plan, reference.plan.embedding
    return {
        "format": FORMAT,
        "bins": [plain_bins(b) for b in plan.bins.values()],
        "plan": [list(plan.cells), plan.distinct, plan.keep, plan.key, plan.weight, list(plan.spread)],
        "embedding": None
        if e is None
        else {
            "weights": e.weights.tolist(),
            "scores": [s.tolist() for s in e.scores],
            "bandwidth": e.bandwidth,
        },
        "own": plain_profile(reference.own),
        "notes": {n: list(t) for n, t in reference.notes.items()},
    }


def reference_of(data: Mapping[str, Any]) -> Reference:
    """The inverse of `plain_reference`."""
    if data["format"] != FORMAT:
        raise DataError("The reference is of another format.", seen=str(data["format"]), do="Fit it again.")
    bins = {b["name"]: bins_from(b) for b in data["bins"]}
    cells, distinct, keep, key, weight, spread = data["plan"]
    e = data["embedding"]
    embedding = None
    if e is not None:
        scores = tuple(np.array(s, dtype=np.int8) for s in e["scores"])
        embedding = Embedding(np.array(e["weights"], dtype=np.float32), scores, e["bandwidth"])
    plan = Plan(bins, tuple(cells), distinct, embedding, keep, key, weight, tuple(spread))
    return Reference(plan, profile_of(data["own"], plan), {n: tuple(t) for n, t in data["notes"].items()})
