"""Blobs in files named by their SHA-256: written beside, synced, then renamed, so that a half-written one never counts."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from loudly.core.canon import digest as digest_of
from loudly.errors import DatasetCorrupt, DiskFull, NotFound


class FileBlobs:
    """A folder of blobs, `ab/cdef...`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def put(self, data: bytes) -> str:
        name = digest_of(data)
        target = self._path(name)
        if target.exists():
            return name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, draft = tempfile.mkstemp(dir=target.parent, prefix=".draft-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, target)
            except BaseException:
                Path(draft).unlink(missing_ok=True)
                raise
        except OSError as wrong:
            if wrong.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise DiskFull("There is no room for a blob.", seen=f"{len(data):,} bytes", do="Free space, then retry.") from wrong
            raise
        return name

    def open(self, digest: str) -> BinaryIO:
        try:
            data = self._path(digest).read_bytes()
        except FileNotFoundError as wrong:
            raise NotFound("There are no bytes of that digest.", seen=digest, do="Restore them from a remote or backup.") from wrong
        if digest_of(data) != digest:
            raise DatasetCorrupt(
                "Stored bytes are not what was stored.",
                seen=f"{digest[:12]} holds {digest_of(data)[:12]}",
                do="Restore a backup.",
            )
        return io.BytesIO(data)

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def delete(self, digest: str) -> None:
        self._path(digest).unlink(missing_ok=True)

    def iterate(self) -> Iterator[str]:
        for path in sorted(self.root.glob("??/*")):
            if not path.name.startswith("."):
                yield path.parent.name + path.name

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest[2:]
