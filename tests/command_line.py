"""A project as `loudly init` makes it, and the command line in it: in this process, or in one of its own where that is tested."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from loudly.cli.main import main

LOUDLY = str(Path(sys.executable).with_name("loudly"))
ROW = {"asked_at": "2026-01-01T00:00:00", "income": 30000.0, "debt": 9000.0, "region": "west", "purpose": "car"}
Said = subprocess.CompletedProcess[str]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Project:
    """A folder and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str) -> Said:
        """A command in this process: what it costs is its work and not its imports."""
        out, err, before = io.StringIO(), io.StringIO(), (sys.argv, sys.dont_write_bytecode)
        sys.argv = ["loudly", *words]
        sys.dont_write_bytecode = True  # files are edited faster here than their bytecode's clock ticks
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.argv, sys.dont_write_bytecode = before
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def alone(self, *words: str) -> Said:
        """A command in a process of its own."""
        return subprocess.run([LOUDLY, *words], cwd=self.folder, capture_output=True, text=True, check=False)

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def copy(self, folder: Path) -> Project:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Project(folder)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        said = path.read_text()
        assert old in said
        path.write_text(said.replace(old, new))

    def serve(self, port: int, err: Any = subprocess.DEVNULL, limit: int | None = None) -> subprocess.Popen[bytes]:
        """The real server, ready. limit: no file may grow beyond so many bytes."""

        def bound() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        words = [LOUDLY, "serve", "--port", str(port)]
        process = subprocess.Popen(words, cwd=self.folder, stderr=err, preexec_fn=bound if limit else None)
        for _ in range(1200):
            with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready"):
                return process
            time.sleep(0.05)
        process.kill()
        process.wait()
        raise AssertionError("the server did not come up")


def shipped_project(folder: Path) -> Project:
    """A new project whose first version is champion."""
    made = Project(folder)
    for words in (["init", "."], ["train"], ["ship"]):
        done = made.run(*words)
        assert done.returncode == 0, done.stderr
    return made
