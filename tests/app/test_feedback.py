"""Labels of a file beside a server that writes: safe in a spool, or refused."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from conftest import make_app, make_world
from loudly.app.feedback import feedback
from loudly.app.verbs import open_stores
from loudly.errors import Conflict, DataError, WheelAway
from loudly.loop import traffic
from loudly.store.segments import SegmentWriter, read_segments

NONE = {"joined": 0, "unknown": 0, "strange": 0, "repeated": 0, "changed": 0, "spooled": 0}
LABELS = pl.DataFrame({"id": ["r000001", "r000002"], "y": [True, False]})


def test_labels_wait_in_a_spool_where_the_disk_takes_them_and_are_refused_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = make_app(make_world(days=2)).system
    with closing(SegmentWriter(tmp_path / ".loudly" / "traffic")):
        assert feedback(system, tmp_path, LABELS) == NONE | {"spooled": 2}
        (spool,) = (tmp_path / ".loudly" / "spools").iterdir()
        (record,) = read_segments(spool)
        assert traffic.from_bytes(record.payload).drop("_at").equals(LABELS)
        monkeypatch.setattr("loudly.app.feedback.SegmentWriter", partial(SegmentWriter, most=-1))
        with pytest.raises(WheelAway, match="does not take the labels"):
            feedback(system, tmp_path, LABELS)


def test_labels_wait_beside_what_a_killed_server_has_left_in_spools(tmp_path: Path) -> None:
    """Their answers stand there, acknowledged and in no log yet: the labels were counted as unknown, and lost."""
    system = make_app(make_world(days=2)).system
    with closing(SegmentWriter(tmp_path / ".loudly" / "spools" / "worker-1", through=True)) as left:
        left.append("predictions", b"some answers")
        left.flush()
    assert feedback(system, tmp_path, LABELS) == NONE | {"spooled": 2}
    assert len(list((tmp_path / ".loudly" / "spools").iterdir())) == 2


def test_a_file_without_labels_is_none_and_keys_that_no_request_has_are_refused(tmp_path: Path) -> None:
    system = make_app(make_world(days=2)).system
    with closing(SegmentWriter(tmp_path / ".loudly" / "traffic")):
        assert feedback(system, tmp_path, LABELS.clear()) == NONE
        for keys in (pl.Series("id", [1.0, 2.0]), pl.Series("id", [["r1"], ["r2"]])):
            with pytest.raises(DataError, match="no texts and no whole numbers"):
                feedback(system, tmp_path, LABELS.with_columns(keys))
        assert not (tmp_path / ".loudly" / "spools").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="LOUD: open files are found by /proc")
def test_stores_that_cannot_all_be_opened_leave_none_open(tmp_path: Path) -> None:
    def held() -> list[str]:
        return [name for fd in os.listdir("/proc/self/fd") if "ledger.db" in (name := _target(fd)) and str(tmp_path) in name]

    with closing(SegmentWriter(tmp_path / ".loudly" / "traffic")):
        with pytest.raises(Conflict, match="Another process writes this log"):
            open_stores("world", tmp_path, traffic=True)
        assert not held()
        opened, _ = open_stores("world", tmp_path)
        assert held()
        opened.close()


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # closed meanwhile
        return ""
