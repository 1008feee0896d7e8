"""What a worker acknowledges is on its disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from loudly.app.worker import SpoolLine
from loudly.errors import WheelAway
from loudly.store.segments import SegmentWriter, read_segments

LABELS = pl.DataFrame({"id": ["a", "b"], "y": [True, False]})


def test_labels_that_the_disk_refuses_are_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = SegmentWriter(tmp_path / "spool", through=True)
    line = SpoolLine(spool, tmp_path)  # where nobody listens: the wheel is away

    def refuses(data: bytes) -> bool:
        spool.refused = "OSError: [Errno 28] No space left on device"
        return False

    assert line.labels(LABELS)["spooled"] == 2
    with monkeypatch.context() as patched:
        patched.setattr(spool, "_put", refuses)
        with pytest.raises(WheelAway, match="The disk does not take the labels"):
            line.labels(LABELS)
        assert len(list(read_segments(spool.root))) == 1
    assert line.labels(LABELS)["spooled"] == 2
    spool.close()
