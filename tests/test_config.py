from __future__ import annotations

from pathlib import Path

import pytest

from loudly.config import Config, read_config, secret
from loudly.errors import ConfigError


def test_without_a_file_everything_is_embedded(tmp_path: Path) -> None:
    assert read_config(tmp_path) == Config(tmp_path)
    assert read_config(tmp_path).root == tmp_path / ".loudly"


def test_values_are_read_and_secrets_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loudly.toml").write_text(
        '[store]\nledger="postgres"\nurl="env:DB"\n[server]\nport=9000\ntick=1\n[notify]\nkinds=["file"]\n'
    )
    monkeypatch.setenv("DB", "host=db")
    config = read_config(tmp_path)
    assert (config.store.ledger, secret(config.store.url), config.server.port) == ("postgres", "host=db", 9000)
    assert config.server.tick == 1.0
    assert config.notify.kinds == ("file",)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[stor]\n", "did you mean 'store'"),
        ("[server]\nprt=1\n", "did you mean 'port'"),
        ('[server]\nport="8000"\n', "wants a whole number"),
        ("[server]\nport=true\n", "wants a whole number"),
        ("[server]\nbatch=0\n", "at least one row"),
        ("[server]\nport=70000\n", "a port"),
        ('[server]\nlate="never"\n', "refuse"),
        ("[server]\ndeadline=-1\n", "above 0"),
        ("[server]\nkeys=[3]\n", "a list of texts"),
        ("[store]\nrows_in_memory=-1\n", "a number of rows"),
        ("[executor]\nworkers=0\n", "at least one process"),
        ('[store]\nretention="90"\n', "a duration"),
        ('[server]\nkeys="predict=env:KEY"\n', "a list of texts"),
        ("[store]\nroot=3\n", "wants a text"),
        ("[server]\ndrain=inf\n", "wants a finite number"),
        ("[server]\ndeadline=nan\n", "wants a finite number"),
        ("[server\n", "no TOML"),
        ("store=3\n", "a section"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, hint: str) -> None:
    (tmp_path / "loudly.toml").write_text(text)
    with pytest.raises(ConfigError, match=hint):
        read_config(tmp_path)


def test_a_file_of_bytes_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "loudly.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no TOML"):
        read_config(tmp_path)
