"""Texts and times that no feature reads: no model sees them, and that is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from command_line import Project
from conftest import make_world
from loudly.errors import TrainingError
from loudly.features.feature_set import FeatureSet, unread
from loudly.train.fit import fit_once
from loudly.validate.schema import infer_schema


def with_texts() -> pl.DataFrame:
    table = make_world(days=30)
    return table.with_columns(words=pl.col("id") + " and more", built=pl.col("at") - pl.duration(days=900), note=pl.col("id"))


def length(words: pl.Series) -> pl.Series:
    return words.str.len_chars()


def test_texts_and_times_that_no_feature_reads_are_named() -> None:
    schema = infer_schema(with_texts(), label="y", time="at", key="id", ignored=["note"])
    assert [field.name for field in unread([], schema)] == ["words", "built"]
    assert [field.name for field in unread([length], schema)] == ["built"]


APP = """
import polars as pl
from loudly import App

app = App("words", label="late", time="asked_at", key="loan_id", metric="roc_auc")


@app.data
def loans():
    table = pl.read_csv("loans.csv", try_parse_dates=True)
    return table.with_columns(words=pl.col("loan_id").cast(pl.String) + " and more")


@app.train
def fit(X, y):
    return X.loc[:, "words"]
"""


def test_a_training_that_fails_says_what_it_was_given_and_what_no_model_sees(shipped: Project, tmp_path: Path) -> None:
    project = Project(tmp_path)
    shutil.copy(shipped.folder / "loans.csv", tmp_path)
    (tmp_path / "app.py").write_text(APP)
    done = project.run("train")
    told = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0
    assert "LOUD inputs: the model sees nothing of words (text): texts and times reach it through an @app.feature" in told
    assert "'numpy.ndarray' object has no attribute 'loc'" in told
    assert "X is a matrix of float64 of" in told
    assert "@app.train(frame='polars') makes it a table of them, frame='raw' one of the inputs as they are." in told


def test_a_train_function_that_fails_is_told_its_columns() -> None:
    def fails(X: Any, y: Any) -> None:
        raise ValueError("no column 'z'")

    names = tuple(f"x{i}" for i in range(11))
    with pytest.raises(TrainingError, match=r"table of 5 rows; its columns: x0, .*, x7 and 3 more\.") as told:
        fit_once(fails, pl.DataFrame({name: np.zeros(5) for name in names}), np.zeros(5), {}, seed=0, names=names)
    assert "no column 'z'" in str(told.value)


def test_a_feature_of_too_many_texts_is_no_column_of_codes() -> None:
    """Two thousand texts were as many codes in the order of the alphabet, and each new one was missing."""

    def letters(words: pl.Series) -> pl.Series:
        return words.str.to_uppercase()

    def first(letters: pl.Series) -> pl.Series:
        return letters.str.slice(0, 1)

    table = with_texts()
    schema = infer_schema(table, label="y", time="at", key="id", ignored=["note"])
    features = FeatureSet([letters, first], schema).fit(table)
    assert "letters" not in features.columns
    assert "first" in features.codes
    assert features.matrix(table).shape == (table.height, len(features.columns))
    assert features.names_of("raw")[-2:] == ("letters", "first")
