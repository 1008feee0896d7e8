"""Three versions of different quality behind real HTTP: answers, labels, and the traffic goes to the better one."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")
pytest.importorskip("uvicorn")

from conftest import SINCE, make_app, make_world  # noqa: E402
from live_server import Server, rows_of  # noqa: E402
from loudly.app.verbs import memory_stores  # noqa: E402
from loudly.core.clock import DAY, DataClock  # noqa: E402
from loudly.deliver.rollout import parse_rollout  # noqa: E402
from loudly.evaluate.gate import Gate  # noqa: E402
from loudly.loop.founding import found  # noqa: E402
from loudly.loop.live import Live  # noqa: E402
from loudly.testing.damage import labels_shuffled  # noqa: E402

DAYS = 12
ROWS = 300


def made(table: pl.DataFrame, text: str) -> tuple[Live, DataClock]:
    """A bad champion, a bad candidate and a good one, in a rollout."""
    system = make_app(table, stage="manual").system
    system = replace(system, gate=Gate(margin=1.0, slice_margin=1.0, overfit=1.0), rollout=(parse_rollout(text, margin=0.1),))
    clock, at = DataClock(SINCE), pl.col("at").dt.epoch("us")
    live = Live(system, memory_stores("world"), clock, key=b"replay")
    assert not found(live, table.filter(at < SINCE).with_columns(y=pl.when(at + DAY <= SINCE).then(pl.col("y"))))
    live.retrain("first training", "there is no model yet")
    for _ in range(2):
        live.retrain("by hand", "bad on purpose", harm=labels_shuffled("y", pl.lit(True), 1), offer=False)
    live.promote("world/2", "a bad champion, for the test")
    good = live.retrain("by hand", "a good one", offer=False)
    assert good == "world/4"
    live.offer(good, "a test")
    return live, clock


@pytest.mark.parametrize("text", ["thompson among 3 for 30d", "linear-thompson on x1 10% among 3 for 30d"])
def test_the_better_of_three_arms_wins_the_traffic_over_http(text: str) -> None:
    table = make_world(days=31 + DAYS + 1, per_day=ROWS)
    live, clock = made(table, text)
    at, shares = pl.col("at").dt.epoch("us"), []
    with Server(live) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for day in range(DAYS):
            now = SINCE + day * DAY
            known = table.filter((at >= now - DAY) & (at < now) & (at >= SINCE))
            if known.height:
                told = client.post("/feedback", json=known.select("id", "y").to_dicts()).json()
                assert told == {"joined": ROWS, "unknown": 0, "repeated": 0}
            rows = rows_of(table, now, now + DAY)
            answers = client.post("/predict", json=rows[3:]).json()["answers"]
            answers += [client.post("/predict", json=row).json()["answers"][0] for row in rows[:3]]
            assert not any(a["fallback"] for a in answers)
            by_arm = {"control": "world/2", "candidate": "world/4", "candidate2": "world/3"}
            if live.state.rollout is not None:
                assert all(a["version"] == by_arm[a["arm"]] for a in answers)
                assert all(0 < a["propensity"] <= 1 for a in answers)
                shares.append(sum(a["arm"] == "candidate" for a in answers) / len(answers))
                arms = client.get("/status").json()["arms"]
                assert {name: told["version"] for name, told in arms.items()} == by_arm
                assert sum(told["answers"] for told in arms.values()) == ROWS * (day + 1)
            clock.advance(now + DAY)
            live.tick()
        metrics = client.get("/metrics").text
    assert 'loudly_rows_total{arm="candidate2",version="world/3"}' in metrics
    assert shares[0] < 0.5 < 0.75 < shares[-1]
    if text.startswith("thompson"):
        assert live.state.champion == "world/4"


def test_a_request_given_up_under_a_context_is_still_answered_by_the_constant() -> None:
    table = make_world(days=40, per_day=60)
    live, _ = made(table, "linucb on x1, x2 10% among 3 for 30d")
    assert live.router is not None
    rows = table.filter(pl.col("at").dt.epoch("us") >= SINCE).head(5).drop("y")
    given = live.router.give_up(rows, rows["id"].to_list(), "candidate")
    assert given.fallback.all()
    assert given.failed["candidate"] == 5
    unknown = live.router.answer(rows.with_columns(x1=pl.lit(None, pl.Float64)), rows["id"].to_list())
    assert unknown.propensity == pytest.approx([1 / 3] * 5), "a row whose context is not known is spread evenly"
