"""MLflow's own client reads our runs, and `models:/world@champion` answers raw columns as we do."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

with warnings.catch_warnings():  # MLflow warns about itself when it is imported
    warnings.simplefilter("ignore")
    mlflow = pytest.importorskip("mlflow", reason="LOUD: mlflow is not installed; the mirror is not tested")
    pd = pytest.importorskip("pandas")
    from loudly.adapters.mlflow_model import PyfuncModel
    from loudly.adapters.mlflow_tracker import MlflowTracker

from sklearn.ensemble import HistGradientBoostingClassifier

from conftest import SINCE, make_app, make_world
from loudly.app.verbs import formats, memory_stores
from loudly.core.clock import DataClock
from loudly.errors import DataError
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.mirror import mirror
from loudly.loop.replay import replay
from loudly.loop.serving import open_version

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow and its dependencies warn about themselves

APP = """
import sys
sys.path.insert(0, {tests!r})
from conftest import make_app, make_world
app = make_app(make_world())
"""


@pytest.mark.slow
def test_its_client_reads_our_runs_and_its_loader_answers_as_we_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_world()
    url = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = MlflowTracker(url, tmp_path / "artifacts", "world")
    system = make_app(table).system
    stores = replace(memory_stores("world"), tracker=tracker)
    made = replay(system, table, stores, since=SINCE)
    assert made.refits >= 1

    client = mlflow.MlflowClient(url, url)
    experiment = client.get_experiment_by_name("world")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == made.refits + 1
    by_key = {r.data.tags["loudly.run"]: r for r in runs}
    for key, run in made.state.runs.items():
        assert by_key[key].data.metrics["roc_auc"] == pytest.approx(run["metrics"]["roc_auc"])
        assert by_key[key].info.status == "FINISHED"
    alias = client.get_model_version_by_alias("world", "champion")
    assert alias.tags["loudly.version"] == made.state.champion

    user_file = tmp_path / "app.py"
    user_file.write_text(APP.format(tests=str(Path(__file__).parents[1])))
    monkeypatch.setenv("LOUDLY_APP", str(user_file))
    loaded = mlflow.pyfunc.load_model("models:/world@champion")
    raw = table[:200].select("x1", "x2", "group")
    frame = pd.DataFrame({name: raw[name].to_list() for name in raw.columns})
    champion = made.state.versions[made.state.champion or ""]
    ours = open_version(champion, system.features, stores.blobs, formats(), vouched=True).predict(table[:200])
    assert np.array_equal(loaded.predict(frame), ours)

    again_url = f"sqlite:///{tmp_path}/again.db"
    again = MlflowTracker(again_url, tmp_path / "again", "world")
    for _ in range(2):  # what the mirror knows already is left alone
        told = mirror(made.events, stores.blobs, again)
        assert (told.runs, told.champion) == (made.refits + 1, made.state.champion)
    anew = mlflow.MlflowClient(again_url, again_url)
    assert _runs(anew) == _runs(client)
    assert len(anew.search_model_versions("name='world'")) == len(client.search_model_versions("name='world'"))
    assert anew.get_model_version_by_alias("world", "champion").tags == alias.tags
    assert isinstance(raw, pl.DataFrame)


def fit(X: Any, y: Any) -> Any:
    return HistGradientBoostingClassifier(max_iter=5).fit(X, y)


def test_each_row_of_a_frame_is_answered_or_the_frame_is_refused() -> None:
    table = make_world(days=31).with_columns(count=pl.int_range(pl.len()) % 7)
    system = make_app(table).system
    live = Live(
        replace(system, features=(), train=replace(system.train, fit=fit)), memory_stores("world"), DataClock(SINCE), key=b"k"
    )
    assert not found(live, table)
    live.retrain("first training", "none yet")
    with live.stores.blobs.open(live.state.versions["world/1"].model) as stream:
        model = PyfuncModel(stream.read())
    frame = table.head(6).select("x1", "x2", "group", "count").to_pandas()
    gap = frame.assign(count=[0, 1, float("nan"), 3, 4, 5])
    known = np.arange(6) != 2
    assert model.predict(gap).shape == (6,)
    assert np.array_equal(model.predict(gap)[known], model.predict(frame)[known])
    with pytest.raises(DataError, match="1 of 6 rows, the first: count is no integer"):
        model.predict(frame.assign(count=[0, 1, 2.5, 3, 4, 5]))


def _runs(client: Any) -> dict[str, tuple[dict[str, str], dict[str, float]]]:
    found = client.search_runs([client.get_experiment_by_name("world").experiment_id])
    return {r.data.tags["loudly.run"]: (r.data.params, r.data.metrics) for r in found}


@pytest.mark.slow
def test_a_log_of_a_step_is_not_slowed_by_the_store(tmp_path: Path) -> None:
    """Metrics are kept and flushed in batches: the same 300 in fewer writes than MLflow's log_metric, measured side by side."""
    script = (
        "import sys, time, mlflow\nfrom pathlib import Path\nfrom loudly.adapters.mlflow_tracker import MlflowTracker\n"
        "from loudly.core.values import Run\nurl='sqlite:///'+sys.argv[1]+'/m.db'\n"
        "t=MlflowTracker(url, Path(sys.argv[1])/'a','e')\n"
        "run=Run('k'*64,'d',{},0,None,{},'m','f',1); t.ran(run,{}); rid=t._runs[run.key]; c=t._client\n"
        "a=time.perf_counter()\nfor i in range(300): c.log_metric(rid,'theirs',i,step=i)\nb=time.perf_counter()\n"
        "t.ran(run,{'ours':[float(i) for i in range(300)]}); m=time.perf_counter(); t.flush(); e=time.perf_counter()\n"
        "print((b-a)/(m-b+e-m))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) > 3
