"""A late module: nothing is imported before its first use, everything is as imported at the top from then on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from loudly.core.late import late

SLOW = """
import pathlib, time
log = pathlib.Path(__file__).with_suffix(".log")
log.write_text(log.read_text() + "x" if log.exists() else "x")
time.sleep(0.3)
value = 7
"""
ABSENT = """
import sys
sys.modules["optuna"] = None
from loudly.errors import ExtraMissing
from loudly.plugins import available, resolve
assert not available("search", "optuna")
try:
    resolve("search", "optuna")
except ExtraMissing as missing:
    print(missing)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from."""
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("slow_to_come", "broken_inside"):
        sys.modules.pop(name, None)


def test_a_module_comes_once_and_whole_however_many_threads_ask_first(folder: Path) -> None:
    (folder / "slow_to_come.py").write_text(SLOW)
    module, together = late("slow_to_come"), Barrier(8)
    assert "slow_to_come" not in sys.modules

    def ask(_: int) -> int:
        together.wait()
        return int(module.value)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [7] * 8
    assert (folder / "slow_to_come.log").read_text() == "x"


def test_a_name_that_is_not_there_is_missed_as_the_module_misses_it() -> None:
    with pytest.raises(AttributeError, match=r"colorsys.*no_such_name"):
        late("colorsys").no_such_name


def test_a_package_that_is_not_installed_is_missed_at_once_as_an_import_misses_it() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package'") as missing:
        late("no_such_package.inner")
    assert missing.value.name == "no_such_package"


def test_what_a_module_raises_when_it_is_imported_is_raised_at_each_use(folder: Path) -> None:
    (folder / "broken_inside.py").write_text("raise RuntimeError('a library of another machine')\n")
    module = late("broken_inside")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="another machine"):
            module.anything


def test_a_plugin_whose_late_library_is_absent_names_its_extra() -> None:
    done = subprocess.run([sys.executable, "-c", ABSENT], capture_output=True, text=True, check=True)
    assert "loudly[tune]" in done.stdout
