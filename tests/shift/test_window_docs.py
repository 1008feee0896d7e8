"""The worked example of the documents runs and prints what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "stages" / "monitor.md"


def test_the_example_prints_what_the_document_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = re.search(r"```python\n((?:(?!```).)*)```\n\nprints\n\n```text\n(.*?)```", DOCUMENT.read_text(), re.S).groups()  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec(code, space)
    assert capsys.readouterr().out == told
    space["checkpoint"].close()  # type: ignore[attr-defined]
