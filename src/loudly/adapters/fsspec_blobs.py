"""Blobs wherever fsspec reaches: S3, GCS, Azure, a shared folder."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import fsspec

from loudly.core.canon import digest as digest_of
from loudly.errors import DatasetCorrupt, NotFound


class FsspecBlobs:
    """A folder of blobs at a URL, e.g. `s3://bucket/loudly`; object stores write an object whole or not at all."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)

    def put(self, data: bytes) -> str:
        name = digest_of(data)
        path = self._path(name)
        if not self._fs.exists(path):
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, data)
        return name

    def open(self, digest: str) -> BinaryIO:
        try:
            data = self._fs.cat_file(self._path(digest))
        except FileNotFoundError as wrong:
            raise NotFound("There are no bytes of that digest.", seen=digest, do="Restore a backup.") from wrong
        if digest_of(data) != digest:
            raise DatasetCorrupt("Stored bytes are not what was stored.", seen=digest[:12], do="Restore a backup.")
        return io.BytesIO(data)

    def has(self, digest: str) -> bool:
        return bool(self._fs.exists(self._path(digest)))

    def delete(self, digest: str) -> None:
        if self.has(digest):
            self._fs.rm_file(self._path(digest))

    def iterate(self) -> Iterator[str]:
        if not self._fs.exists(self._root):
            return
        for path in sorted(self._fs.find(self._root)):
            folder, name = path.rsplit("/", 2)[-2:]
            yield folder + name

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest[2:]}"
