"""What a worker acknowledges is on its disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from loudly.app.worker import SpoolLine
from loudly.data.pseudonym import pseudonym
from loudly.errors import WheelAway
from loudly.loop import traffic
from loudly.store.segments import SegmentWriter, read_segments

LABELS = pl.DataFrame({"id": ["a", "b"], "y": [True, False]})


def test_labels_that_the_disk_refuses_are_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = SegmentWriter(tmp_path / "spool", through=True)
    line = SpoolLine(spool, tmp_path, ("id",), b"key")  # where nobody listens: the wheel is away

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


def test_a_private_key_is_a_pseudonym_before_it_is_in_a_spool(tmp_path: Path) -> None:
    spool = SegmentWriter(tmp_path / "spool", through=True)
    assert SpoolLine(spool, tmp_path, ("id",), b"key").labels(LABELS.with_columns(pl.lit("ann").alias("id")))["spooled"] == 2
    (record,) = read_segments(spool.root)
    assert traffic.labels_of(record.payload).column("id") == [pseudonym("ann", b"key")] * 2
    spool.close()
