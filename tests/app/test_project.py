"""A user's file that cannot be loaded, and stores that are not what the file says, are told in a line of the user's own."""

from __future__ import annotations

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from loudly.app.address import expect_free
from loudly.app.app import App
from loudly.app.project import load_app, load_apps, make_project
from loudly.app.server import warn_of_strangers
from loudly.app.verbs import open_stores, private_key, table_of, using_stores
from loudly.config import Config
from loudly.core.values import Decision, Verdict
from loudly.errors import ConfigError, UserFileError

OPEN = SimpleNamespace(name="loans", folder=None)
ALARM = Verdict(Decision.FAIL, "temp", "the feed is off")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (\n", r"SyntaxError: '\(' was never closed \(app.py, line 1\)"),
        ("import loudly\nimport numpyy\n", r"No module named 'numpyy' \(app.py, line 2\)"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", r"ZeroDivisionError: division by zero \(app.py, line 2\)"),
        ("import sys\nsys.exit(3)\n", r"SystemExit: 3 \(app.py, line 2\)"),
        (
            "import loudly\na = loudly.App('a', label='l', time='t', key='k', metric='mae')\na.labels(arive_within='7d')\n",
            r"unexpected keyword argument 'arive_within'.* \(app.py, line 3\)",
        ),
        ("", "0 of them"),
    ],
)
def test_a_broken_file_is_told_by_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "app.py").write_text(text)
    with pytest.raises(UserFileError, match=told):
        load_app(tmp_path / "app.py")


def test_the_line_is_told_where_the_file_is_named_as_one_types_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").write_text("\n\nnowhere\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserFileError, match=r"NameError: .* \(app.py, line 3\)"):
        load_app(Path("app.py"))


def test_what_is_no_python_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "loans.csv").write_text("a,b\n")
    (tmp_path / "app.py").write_bytes(b"\xff\xfe\x00")
    for path, told in (
        (tmp_path / "loans.csv", "no Python file"),
        (tmp_path, "no Python file"),
        (tmp_path / "app.py", "cannot be"),
    ):
        with pytest.raises(UserFileError, match=told):
            load_app(path)
    with pytest.raises(UserFileError, match="needs a folder"):
        make_project(tmp_path / "loans.csv")


def test_a_data_function_that_fails_is_told_by_its_line(tmp_path: Path) -> None:
    app = App("a", label="l", time="t", key="k", metric="mae")

    @app.data
    def rows() -> object:
        raise ValueError("the database is down")

    @app.train
    def fit(X: object, y: object) -> object:
        return None

    with pytest.raises(UserFileError, match=r"the database is down \(test_project.py, line \d+\)"):
        table_of(app.system)


def test_alarms_go_where_the_file_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loudly.toml").write_text(
        '[notify]\nkinds = ["file", "webhook"]\nfile = "told/here.jsonl"\nwebhook = "http://127.0.0.1:9/"\n'
    )
    (tmp_path / "told").mkdir()
    stores, _ = open_stores("a", tmp_path)
    for door in stores.notify:
        door(ALARM)
    stores.close()
    assert json.loads((tmp_path / "told" / "here.jsonl").read_text())["reason"] == ALARM.reason
    assert "alarm webhook" in capsys.readouterr().err, "it was asked, and nobody is there"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[notify]\nkinds = ["webhook"]\n', "wants an address"),
        ('[notify]\nkinds = ["webhook"]\nwebhook = "env:NOWHERE_SET"\n', "Set NOWHERE_SET"),
        ('[store]\nledger = "postgres"\nurl = "env:NOWHERE_SET"\n', "Set NOWHERE_SET"),
        ('[store]\nkey = "env:NOWHERE_SET"\n', "Set NOWHERE_SET"),
    ],
)
def test_a_variable_that_is_named_and_not_set_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "loudly.toml").write_text(text)
    with pytest.raises(ConfigError, match=told), using_stores("a", tmp_path) as (_, config):
        private_key(config)


def test_the_key_is_a_file_where_no_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOUDLY_KEY", raising=False)
    stores, config = open_stores("a", tmp_path)
    key, path = private_key(config), config.root / "key"
    assert private_key(config) == key
    assert (len(key), path.stat().st_mode & 0o077, [p.name for p in config.root.glob("key*")]) == (64, 0, ["key"])
    path.write_text("")
    with pytest.raises(ConfigError, match="The key of pseudonyms is empty"):
        private_key(config)
    stores.close()


@pytest.mark.parametrize("links", [True, False])
def test_who_asks_for_the_first_key_at_once_gets_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    monkeypatch.delenv("LOUDLY_KEY", raising=False)
    config = Config(tmp_path)
    if links:
        with ThreadPoolExecutor(16) as many:
            assert len(set(many.map(lambda _: private_key(config), range(64)))) == 1
        return

    def refused(source: Path, target: Path) -> None:
        raise OSError(f"no links: {source} {target}")

    monkeypatch.setattr("os.link", refused)
    key = private_key(config)
    with monkeypatch.context() as late:
        late.setattr(Path, "exists", lambda path: False)  # two look before either has made one
        assert private_key(config) == key, "the first holds"
    assert (len(key), [p.name for p in config.root.glob("key*")]) == (64, ["key"])


def test_a_door_without_keys_that_others_reach_is_told_whole(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_strangers(OPEN, "0.0.0.0")  # type: ignore[arg-type]
    assert "and [server] names no keys" in " ".join(capsys.readouterr().err.split())


def test_a_taken_port_is_told_whichever_of_the_two_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as freed:
        port, free = taken.getsockname()[1], freed.getsockname()[1]
        freed.close()
        expect_free("127.0.0.1", free, 0)
        for ports, told in (((port, 0), "--port"), ((free, port), "grpc_port"), ((free, free), "grpc_port")):
            with pytest.raises(ConfigError, match=told):
                expect_free("127.0.0.1", *ports)


def test_modules_beside_the_file_are_imported_and_told_apart(tmp_path: Path) -> None:
    """As a script finds them; two folders' modules of one name would be one."""
    app = "import loudly\nfrom helping_hands import K\napp = loudly.App(f'p{K}', label='l', time='t', key='k', metric='mae')\n"
    for name, value in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "helping_hands.py").write_text(f"K = {value}")
        (folder / f"{name}.py").write_text(app)
    try:
        assert load_app(tmp_path / "one" / "one.py").name == "p1"
        with pytest.raises(UserFileError, match=r"need different names.\n.*one.helping_hands\.py and .*two.helping_hands\.py"):
            load_apps([tmp_path / "one" / "one.py", tmp_path / "two" / "two.py"])
    finally:
        sys.modules.pop("helping_hands", None)
        sys.path[:] = [place for place in sys.path if not place.startswith(str(tmp_path))]
