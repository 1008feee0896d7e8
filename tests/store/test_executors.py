"""Worker processes: they stay, they end with whoever has them, and they say nothing when they are not asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from loudly.errors import ExecutorError
from loudly.store.executors import Here, Processes
from waiting import until

ROOT = Path(__file__).parents[2]
WHOLE = """
import os, sys, time
from loudly.store.executors import Processes
workers = Processes(2)
print(*workers.map(lambda item: time.sleep(0.1) or os.getpid(), range(2)), flush=True)
{}
"""


@pytest.fixture(scope="module")
def workers() -> Iterator[Processes]:
    made = Processes(2)
    yield made
    made.close()


def pid(item: Any) -> int:
    time.sleep(0.1)
    return os.getpid()


def alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def script(end: str, **how: Any) -> subprocess.Popen[str]:
    """A process of its own with two workers, which is itself no module that anybody could import."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-W", "error", "-c", WHOLE.format(end)]
    return subprocess.Popen(command, text=True, env=environment, **pipes, **how)


def test_workers_stay_from_one_map_to_the_next(workers: Processes) -> None:
    first = {number for _ in range(3) for number in workers.map(pid, range(2))}
    assert len(first) == 2
    assert os.getpid() not in first


def test_each_gives_items_with_their_results_as_they_are_done(workers: Processes) -> None:
    def slow(item: float) -> float:
        time.sleep(item)
        return -item

    assert list(workers.each(slow, [0.4, 0.0, 0.1])) == [(0.0, -0.0), (0.1, -0.1), (0.4, -0.4)]
    with pytest.raises(TypeError):
        list(workers.each(slow, ["a"]))


def test_what_has_not_begun_when_an_item_fails_never_does(workers: Processes, tmp_path: Path) -> None:
    def work(item: int) -> None:
        if item == 0:
            raise ValueError("the first")
        time.sleep(0.1)
        (tmp_path / str(item)).touch()

    with pytest.raises(ValueError, match="the first"):
        workers.map(work, range(40))
    workers.map(pid, range(2))
    assert len(list(tmp_path.iterdir())) < 12


def test_a_worker_that_was_killed_with_nothing_to_do_is_replaced(workers: Processes) -> None:
    (one, *_) = workers.map(pid, range(2))
    os.kill(one, signal.SIGKILL)
    until(lambda: not alive(one), "the end of a worker")
    time.sleep(0.2)
    assert one not in workers.map(pid, range(2))


def test_a_worker_that_the_system_kills_is_told_with_how_it_ended(workers: Processes) -> None:
    with pytest.raises(ExecutorError, match=r"ended in the middle of its work(.|\n)*SIGKILL(.|\n)*memory"):
        workers.map(lambda item: os.kill(os.getpid(), signal.SIGKILL), [0])


def test_workers_that_are_given_back_leave_their_work(workers: Processes) -> None:
    """A server that stops in the middle of a fit does not wait for it."""
    workers.map(pid, range(2))
    Timer(0.2, workers.close).start()
    with pytest.raises(ExecutorError, match="given back"):
        workers.map(time.sleep, [60, 60])
    assert len(workers.map(pid, range(2))) == 2


def test_threads_of_libraries_are_shared_among_workers(workers: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    other = Processes(2)
    names = ["OMP_NUM_THREADS", "POLARS_MAX_THREADS", "MKL_NUM_THREADS"]
    each = str(max(1, (os.cpu_count() or 1) // 2))
    assert other.map(lambda name: os.environ.get(name), names) == [each, each, "7"]
    assert "OMP_NUM_THREADS" not in os.environ
    other.close()


def test_here_hands_over_the_very_objects() -> None:
    thing = object()
    assert Here().map(lambda item: item, [thing])[0] is thing
    assert Here().workers == 1


def test_workers_end_with_the_process_and_nothing_is_said() -> None:
    done = script("")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, err) == (0, "")
    assert not [number for number in map(int, out.split()) if alive(number)]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="LOUD: no /proc; whether workers outlive their parent is not tested here")
def test_workers_end_when_their_parent_is_killed() -> None:
    with script("workers.map(time.sleep, [60, 60])") as running:
        assert running.stdout is not None
        numbers = [int(number) for number in running.stdout.readline().split()]
        assert len(numbers) == 2
        assert all(map(alive, numbers))
        running.kill()
        until(lambda: not any(map(alive, numbers)), "the end of the workers")
        assert running.stderr is not None
        assert running.stderr.read() == ""


@pytest.mark.newest  # joblib 1.4 does not end its workers at Ctrl-C: docs/limits.md
@pytest.mark.parametrize("other", ["Processes(2)", "workers"], ids=["while they begin", "in the middle of their work"])
def test_ctrl_c_ends_them_at_once_and_they_say_nothing(other: str) -> None:
    """Sent to all of the group, as a terminal does."""
    told = "import signal, threading\ndef nap(item):\n"
    told += "    try: time.sleep(item)\n    except KeyboardInterrupt: os.write(2, b'a worker has heard it')\n"
    told += "threading.Timer(0.1, os.killpg, (os.getpgrp(), signal.SIGINT)).start()\n"
    told += f"try: {other}.map(nap, [60, 60])\nexcept KeyboardInterrupt: print('ended')"
    running = script(told, start_new_session=True)
    out, err = running.communicate(timeout=30)
    assert err == ""
    first, ended, *more = out.splitlines()
    assert ended == "ended"
    # On a busy machine loky's own words may follow: a worker that has hardly begun finds that nobody wants it any more.
    assert not more or "LokyProcess" in "".join(more)
    assert not [number for number in map(int, first.split()) if alive(number)]
