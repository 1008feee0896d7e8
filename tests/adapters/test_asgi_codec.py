"""Bodies to rows, whatever the order of the columns that may be missing."""

from __future__ import annotations

import json
from itertools import product

import pytest

from loudly.adapters.asgi_codec import Codec, Refused
from loudly.core.values import Field, Kind, Role, Schema


def schema(nullable: tuple[bool, ...]) -> Schema:
    keyed = (Field("id", Kind.CATEGORY, Role.KEY), Field("at", Kind.TIME, Role.TIME))
    return Schema((*(Field(f"x {i}", Kind.NUMBER, nullable=may) for i, may in enumerate(nullable)), *keyed))


@pytest.mark.parametrize("nullable", list(product([False, True], repeat=3)))
def test_a_column_that_may_be_missing_may_stand_before_one_that_may_not(nullable: tuple[bool, ...]) -> None:
    codec = Codec(schema(nullable), 10)
    row = {"at": "2026-01-01T00:00:00", "x 2": 2.5, "x 0": 0.5, "id": "k", "x 1": 1.5}
    for body in (row, [row], {"columns": {name: [value] for name, value in row.items()}}):
        read = codec.read(json.dumps(body).encode()).table()
        assert read.select("x 0", "x 1", "x 2", "id").rows() == [(0.5, 1.5, 2.5, "k")]
    for i, may in enumerate(nullable):
        body = json.dumps({name: value for name, value in row.items() if name != f"x {i}"}).encode()
        if may:
            assert codec.read(body).table()[f"x {i}"].null_count() == 1
        else:
            with pytest.raises(Refused):
                codec.read(body)
