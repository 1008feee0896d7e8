"""Batches over Parquet: the very answers of the server, in bounded memory, bad rows beside with their reason."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")


from command_line import Project  # noqa: E402
from conftest import SINCE, make_app, make_world  # noqa: E402
from live_server import Server, make_live, rows_of  # noqa: E402
from loudly import App  # noqa: E402
from loudly.app.operate import predict  # noqa: E402
from loudly.app.verbs import memory_stores  # noqa: E402
from loudly.config import Config, StoreConfig  # noqa: E402
from loudly.core.clock import DAY, DataClock  # noqa: E402
from loudly.errors import DataError, RolloutError  # noqa: E402
from loudly.loop.founding import found  # noqa: E402
from loudly.loop.live import Live  # noqa: E402
from loudly.loop.system import System  # noqa: E402

CONFIG = Config(store=StoreConfig(key="replay"))


@pytest.fixture(scope="module")
def live(table: pl.DataFrame) -> Live:
    return make_live(table)[0]


def new_rows(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("at").dt.epoch("us") >= SINCE).drop("y")


def test_the_batch_answers_as_the_server(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    """A response body made of what the batch wrote is the body that the server sent.

    The last bit of a float may differ: a matrix product depends on how many rows are multiplied together.
    """
    rows = new_rows(table)
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=500)
    done = predict(live.system, (live.stores, CONFIG), str(tmp_path / "rows.parquet"), tmp_path / "out.parquet")
    assert (done.rows, done.aside, done.fallbacks) == (rows.height, 0, 0)
    made = pl.read_parquet(tmp_path / "out.parquet")
    assert made["key"].to_list() == rows["id"].to_list()
    with Server(live) as server:
        sent = httpx.post(f"{server.url}/predict", json=rows_of(table, SINCE, SINCE + 50 * DAY))
    answers = [
        {"prediction": pytest.approx(p, rel=1e-12), "version": v, "arm": "control", "propensity": 1.0, "fallback": f}
        for p, v, f in made.select("prediction", "version", "fallback").iter_rows()
    ]
    assert sent.json()["answers"] == answers


def test_it_does_not_matter_how_the_rows_are_cut_into_files_and_groups(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    rows, made = new_rows(table), {}
    for name, files, group in (("one", 1, 10_000), ("groups", 1, 7), ("files", 5, 101)):
        folder = tmp_path / name
        folder.mkdir()
        for i, piece in enumerate(rows.iter_slices(-(-rows.height // files))):
            piece.write_parquet(folder / f"{i}.parquet", row_group_size=group)
        predict(live.system, (live.stores, CONFIG), str(folder), tmp_path / f"{name}.parquet")
        made[name] = pl.read_parquet(tmp_path / f"{name}.parquet")
    assert made["one"].equals(made["groups"])
    assert made["one"].equals(made["files"])
    glob = predict(live.system, (live.stores, CONFIG), str(tmp_path / "files" / "*.parquet"), tmp_path / "glob.parquet")
    assert glob.rows == rows.height


def test_keys_that_are_whole_numbers_are_told_as_texts(table: pl.DataFrame, tmp_path: Path) -> None:
    whole = table.with_columns(id=pl.int_range(pl.len()))
    live, rows = make_live(whole)[0], new_rows(whole).head(20)
    rows.write_parquet(tmp_path / "rows.parquet")
    done = predict(live.system, (live.stores, CONFIG), str(tmp_path / "rows.parquet"), tmp_path / "out.parquet")
    assert (done.rows, done.aside) == (20, 0)
    assert pl.read_parquet(tmp_path / "out.parquet")["key"].to_list() == rows["id"].cast(pl.String).to_list()


def test_bad_rows_are_set_aside_with_their_reason_and_the_server_refuses_the_same(
    live: Live, table: pl.DataFrame, tmp_path: Path
) -> None:
    rows = new_rows(table).head(40).with_columns(pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f"))
    bad = {3: ("id", None), 11: ("at", "yesterday"), 20: ("x1", None)}
    for number, (name, value) in bad.items():
        changed = pl.when(pl.int_range(pl.len()) == number).then(pl.lit(value)).otherwise(pl.col(name))
        rows = rows.with_columns(changed.alias(name))
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=10)
    done = predict(live.system, (live.stores, CONFIG), str(tmp_path / "rows.parquet"), tmp_path / "out.parquet")
    assert (done.rows, done.aside) == (37, 3)
    aside = pl.read_parquet(tmp_path / "out.aside.parquet")
    assert aside["number"].to_list() == sorted(bad)
    for reason, (name, _) in zip(aside["reason"], bad.values(), strict=True):
        assert name in reason
    assert json.loads(aside["row"][1])["at"] == "yesterday"
    with Server(live) as server:
        for number in range(rows.height):
            status = httpx.post(f"{server.url}/predict", json=rows.row(number, named=True)).status_code
            assert status == (422 if number in bad else 200), number


def test_rows_are_set_aside_also_where_it_is_all_of_a_group_or_of_a_file(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    rows = new_rows(table).head(30)
    gone = rows.with_columns(x1=pl.when(pl.int_range(pl.len()).is_between(10, 19)).then(None).otherwise("x1"))
    for name, spoilt, aside in (
        ("group", gone, 10),
        ("list", rows.with_columns(pl.concat_list("x1").alias("x1")), 30),
        ("date", rows.with_columns(x1=pl.col("at").dt.date()), 30),
    ):
        spoilt.write_parquet(tmp_path / f"{name}.parquet", row_group_size=10)
        done = predict(live.system, (live.stores, CONFIG), str(tmp_path / f"{name}.parquet"), tmp_path / "out.parquet")
        assert (done.rows, done.aside) == (30 - aside, aside), name


def test_answers_are_not_written_over_the_rows(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    for name in ("rows.parquet", "out.aside.parquet"):
        new_rows(table).head(3).write_parquet(tmp_path / name)
    for out in ("rows.parquet", "out.parquet"):
        with pytest.raises(DataError, match="would replace rows"):
            predict(live.system, (live.stores, CONFIG), str(tmp_path), tmp_path / out)
    assert pl.read_parquet(tmp_path / "rows.parquet").columns == new_rows(table).columns


def test_a_column_may_be_called_like_one_of_ours(tmp_path: Path) -> None:
    """An input named `reason` reaches the model as it is."""
    table = make_world(days=40).rename({"x1": "reason"})
    live = make_live_of(make_app(table).system, table)
    rows = new_rows(table)
    rows.write_parquet(tmp_path / "rows.parquet")
    predict(live.system, (live.stores, CONFIG), str(tmp_path / "rows.parquet"), tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet")["prediction"].to_list() == pytest.approx(
        live.answer(rows)[0].answer.tolist(), rel=1e-12
    )


def test_private_values_are_written_nowhere(tmp_path: Path) -> None:
    table = make_world(days=40).with_columns(who=pl.format("person-{}", pl.int_range(pl.len()) % 9))
    live = make_live_of(replace(make_app(table).system, private=("who",)), table)
    rows = new_rows(table)
    rows.with_columns(id=pl.when(pl.int_range(pl.len()) % 5 > 0).then("id")).write_parquet(tmp_path / "rows.parquet")
    done = predict(live.system, (live.stores, CONFIG), str(tmp_path / "rows.parquet"), tmp_path / "out.parquet")
    assert done.aside == -(-rows.height // 5)
    for path in done.files:
        assert "person-" not in str(pl.read_parquet(path).to_dicts())


def test_a_file_without_a_needed_column_and_no_champion_are_named(live: Live, table: pl.DataFrame, tmp_path: Path) -> None:
    new_rows(table).drop("id").write_parquet(tmp_path / "rows.parquet")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 nothing of the kind")
    for name, what in (("rows.parquet", "id"), ("no.parquet", "no Parquet"), ("gone.parquet", "no Parquet file")):
        with pytest.raises(DataError, match=what):
            predict(live.system, (live.stores, CONFIG), str(tmp_path / name), tmp_path / "out.parquet")
    assert not list(tmp_path.glob("out*"))
    with pytest.raises(RolloutError, match="no champion"):
        predict(live.system, (memory_stores("world"), CONFIG), str(tmp_path), tmp_path / "out.parquet")


def test_probabilities_of_many_classes_are_lists(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = make_world(days=40).with_columns(pl.Series("y", rng.choice(["a", "b", "c"], 40 * 120)))
    app = App("world", label="y", time="at", key="id", metric="accuracy")
    app.data(lambda: table)
    app.train(lambda X, y: LogisticRegression().fit(np.nan_to_num(X), y))
    live = make_live_of(app.system, table)
    new_rows(table).write_parquet(tmp_path / "rows.parquet")
    predict(live.system, (live.stores, CONFIG), str(tmp_path / "rows.parquet"), tmp_path / "out.parquet")
    made = pl.read_parquet(tmp_path / "out.parquet")["prediction"]
    assert (made.list.len() == 3).all()
    assert np.allclose(made.list.sum().to_numpy(), 1.0)


def make_live_of(system: System, table: pl.DataFrame) -> Live:
    live = Live(system, memory_stores("world"), DataClock(SINCE), key=b"replay")
    found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
    live.promote(live.retrain("first training", "none yet", offer=False) or "", "a test")
    return live


PROJECT = """
import sys, json, resource
from pathlib import Path
from loudly.app.operate import predict
from loudly.app.project import load_app
from loudly.app.verbs import open_stores
app = load_app(Path("app.py"))
done = predict(app.system, open_stores(app.name, app.folder), sys.argv[1], Path(sys.argv[2]))
print(json.dumps([done.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def in_project(folder: Path, *words: str) -> Any:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(shipped: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped.copy(tmp_path_factory.mktemp("project")).folder


@pytest.mark.slow
@pytest.mark.newest  # older polars reads row groups less thriftily
def test_memory_does_not_grow_with_the_file(project: Path) -> None:
    rows = pl.read_csv(project / "loans.csv", try_parse_dates=True).drop("late")
    peaks = []
    for times in (10, 200):
        name = f"rows{times}.parquet"
        pl.concat([rows] * times).write_parquet(project / name, row_group_size=30_000)
        count, peak = json.loads(in_project(project, "-c", PROJECT, name, f"out{times}.parquet"))
        assert count == rows.height * times
        peaks.append(peak)
    assert peaks[1] < 1.3 * peaks[0], "twenty times the rows"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray warns about itself
def test_ray_data_writes_the_same_file(project: Path) -> None:
    pytest.importorskip("ray", reason="LOUD: ray is not installed, Ray Data is not tested")
    rows = pl.read_csv(project / "loans.csv", try_parse_dates=True).drop("late")
    rows.write_parquet(project / "few.parquet", row_group_size=700)
    toml = project / "loudly.toml"
    said = toml.read_text()
    in_project(project, "-c", PROJECT, "few.parquet", "here.parquet")
    toml.write_text(said + '\n[executor]\nkind = "ray"\nworkers = 2\n')
    in_project(project, "-c", PROJECT, "few.parquet", "ray.parquet")
    toml.write_text(said)
    assert (project / "here.parquet").read_bytes() == (project / "ray.parquet").read_bytes()
