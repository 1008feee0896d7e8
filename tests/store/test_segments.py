from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loudly.errors import Conflict, SegmentUnreadable
from loudly.store.segments import Record, SegmentWriter, read_segments
from loudly.store.spools import Spools
from waiting import until


def test_records_come_back_in_order_over_rotated_segments(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, rotate=2_000)
    for i in range(300):
        assert writer.append("predictions" if i % 2 else "labels", bytes([i % 256]) * 50) == i + 1
        if i % 20 == 0:
            writer.flush()
    writer.close()
    assert len(list(tmp_path.glob("*.seg"))) > 2
    read = list(read_segments(tmp_path))
    assert [r.sequence for r in read] == list(range(1, 301))
    assert read[0].kind == "labels"
    assert [r.sequence for r in read_segments(tmp_path, after=290)] == list(range(291, 301))


def test_acknowledged_records_survive_kill_minus_nine(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom loudly.store.segments import SegmentWriter\nw=SegmentWriter(sys.argv[1])\n"
        "for i in range(5000):\n    w.append('p', b'x'*100)\nw.flush(); print('flushed', flush=True)\n"
        "for i in range(1000):\n    w.append('p', b'y'*100)\nprint('more', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "flushed"
    assert process.stdout.readline().strip() == "more"
    time.sleep(0.5)  # many times the stated bound of 5 ms
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    writer = SegmentWriter(tmp_path)
    assert writer.recovery.records == 6000
    assert writer.append("p", b"next") == 6001
    writer.close()
    assert len(list(read_segments(tmp_path))) == 6001


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400))
def test_a_torn_tail_is_cut_and_reported(tmp_path_factory: pytest.TempPathFactory, torn: int) -> None:
    root = tmp_path_factory.mktemp("torn")
    writer = SegmentWriter(root)
    for i in range(20):
        writer.append("p", bytes([i]) * 30)
    writer.flush()
    (open_file,) = root.glob("*.open")
    data = open_file.read_bytes()
    writer.close()
    for sealed in root.glob("*.seg"):
        sealed.unlink()
    keep = max(1, len(data) - torn)
    open_file.write_bytes(data[:keep])
    again = SegmentWriter(root)
    whole = keep // (len(data) // 20)
    assert again.recovery.records == whole
    assert again.recovery.bytes_lost == keep - whole * (len(data) // 20)
    again.close()
    assert [r.payload[0] for r in read_segments(root)] == list(range(whole))


def test_a_damaged_sealed_segment_names_file_and_offset(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    for _ in range(10):
        writer.append("p", b"z" * 100)
    writer.close()
    (sealed,) = tmp_path.glob("*.seg")
    data = bytearray(sealed.read_bytes())
    data[len(data) // 2] ^= 1
    sealed.write_bytes(bytes(data))
    found = []
    with pytest.raises(SegmentUnreadable, match=r"offset [\d,]+ of"):
        found.extend(read_segments(tmp_path))


def test_a_disk_that_refuses_keeps_the_server_going_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path)
    writer.append("p", b"before")
    writer.flush()
    monkeypatch.setattr("loudly.store.segments.BUFFER_BYTES", 1_000)
    monkeypatch.setattr(writer, "_put", lambda data: False)
    for _ in range(100):
        writer.append("p", b"x" * 100)
    assert 0 < writer.lost < 100
    kept = 100 - writer.lost
    monkeypatch.undo()
    writer.close()
    assert len(list(read_segments(tmp_path))) == 1 + kept


@pytest.mark.parametrize("room", [0, 1, 40, 4_000, 39_999])
def test_a_file_that_may_not_grow_takes_whole_batches_or_nothing(tmp_path: Path, room: int) -> None:
    """A process of its own under a real limit on file size: what is read back is whole, and the rest still waits in memory."""
    script = (
        "import resource, signal, sys\nfrom loudly.store.segments import Record, SegmentWriter, read_segments\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nw = SegmentWriter(sys.argv[1])\n"
        "w.append('p', b'first' * 100); w.flush()\nbefore = w._file.tell()\n"
        "soft = (before + int(sys.argv[2]), resource.RLIM_INFINITY)\nresource.setrlimit(resource.RLIMIT_FSIZE, soft)\n"
        "[w.append('p', bytes([i % 256]) * 1000) for i in range(40)]\nw.flush()\nassert w.refused, 'it was not refused'\n"
        "whole = len(list(read_segments(sys.argv[1])))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\nw.flush()\nassert not w.refused\n"
        "print(whole, len(list(read_segments(sys.argv[1]))), w.lost)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(room)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout.split()[0]) < 41
    assert done.stdout.split()[1:] == ["41", "0"]


def test_what_raises_before_a_write_is_told_once_and_the_log_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer, mended, tries = SegmentWriter(tmp_path), threading.Event(), iter(range(1000))

    def before(whole: bool) -> None:
        if not whole and next(tries) < 3:
            raise ValueError("a row that cannot be written")
        if not whole and "again" in caplog.text:
            mended.set()

    writer.before = before
    assert mended.wait(20)
    writer.append("p", b"after")
    while not list(read_segments(tmp_path)):
        time.sleep(0.001)
    writer.close()
    assert [record.payload for record in read_segments(tmp_path)] == [b"after"]
    assert caplog.text.count("LOUD what was kept back") == 1
    assert "appended again, after 3 attempts that failed" in caplog.text


def test_a_log_is_read_on_from_a_record_while_it_is_written_and_its_segments_change_names(tmp_path: Path) -> None:
    """One that is open when the names are read may be sealed when it is opened, or be another's by then."""
    writer, read, ended = SegmentWriter(tmp_path, rotate=100), list[int](), threading.Event()

    def write() -> None:
        for number in range(400):
            writer.append("p", b"%d" % number)
            writer.flush()
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not (done := ended.is_set()) or len(read) < 400:
        read += [record.sequence for record in read_segments(tmp_path, read[-1] if read else 0)]
        assert not done or len(read) == 400
    thread.join()
    writer.close()
    assert read == list(range(1, 401))


def test_a_log_has_one_writer_and_a_second_leaves_it_as_it_is(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path)
    writer.append("predictions", b"one")
    writer.flush()
    with pytest.raises(Conflict, match="Another process writes this log"):
        SegmentWriter(tmp_path)
    writer.append("predictions", b"two")
    writer.close()
    assert [r.payload for r in read_segments(tmp_path)] == [b"one", b"two"]
    SegmentWriter(tmp_path).close()


def test_a_record_that_comes_while_a_segment_is_sealed_is_not_replaced_by_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits when the next segment is begun, so that is named by it; and whoever reads along misses none."""
    writer, spools, begin = SegmentWriter(tmp_path / "a"), Spools(tmp_path), SegmentWriter._begin

    def begin_late(self: SegmentWriter) -> FileIO:
        self.append("p", b"meanwhile")
        return begin(self)

    writer.append("p", b"first")
    with monkeypatch.context() as patched:
        patched.setattr(SegmentWriter, "_begin", begin_late)
        writer.seal()
    writer.seal()
    read = spools.read()
    writer.append("p", b"last")
    writer.seal()
    read += spools.read()
    writer.close()
    for found in (list(read_segments(tmp_path / "a")), read):
        assert [record.payload for record in found] == [b"first", b"meanwhile", b"last"]


@pytest.mark.parametrize("refusing", ["_begin", "replace"])
def test_where_no_segment_can_be_sealed_the_log_goes_on_in_this_one_and_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusing: str
) -> None:
    """As where connections have taken all the files that a process may open."""
    writer = SegmentWriter(tmp_path, rotate=100)

    def refuse(*_: object) -> FileIO:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(*(SegmentWriter, refusing) if refusing == "_begin" else ("loudly.store.segments.os.replace",), refuse)
        for number in range(20):
            writer.append("p", b"%d" % number * 10)
            writer.flush()
        with pytest.raises(OSError, match="Too many open files"):
            writer.seal()
    assert caplog.text.count("cannot be sealed and grows on: OSError: [Errno 24] Too many open files") == 1
    until(lambda: len(list(tmp_path.glob("*.seg"))) == 1, "the thread seals it once there is room")
    writer.append("p", b"last")
    writer.close()
    assert [record.sequence for record in read_segments(tmp_path)] == list(range(1, 22))


def test_a_segment_is_read_and_deleted_although_the_next_one_was_seen_before_it_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, spools, begin = SegmentWriter(tmp_path / "a", through=True), Spools(tmp_path), SegmentWriter._begin
    read: list[Record] = []

    def begin_and_look(self: SegmentWriter) -> FileIO:
        made = begin(self)
        read.extend(spools.read())
        return made

    writer.append("p", b"one")
    with monkeypatch.context() as patched:
        patched.setattr(SegmentWriter, "_begin", begin_and_look)
        writer.seal()
    writer.append("p", b"two")
    read += spools.read()
    spools.drop()
    assert [record.payload for record in read] == [b"one", b"two"]
    assert not list((tmp_path / "a").glob("*.seg"))
    writer.close()


@pytest.mark.parametrize("at", [0, 120])
def test_what_is_logged_behind_a_damaged_segment_neither_replaces_it_nor_takes_its_numbers(tmp_path: Path, at: int) -> None:
    for number in range(2):
        writer = SegmentWriter(tmp_path)
        for _ in range(5):
            writer.append("p", b"%d" % number * 50)
        writer.close()
    newest = max(tmp_path.glob("*.seg"))
    sound = newest.read_bytes()
    newest.write_bytes(sound[:at] + b"!!!!!!!!" + sound[at + 8 :])
    for _ in range(2):
        writer = SegmentWriter(tmp_path)
        writer.append("p", b"later")
        writer.close()
        with pytest.raises(SegmentUnreadable, match=newest.name):
            list(read_segments(tmp_path))
    newest.write_bytes(sound)  # out of a backup, as the error asks
    assert [r.payload for r in read_segments(tmp_path, after=5)] == [b"1" * 50] * 5 + [b"later"] * 2
    assert len({r.sequence for r in read_segments(tmp_path)}) == 12


def test_where_nothing_comes_the_thread_of_the_log_sleeps_and_what_comes_then_is_written(tmp_path: Path) -> None:
    writer, asked = SegmentWriter(tmp_path), list[bool]()
    writer.before = asked.append
    for number in range(1, 6):
        until(lambda: writer._asleep, "its sleep")
        seen = len(asked)
        time.sleep(0.05)  # twenty of its rounds
        assert len(asked) == seen, "the thread was at work, and nothing had come"
        writer.append("p", b"%d" % number)
        until(lambda: len(list(read_segments(tmp_path))) == number, "the record")  # noqa: B023 - asked at once
    until(lambda: writer._asleep, "its sleep")
    seen = len(asked)
    writer.stir()
    until(lambda: len(asked) > seen, "a round")
    until(lambda: writer._asleep, "its sleep")
    writer.close()  # wakes it, and ends


def test_records_that_come_at_any_moment_of_falling_asleep_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loudly.store.segments.QUIET_ROUNDS", 1)
    writer = SegmentWriter(tmp_path)
    for number in range(200):
        time.sleep(number % 40 * 0.0002)
        writer.append("p", b"x")
        if number % 10 == 9:
            until(lambda: not writer._buffer, "its writing")
    writer.close()
    assert len(list(read_segments(tmp_path))) == 200


def test_a_full_log_takes_records_again_although_its_thread_sleeps_when_segments_are_taken_away(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, rotate=100, most=1000)
    for _ in range(40):
        writer.append("p", b"x" * 100)
        writer.flush()
    until(lambda: not writer.append("p", b"x"), "a full log")
    until(lambda: writer._asleep, "its sleep")
    for sealed in tmp_path.glob("*.seg"):
        sealed.unlink()
    until(lambda: writer.append("p", b"again"), "room")
    writer.close()
