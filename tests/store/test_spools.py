"""Spools are read once each while they are written, over rotations, restarts and the death of their writers."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from loudly.store import spools as module
from loudly.store.segments import OPEN, SegmentWriter, read_segments
from loudly.store.spools import Spools, taken_of


def test_what_is_appended_through_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "a", through=True)
    for i in range(50):
        sequence = writer.append("predictions", b"%d" % i)
        assert [r.sequence for r in read_segments(tmp_path / "a")][-1] == sequence == i + 1
    writer.close()


def test_two_writers_are_read_while_they_write_and_rotate(tmp_path: Path) -> None:
    reader = Spools(tmp_path)
    assert reader.read() == []
    writers = {name: SegmentWriter(tmp_path / name, through=True, rotate=400) for name in "ab"}

    def write(name: str) -> None:
        for i in range(300):
            writers[name].append("predictions", f"{name}{i}".encode())

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    found = []
    while any(thread.is_alive() for thread in threads):
        found += reader.read()
        reader.drop()
    for thread in threads:
        thread.join()
    found += reader.read()
    for name in "ab":
        mine = [r for r in found if r.origin.startswith(f"{name}:")]
        assert [r.payload for r in mine] == [f"{name}{i}".encode() for i in range(300)]
        assert [r.origin for r in mine] == [f"{name}:{i + 1}" for i in range(300)]
    reader.drop()
    assert sum(len(list((tmp_path / name).glob("*.seg"))) for name in "ab") == 0, "what is read and sealed is gone"
    for writer in writers.values():
        writer.close()


def test_a_reader_that_comes_back_goes_on_after_what_is_in_the_log(tmp_path: Path) -> None:
    writer, log = SegmentWriter(tmp_path / "spools" / "a", through=True), SegmentWriter(tmp_path / "log")
    for i in range(10):
        writer.append("labels" if i % 3 == 2 else "predictions", b"%d" % i)
    taken: dict[str, int] = {}
    first = Spools(tmp_path / "spools").read()
    assert len(first) == 10
    for record in [r for r in first if r.kind == "predictions"][:4]:  # a crash: the labels before them are not in the log yet
        log.append(record.kind, record.payload, record.origin)
    log.flush()
    for record in read_segments(tmp_path / "log"):
        assert record.kind == "predictions"
        taken_of(record, taken)
    rest = [r.payload for r in Spools(tmp_path / "spools", taken).read()]
    assert rest == [b"2", b"5", b"6", b"7", b"8", b"9"]
    writer.close()
    log.close()


def test_the_spool_of_a_dead_writer_is_read_to_its_last_whole_record_and_then_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_LOOKS", 2)
    writer = SegmentWriter(tmp_path / "a", through=True)
    for i in range(3):
        writer.append("predictions", b"%d" % i)
    writer._closed.set()  # as a kill leaves it: no seal, no unlink, and its lock is gone
    writer._thread.join()
    writer._present.close()
    (path,) = (tmp_path / "a").glob(f"*{OPEN}")
    path.write_bytes(path.read_bytes() + b"torn")
    reader = Spools(tmp_path)
    assert [r.payload for r in reader.read()] == [b"0", b"1", b"2"]
    for _ in range(3):
        assert reader.read() == []
        reader.drop()
    assert not (tmp_path / "a").exists()
    writer._file.close()


def test_a_damaged_file_of_a_spool_is_named_and_kept_and_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GONE_LOOKS", 2)
    writer = SegmentWriter(tmp_path / "a", through=True)
    for i in range(6):
        writer.append("predictions", b"%d" % i * 50)
        if i == 2:
            sealed = writer.seal()
    writer.close()
    assert sealed is not None
    data = sealed.read_bytes()
    sealed.write_bytes(data[:100] + b"!" + data[101:])
    reader = Spools(tmp_path)
    assert [r.sequence for r in reader.read()] == [1, 4, 5, 6]
    assert reader.damaged == [f"a/{sealed.name}: offset {len(data) // 3} of {len(data)} bytes"]
    for _ in range(3):
        reader.drop()
        assert reader.read() == []
    assert [path.name for path in (tmp_path / "a").glob("*.seg")] == [sealed.name]


def test_a_spool_that_nobody_reads_is_bounded_and_counts_what_it_loses(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "a", through=True, rotate=1000, most=5000)
    writer._sealed = 0
    payload = bytes(500)
    waited = threading.Event()
    for _ in range(2000):
        writer.append("predictions", payload)
        if writer.lost:
            break
        waited.wait(0.005)
    assert writer.lost
    kept = list(read_segments(tmp_path / "a"))
    assert len(kept) >= 9
    reader = Spools(tmp_path)
    assert len(reader.read()) == len(kept)
    reader.drop()
    for _ in range(2000):
        if writer.append("predictions", payload):
            break
        waited.wait(0.005)
    else:
        raise AssertionError("what is read makes room again")
    writer.close()
    assert math.isinf(SegmentWriter(tmp_path / "b")._most)
