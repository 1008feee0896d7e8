"""Blobs in memory: for replays, notebooks and tests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from loudly.core.canon import digest
from loudly.errors import NotFound


class MemoryBlobs:
    """Keeps bytes in a dict; same contract as every blob store."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        name = digest(data)
        self._held.setdefault(name, data)
        return name

    def open(self, digest: str) -> BinaryIO:
        if digest not in self._held:
            raise NotFound("There are no bytes of that digest.", seen=digest)
        return io.BytesIO(self._held[digest])

    def has(self, digest: str) -> bool:
        return digest in self._held

    def delete(self, digest: str) -> None:
        self._held.pop(digest, None)

    def iterate(self) -> Iterator[str]:
        yield from sorted(self._held)
