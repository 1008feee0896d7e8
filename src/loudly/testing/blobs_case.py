"""What every blob store owes: run these against yours, with a fixture `blobs` that gives an empty one."""

from __future__ import annotations

from typing import Any

import pytest

from loudly.core.canon import digest
from loudly.errors import NotFound


class BlobsCase:
    """Conformance of a blob store."""

    def test_gives_back_the_same_bytes_under_their_digest(self, blobs: Any) -> None:
        for data in (b"", b"x" * 100_000):
            name = blobs.put(data)
            assert name == digest(data)
            assert blobs.put(data) == name
            with blobs.open(name) as stream:
                assert stream.read() == data

    def test_knows_what_it_has(self, blobs: Any) -> None:
        names = sorted(blobs.put(bytes([i])) for i in range(5))
        assert list(blobs.iterate()) == names
        blobs.delete(names[0])
        assert not blobs.has(names[0])
        assert list(blobs.iterate()) == names[1:]

    def test_what_is_not_there_is_named(self, blobs: Any) -> None:
        with pytest.raises(NotFound):
            blobs.open("0" * 64)
