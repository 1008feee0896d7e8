"""The stock dvc accepts what we write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from loudly.data.dvc import write_pointer
from loudly.data.snapshot import extend, snapshot
from loudly.errors import DataError
from loudly.store.memory_blobs import MemoryBlobs
from loudly.validate.schema import infer_schema

DVC = Path(sys.executable).with_name("dvc")


def run(folder: Path, *command: str) -> str:
    env = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
        "DVC_SITE_CACHE_DIR": str(folder / ".site"),
    }
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_folder_without_dvc_is_named(tmp_path: Path, world: pl.DataFrame) -> None:
    schema = infer_schema(world, label="y", time="at", key="id")
    blobs = MemoryBlobs()
    with pytest.raises(DataError, match="DVC repository"):
        write_pointer(snapshot(world, blobs, "w", schema), blobs, tmp_path, "data")


@pytest.mark.parametrize("known", ["", "build/data\n", "*.log", "/data\n"])
def test_git_keeps_no_data_whatever_it_ignores_already(tmp_path: Path, world: pl.DataFrame, known: str) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".gitignore").write_text(known)
    blobs = MemoryBlobs()
    write_pointer(snapshot(world, blobs, "w", infer_schema(world, label="y", time="at", key="id")), blobs, tmp_path, "data")
    assert (tmp_path / ".gitignore").read_text().splitlines() == [
        *(line for line in known.splitlines() if line != "/data"),
        "/data",
    ]


@pytest.mark.slow
def test_status_push_and_pull_in_a_fresh_clone(tmp_path: Path, world: pl.DataFrame) -> None:
    if not DVC.exists():
        pytest.skip("LOUD: dvc is not installed; its acceptance of our pointers is not tested")
    repository = tmp_path / "repo"
    repository.mkdir()
    run(repository, "git", "init", "-q")
    run(repository, str(DVC), "init", "-q")
    run(repository, str(DVC), "remote", "add", "-d", "store", str(tmp_path / "remote"))
    schema = infer_schema(world, label="y", time="at", key="id")
    blobs = MemoryBlobs()
    first = snapshot(world[:4000], blobs, "world", schema, "at")
    pointer = write_pointer(first, blobs, repository, "data")
    assert "up to date" in run(repository, str(DVC), "status")
    second = extend(first, world[4000:], blobs, "at")
    assert second.parts[:1] == first.parts, "what is stored already is not written again"
    write_pointer(second, blobs, repository, "data")
    assert "up to date" in run(repository, str(DVC), "status")
    assert f"dataset: {second.digest}" in pointer.read_text()
    run(repository, str(DVC), "push", "-q")
    run(repository, "git", "add", ".")
    run(repository, "git", "commit", "-qm", "data")
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "-q", str(repository), str(clone))
    run(clone, str(DVC), "pull", "-q")
    assert pl.read_parquet(clone / "data" / "*.parquet").equals(world)
    assert "up to date" in run(clone, str(DVC), "status")
