"""One thread for a call, also where the library that would take more came later."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SCRIPT = """
import json
from loudly.store.threads import OneThread
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
