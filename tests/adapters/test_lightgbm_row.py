"""Which file is LightGBM's C library: the one that this platform loads, and a clear error where it is not there."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("lightgbm")

from loudly.adapters.lightgbm_row import SUFFIXES, load_library
from loudly.errors import ModelError


def lay(folder: Path, *names: str) -> list[str]:
    """Files of these names that no platform can load."""
    for name in names:
        (folder / name).write_text("for a linker")
    return [str(folder)]


def installed() -> Path:
    spec = find_spec("lightgbm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    name = f"lib_lightgbm{SUFFIXES.get(sys.platform, '.so')}"
    return next(path for folder in spec.submodule_search_locations for path in Path(folder).rglob(name))


def test_what_linkers_read_beside_the_library_is_passed_over(tmp_path: Path) -> None:
    folders = lay(tmp_path, "lib_lightgbm.a", "lib_lightgbm.lib", "lib_lightgbm.exp", "lib_lightgbm.so.debug")
    (tmp_path / "bin").mkdir()
    shutil.copy(installed(), tmp_path / "bin")
    assert load_library(folders).LGBM_GetLastError is not None


@pytest.mark.parametrize(("platform", "name"), [("linux", ".so"), ("darwin", ".dylib"), ("win32", ".dll"), ("freebsd14", ".so")])
def test_where_there_is_none_the_error_says_which_was_looked_for_and_where(platform: str, name: str, tmp_path: Path) -> None:
    others = {".so", ".dylib", ".dll", ".lib", ".a"} - {name}
    folders = lay(tmp_path, *(f"lib_lightgbm{other}" for other in others))
    with pytest.raises(ModelError, match=rf"(?s)no lib_lightgbm\{name} in .*{tmp_path.name}.*pip install"):
        load_library(folders, platform)
    with pytest.raises(ModelError, match="no folder"):
        load_library((), platform)


def test_a_file_that_cannot_be_loaded_is_told_with_what_to_do(tmp_path: Path) -> None:
    folders = lay(tmp_path, "lib_lightgbm.so")
    with pytest.raises(ModelError, match=r"(?s)cannot be loaded.*pip install"):
        load_library(folders, "linux")
