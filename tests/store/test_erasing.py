"""Erasing from segments: what must go is gone, all else is byte for byte what it was, wherever the process dies."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from loudly.store.erasing import expire, rewrite
from loudly.store.segments import Record, SegmentWriter, being_written, read_segments
from loudly.testing.faults import FailingDisk, Killed

RECORDS = 60


def filled(root: Path) -> list[Record]:
    """Records 1..60 in several segments; the payload says when: its number."""
    writer = SegmentWriter(root)
    for i in range(RECORDS):
        writer.append("predictions" if i % 2 else "labels", b"%d " % (i + 1) * 20)
        if i % 12 == 11:
            writer.seal()
    writer.close()
    assert len(list(root.glob("*.seg"))) == 5
    return list(read_segments(root))


def seventh(record: Record) -> bytes:
    return b"" if record.sequence % 7 == 0 else record.payload


def at(record: Record) -> int | None:
    return int(record.payload.split()[0]) if record.payload else None


def nothing(record: Record) -> bytes:
    return b""


def test_a_rewrite_changes_what_it_must_and_keeps_every_sequence(tmp_path: Path) -> None:
    before = filled(tmp_path)
    untouched = {p.name: p.read_bytes() for p in tmp_path.glob("*.seg")}
    made = rewrite(tmp_path, seventh)
    after = list(read_segments(tmp_path))
    assert [r.sequence for r in after] == [r.sequence for r in before]
    assert [r.payload for r in after] == [seventh(r) for r in before]
    assert made.records == RECORDS // 7
    same = [n for n, data in untouched.items() if (tmp_path / n).read_bytes() == data]
    assert len(same) == len(untouched) - made.segments
    assert rewrite(tmp_path, seventh).segments == 0, "a second time there is nothing to do"
    writer = SegmentWriter(tmp_path)
    assert writer.append("labels", b"next") == RECORDS + 1
    writer.close()


@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_a_rewrite_that_dies_anywhere_leaves_whole_segments_and_is_finished_by_the_next(tmp_path: Path, when: str) -> None:
    for n in count(1):
        root = tmp_path / str(n)
        before = filled(root)
        disk = FailingDisk(n, when)
        try:
            rewrite(root, seventh, disk)
        except Killed:
            between = list(read_segments(root))
            assert [r.sequence for r in between] == [r.sequence for r in before]
            assert all(b.payload in (r.payload, seventh(r)) for b, r in zip(between, before, strict=True))
            rewrite(root, seventh)
            assert [r.payload for r in read_segments(root)] == [seventh(r) for r in before]
            assert not list(root.glob("*.draft"))
        else:
            assert n > 4, "every operation was made to fail"
            break


@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_retention_deletes_whole_old_segments_only_and_the_sequence_goes_on(tmp_path: Path, when: str) -> None:
    for n in count(1):
        root = tmp_path / str(n)
        before = filled(root)
        disk = FailingDisk(n, when)
        try:
            expire(root, 40, at, nothing, disk)
        except Killed:
            kept = [r.sequence for r in read_segments(root)]
            assert kept == list(range(kept[0], RECORDS + 1)), "only from the old end, only whole segments"
            expire(root, 40, at, nothing)
        left = list(read_segments(root))
        assert left[0].sequence == 37, "a segment that holds one younger record stays whole"
        assert [r.payload for r in left] == [r.payload for r in before if r.sequence >= left[0].sequence]
        if disk.operations < n:
            break
    assert n > 2, "two segments at least were old enough"


@pytest.mark.parametrize("when", ["before", "after", "torn"])
def test_where_all_is_too_old_one_empty_record_keeps_the_sequence(tmp_path: Path, when: str) -> None:
    for n in count(1):
        root = tmp_path / str(n)
        filled(root)
        disk = FailingDisk(n, when)
        try:
            expire(root, 10_000, at, nothing, disk)
        except Killed:
            expire(root, 10_000, at, nothing)
        assert [(r.sequence, r.payload) for r in read_segments(root)] == [(RECORDS, b"")]
        assert expire(root, 10_000, at, nothing).segments == 0
        writer = SegmentWriter(root)
        assert writer.append("labels", b"next") == RECORDS + 1
        writer.close()
        if disk.operations < n:
            break


def test_a_damaged_segment_is_named_and_left_alone(tmp_path: Path) -> None:
    filled(tmp_path)
    path = sorted(tmp_path.glob("*.seg"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    assert rewrite(tmp_path, nothing).damaged == (path.name,)
    assert path.read_bytes() == bytes(data)


def test_a_writer_at_work_is_seen_and_gone_when_it_is_closed(tmp_path: Path) -> None:
    assert not being_written(tmp_path)
    writer = SegmentWriter(tmp_path)
    assert being_written(tmp_path)
    writer.close()
    assert not being_written(tmp_path)
