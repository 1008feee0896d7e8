"""One thread for a call, also where the library that would take more came later."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import pytest
from threadpoolctl import ThreadpoolController

from loudly.shift import fold as folding
from loudly.shift.bins import FEW
from loudly.shift.reference import Reference
from loudly.stats.threads import OneThread, together

SCRIPT = """
import json
from loudly.stats.threads import OneThread
alone = OneThread(later=True)
import scipy.linalg, sklearn.ensemble
from threadpoolctl import threadpool_info
def counts():
    return [pool["num_threads"] for pool in threadpool_info()]
before = counts()
with alone.held():
    inside = counts()
print(json.dumps([before, inside, counts()]))
"""


def test_a_library_that_was_imported_since_is_held_to_one_thread_too() -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=env)
    before, inside, after = json.loads(done.stdout)
    assert len(before) > 1
    assert max(before) > 1
    assert set(inside) == {1}
    assert after == before


LOOKING = """
import threading
from threadpoolctl import ThreadpoolController
over = threading.Event()
def look():
    while not over.is_set():
        ThreadpoolController()
lookers = [threading.Thread(target=look) for _ in range(2)]
for looker in lookers:
    looker.start()
import scipy.stats, scipy.optimize, scipy.signal, sklearn.ensemble, sklearn.cluster, pyarrow.parquet
over.set()
for looker in lookers:
    looker.join()
"""


def test_pools_are_looked_for_while_another_thread_imports() -> None:
    """The wheel imports at its first judgement what a server looks through: two locks of the dynamic loader and Python's met."""
    subprocess.run([sys.executable, "-c", LOOKING], check=True, timeout=300)


@contextmanager
def inside(work: Callable[[Callable[[], None]], object]) -> Iterator[Callable[[], None]]:
    """Work on a thread that is under way; what is yielded lets it end, and waits for that. work: is told what to call meanwhile."""
    begun, end = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert end.wait(60)

    def leave() -> None:
        end.set()
        thread.join()

    thread = threading.Thread(target=work, args=(wait,))
    thread.start()
    assert begun.wait(60)
    try:
        yield leave
    finally:
        leave()


def of_a_model(wait: Callable[[], None]) -> None:
    with OneThread().held():
        wait()


@pytest.mark.parametrize("first_out", [0, 1, 2])
def test_calls_that_overlap_on_threads_leave_blas_as_it_was(first_out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call of a model and two profiles, whoever ends first: one thread until the last is out, and then as many as before."""
    blas, columns = ThreadpoolController().select(user_api="blas"), folding._columns
    reference = Reference.fit({"x": np.arange(100.0)})
    table = pl.DataFrame({"x": np.arange(float(FEW))})
    waits: dict[int, Callable[[], None]] = {}

    def waiting(*given: Any) -> None:
        waits[threading.get_ident()]()
        columns(*given)

    def of_a_profile(wait: Callable[[], None]) -> None:
        waits[threading.get_ident()] = wait
        reference.profile(table)

    def counts() -> set[int]:
        return {pool.get_num_threads() for pool in blas.lib_controllers}

    monkeypatch.setattr(folding, "_columns", waiting)
    with blas.limit(limits=2), inside(of_a_model) as a, inside(of_a_profile) as b, inside(of_a_profile) as c:
        leave = [a, b, c]
        leave.pop(first_out)()
        assert counts() == {1}
        leave.pop()()
        assert counts() == {1}
        leave.pop()()
        assert counts() == {2}


def test_works_are_done_side_by_side_and_told_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loudly.stats.threads._cores", lambda: 2)
    meet = threading.Barrier(2, timeout=60)

    def work(i: int) -> int:
        meet.wait()
        return i

    assert together([lambda: work(0), lambda: work(1)]) == [0, 1]
    monkeypatch.setattr("loudly.stats.threads._cores", lambda: 1)
    assert together([threading.get_ident, threading.get_ident]) == [threading.get_ident()] * 2


@pytest.mark.parametrize("fails", [0, 1])
def test_what_a_work_raises_comes_once_all_have_ended(fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loudly.stats.threads._cores", lambda: 2)
    told, done = threading.Event(), []

    def breaks() -> None:
        told.set()
        raise ValueError("broken")

    def goes_on() -> None:
        assert told.wait(60)
        done.append(True)

    with pytest.raises(ValueError, match="broken"):
        together([breaks, goes_on] if fails == 0 else [goes_on, breaks])
    assert done
