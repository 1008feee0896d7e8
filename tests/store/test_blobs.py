from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from loudly.errors import DatasetCorrupt
from loudly.store.file_blobs import FileBlobs


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    name = blobs.put(b"hello")
    path = tmp_path / name[:2] / name[2:]
    path.write_bytes(b"hellO")
    with pytest.raises(DatasetCorrupt):
        blobs.open(name)


def test_a_half_written_file_never_counts(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path)
    name = blobs.put(b"x")
    (tmp_path / name[:2] / ".draft-123").write_bytes(b"half")
    assert list(blobs.iterate()) == [name]


def test_no_room_is_named_and_leaves_nothing_half(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\nfrom loudly.store.file_blobs import FileBlobs\nfrom loudly.errors import DiskFull\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nblobs=FileBlobs(sys.argv[1]); kept=blobs.put(b'a'*1000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n    blobs.put(b'b'*100_000)\nexcept DiskFull:\n    print('named', list(blobs.iterate())==[kept])\n"
    )
    told = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "named True", told.stderr
    assert not list(tmp_path.rglob(".draft-*"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 10_000
