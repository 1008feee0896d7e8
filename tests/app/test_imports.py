"""What a command need not import it does not: a status is told without MLflow, and a server is ready sooner."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loudly.app.verbs import formats
from loudly.errors import ExtraMissing
from loudly.plugins import names
from loudly.register.lazy_format import LazyFormat

HEAVY = ("mlflow", "lightgbm", "xgboost", "torch", "onnxruntime", "ray", "optuna")
SCRIPT = f"""
import json, sys
from loudly.app.verbs import status, using_stores
with using_stores("idle", None) as opened:
    status(opened)
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
"""


def test_opening_the_stores_imports_no_library_of_a_format(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) <= {"optuna"}


def test_every_format_of_the_table_is_there_by_name_in_its_order() -> None:
    assert [form.name for form in formats()] == list(names("format"))


def test_a_format_that_is_not_installed_takes_nothing_and_says_what_to_install() -> None:
    def missing() -> object:
        raise ExtraMissing("the format", "some-extra", "a library")

    form = LazyFormat("absent", missing)  # type: ignore[arg-type]
    assert not form.accepts(object())
    with pytest.raises(ExtraMissing, match="some-extra"):
        form.load(b"")
