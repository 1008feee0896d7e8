"""A model that reads its inputs raw, texts among them: trained, searched, judged, stored, loaded and served as any other."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from live_server import Server
from loudly import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, DataClock, instant
from loudly.errors import UserFileError
from loudly.features.feature_set import FeatureSet
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.replay import replay
from loudly.loop.serving import inputs_of
from loudly.validate.schema import infer_schema

SINCE, DAYS, PER_DAY = instant("2024-02-01"), 40, 60
WORDS = np.array(["late", "lost", "broken", "thanks", "great", "quick", "again", "parcel"])
ANGRY = WORDS[:3]


def letters(numbers: bool = True) -> pl.DataFrame:
    """40 days of letters; the angry ones say so. numbers: whether there is anything but text."""
    rng, n = np.random.default_rng(0), DAYS * PER_DAY
    words = rng.choice(WORDS, (n, 5))
    angry = np.isin(words, ANGRY).sum(axis=1) + rng.normal(0, 0.7, n) > 2
    at = pl.Series(SINCE - 31 * DAY + np.arange(n) * (DAY // PER_DAY)).cast(pl.Datetime("us"))
    table = pl.DataFrame({"id": [f"l{i}" for i in range(n)], "at": at, "angry": angry, "said": [" ".join(w) for w in words]})
    table = table.with_columns(said=pl.col("said") + " " + pl.col("id"))  # no letter is like another
    if not numbers:
        return table
    kind, size = pl.Series(rng.choice(["mail", "chat"], n), dtype=pl.Categorical), pl.Series(rng.integers(1, 9, n), dtype=pl.Int16)
    sent = at.dt.offset_by("-2d")
    return table.with_columns(kind=kind, size=pl.when(pl.Series(rng.random(n) < 0.9)).then(size), sent=sent)


def made_app(table: pl.DataFrame, seen: list[Any] | None = None, **asked: Any) -> App:
    app = App("letters", label="angry", time="at", key="id", metric="roc_auc")
    app.data(lambda: table)

    @app.train(frame="raw", holdout="5d", **asked)
    def fit(X: Any, y: Any, *, names: Any, categories: Any, C: float = 1.0) -> Any:
        (seen if seen is not None else []).append((X.schema, names, [names[i] for i in categories]))
        parts = [("said", TfidfVectorizer(), "said")]
        parts += [("kind", OneHotEncoder(handle_unknown="ignore"), ["kind"])] if "kind" in X.columns else []
        return make_pipeline(ColumnTransformer(parts), LogisticRegression(C=C)).fit(X, y)

    app.labels(arrive_within="1d")
    return app


def founded(app: App, table: pl.DataFrame) -> Live:
    live = Live(app.system, memory_stores("letters"), DataClock(SINCE), key=b"key")
    assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    assert live.retrain("first training", "there is no model yet") == "letters/1"
    return live


def loud(live: Live) -> list[Any]:
    return [r.event.data["what"] for r in live.stores.ledger.read() if r.event.kind == "guarantee_weakened"]


def test_a_model_of_text_gets_columns_in_their_own_types_and_answers_over_http() -> None:
    table, seen = letters(), list[Any]()
    live = founded(made_app(table, seen), table)
    schema, names, categories = seen[0]
    assert dict(schema) == {"said": pl.String, "kind": pl.String, "size": pl.Int64, "sent": pl.Datetime("us")}
    assert (names, categories) == (["said", "kind", "size", "sent"], ["kind"])
    assert "inputs" not in loud(live)
    rows = table.filter(pl.col("at").dt.epoch("us") >= SINCE).drop("angry").head(40)
    expected = live.ready["letters/1"].predict(rows)
    with Server(live) as server:
        sent = [{**row, "at": row["at"].isoformat(), "sent": row["sent"].isoformat()} for row in rows.to_dicts()]
        one_by_one = [httpx.post(f"{server.url}/predict", json=row).json()["answers"][0] for row in sent[:5]]
        together = httpx.post(f"{server.url}/predict", json=sent).json()["answers"]
        refused = httpx.post(f"{server.url}/explain", json=sent[0])
    np.testing.assert_allclose([a["prediction"] for a in together], expected, rtol=1e-12)
    np.testing.assert_allclose([a["prediction"] for a in one_by_one], expected[:5], rtol=1e-12)
    assert not any(a["fallback"] for a in (*together, *one_by_one))
    assert (refused.status_code, "takes its columns raw" in refused.text) == (422, True)


def test_where_there_is_nothing_but_text_the_ladder_has_no_simple_model_and_a_search_works() -> None:
    table = letters(numbers=False)
    made = replay(made_app(table, tune={"C": (0.1, 10.0, "log")}, trials=3).system, table, memory_stores("letters"), since=SINCE)
    (ladder,) = [r.event.data["verdict"] for r in made.events if r.event.kind == "ladder_climbed"]
    assert ladder["decision"] == "PASS"
    assert [e["about"] for e in ladder["evidence"]] == ["random", "prior", "yours"]
    assert made.answers.height == table.filter(pl.col("at").dt.epoch("us") >= SINCE).height
    assert made.answers["_answer"].is_finite().all()


def test_a_table_is_given_alike_in_training_and_row_by_row_with_features_beside_its_columns() -> None:
    def shout(said: pl.Series) -> pl.Series:
        return said.str.to_uppercase()

    table = letters().with_columns(pl.lit(None, dtype=pl.Float32).alias("gone"))
    schema = infer_schema(table, label="angry", time="at", key="id", ignored=["gone"])
    features = FeatureSet([shout], schema).fit(table)
    whole = inputs_of(features, table, "raw")
    assert whole.columns == ["said", "kind", "size", "sent", "shout"]
    assert whole["shout"][0] == table["said"][0].upper()
    assert whole["size"].null_count() == table["size"].null_count() > 0
    alone = pl.concat([inputs_of(features, table[i].cast({"kind": pl.String, "size": pl.Int64}), "raw") for i in range(20)])
    assert alone.equals(whole.head(20))
    assert inputs_of(FeatureSet([shout], schema).thaw(features.plain()), table, "raw").equals(whole)


def test_a_frame_that_is_none_is_refused_with_the_nearest_and_without_raw_the_text_is_said_to_be_unseen() -> None:
    table = letters()
    with pytest.raises(UserFileError, match="did you mean 'raw'"):
        App("l", label="angry", time="at", key="id", metric="roc_auc").train(frame="row")(lambda X, y: None)
    app = App("letters", label="angry", time="at", key="id", metric="roc_auc")
    app.data(lambda: table)
    app.train(holdout="5d")(lambda X, y: LogisticRegression().fit(np.nan_to_num(X), y))
    live = Live(app.system, memory_stores("letters"), DataClock(SINCE), key=b"key")
    found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    assert "inputs" in loud(live)
