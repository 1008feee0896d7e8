"""Dataset versions as DVC 3 knows them: a `.dvc` pointer in Git and objects in DVC's cache, written without DVC.

The stock `dvc` reads them: `dvc status`, `dvc push`, `dvc pull`, `dvc checkout`. A dataset is a folder of its parts, so
unchanged parts are stored once.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from loudly.core.seams import Blobs
from loudly.core.values import Dataset
from loudly.errors import DataError

CACHE = Path(".dvc") / "cache" / "files" / "md5"


def write_pointer(dataset: Dataset, blobs: Blobs, repository: Path, name: str) -> Path:
    """Writes the parts under `repository/name/`, their objects into the cache and `name.dvc` beside; returns the pointer.

    Raises: DataError where the repository is not one of DVC (`dvc init` makes it one).
    """
    if not (repository / ".dvc").is_dir():
        raise DataError("This is no DVC repository.", seen=str(repository.name), do="Run `dvc init` in it.")
    folder = repository / name
    folder.mkdir(parents=True, exist_ok=True)
    entries, size = [], 0
    for index, part in enumerate(dataset.parts):
        with blobs.open(part.digest) as stream:
            data = stream.read()
        relative = f"part-{index:05d}.parquet"
        md5 = _object(repository, data)
        _place(repository / CACHE / md5[:2] / md5[2:], folder / relative)
        entries.append({"md5": md5, "relpath": relative})
        size += len(data)
    for stale in set(folder.glob("part-*.parquet")) - {folder / e["relpath"] for e in entries}:
        stale.unlink()
    listing = json.dumps(sorted(entries, key=lambda e: e["relpath"]), sort_keys=True).encode()
    directory = _object(repository, listing, suffix=".dir")
    pointer = folder.with_name(folder.name + ".dvc")
    pointer.write_text(_pointer(directory, size, len(entries), folder.name, dataset))
    _ignore(folder)
    return pointer


def _object(repository: Path, data: bytes, suffix: str = "") -> str:
    """Puts bytes into DVC's cache under their MD5 (which is DVC's choice of name, not a matter of security)."""
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    target = repository / CACHE / md5[:2] / (md5[2:] + suffix)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(target.name + ".draft")
        draft.write_bytes(data)
        draft.chmod(0o444)
        os.replace(draft, target)
    return md5 + suffix


def _place(source: Path, target: Path) -> None:
    """The object as a file of the work tree: a hard link where the file system has them, else a copy."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())


def _pointer(directory: str, size: int, files: int, path: str, dataset: Dataset) -> str:
    return (
        f"outs:\n- md5: {directory}\n  size: {size}\n  nfiles: {files}\n  hash: md5\n  path: {path}\n"
        f"meta:\n  loudly:\n    dataset: {dataset.digest}\n    schema: {dataset.schema.version}\n    rows: {dataset.rows}\n"
    )


def _ignore(folder: Path) -> None:
    """Git keeps the pointer, not the data."""
    path = folder.parent / ".gitignore"
    line = f"/{folder.name}"
    known = path.read_text().splitlines() if path.exists() else []
    if line not in known:
        path.write_text("\n".join([*known, line]) + "\n")
