"""The demo's own user file: New York's flights, late or not.

Ten lines carry it; the rest are the optional judgments that a careful team would add.
"""

from __future__ import annotations

from typing import Any

import lightgbm as lgb
import polars as pl

from loudly.app.app import App
from loudly.demo import nycflights
from loudly.monitor.settings import MonitorSettings

app = App("flights", label="late", time="scheduled", key="flight_id", metric="roc_auc")


@app.data(private=["tailnum"])
def flights() -> pl.DataFrame:
    return nycflights.table()


@app.feature
def departs(sched_dep_time: pl.Series) -> pl.Series:
    return sched_dep_time // 100 * 60 + sched_dep_time % 100


@app.feature
def arrives(sched_arr_time: pl.Series) -> pl.Series:
    return sched_arr_time // 100 * 60 + sched_arr_time % 100


@app.feature
def weekday(scheduled: pl.Series) -> pl.Series:
    return scheduled.dt.weekday()


@app.train(holdout="14d")
def fit(X: Any, y: Any, *, categories: list[int], seed: int, start: Any = None) -> Any:
    model = lgb.LGBMClassifier(
        n_estimators=20 if start is not None else 60,
        learning_rate=0.05 if start is not None else 0.1,
        min_child_samples=100,
        max_bin=127,
        colsample_bytree=0.5,
        subsample=0.7,
        subsample_freq=1,
        cat_smooth=50,
        cat_l2=50,
        random_state=seed,
        deterministic=True,
        force_row_wise=True,
        n_jobs=1,
        verbose=-1,
    )
    return model.fit(X, y, categorical_feature=categories, init_model=start)


@app.rule
def evening(rows: pl.DataFrame) -> pl.Series:
    """Delays pile up through the day."""
    return rows["sched_dep_time"].cast(pl.Float64) / 2400


@app.slice
def carrier(rows: pl.DataFrame) -> pl.Series:
    return rows["carrier"]


@app.slice
def origin(rows: pl.DataFrame) -> pl.Series:
    return rows["origin"]


@app.behaviour(expect="same", tolerance=0.02)
def tail_number_is_no_reason(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(tailnum=pl.lit("N00000"))


app.labels(arrive_within="1d")
app.monitor(MonitorSettings(tolerance=0.07))
app.rollout("shadow 1d", "canary 5% 25% 100%", margin=0.02, deadline="14d")
app.retrain("stateless", on=["performance"], growth=0.32, every="50d", cooldown="21d", at_most=8, period="365d")
