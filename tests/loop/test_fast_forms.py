"""Fast forms round the wheel: judged when registered, told, on the card, switched off in one place, and no decision changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier

from conftest import SINCE, make_app, make_world
from loudly.app.server import LiveFront, _tell_forms
from loudly.app.verbs import memory_stores, open_stores, using_stores
from loudly.core.clock import DataClock
from loudly.errors import ConfigError
from loudly.loop.live import Live
from loudly.loop.replay import Replayed, replay
from loudly.loop.tell import tell

pytest.importorskip("onnxruntime", reason="LOUD: onnxruntime is not installed; fast forms round the wheel are not tested")
pytest.importorskip("onnx", reason="LOUD: onnx is not installed; fast forms round the wheel are not tested")
WORLD = make_world(50)


def boosted(X: Any, y: Any) -> Any:
    return HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(X, y)


def other(X: Any, y: Any) -> Any:
    return GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, y)


def run(fit: Any, *, fast: bool, turn: Any = None, until: int | None = None) -> tuple[Replayed, Any]:
    app = make_app(WORLD)
    system = replace(app.system, train=replace(app.system.train, fit=fit))
    stores = memory_stores("world")
    stores = stores if fast else replace(stores, fast={})
    return replay(system, WORLD, stores, since=SINCE, turn=turn, until=until), stores


def kinds(made: Replayed, kind: str) -> list[Any]:
    return [r.event for r in made.events if r.event.kind == kind]


def test_a_replay_served_from_fast_forms_decides_as_the_originals_and_twice_the_same() -> None:
    fast, stores = run(boosted, fast=True)
    again, _ = run(boosted, fast=True)
    slow, _ = run(boosted, fast=False)
    assert fast.state.chain == again.state.chain
    judged = kinds(fast, "fast_form_judged")
    assert len(judged) == len(kinds(fast, "version_registered")) >= 1
    assert all(e.data["serves"] == "onnx-trees" for e in judged)
    assert "served from onnx-trees" in tell(judged[0])
    off = kinds(slow, "fast_form_judged")
    assert "switched off" in off[0].data["verdict"]["reason"]
    assert not [e for e in kinds(slow, "guarantee_weakened") if "fast" in e.data["what"]]
    gap = np.abs(fast.answers["_answer"].to_numpy() - slow.answers["_answer"].to_numpy())
    assert gap.max() <= 1e-12
    decided = [[(r.position, r.event.kind, r.event.at) for r in made.events] for made in (fast, slow)]
    assert decided[0] == decided[1], "the same decisions, at the same places"
    card = kinds(fast, "version_registered")[0].data["card"]
    with stores.blobs.open(card) as stream:
        assert "- fast form: PASS: onnx-trees differs by" in stream.read().decode()


def test_where_no_fast_form_stands_the_original_serves_and_it_is_said_aloud() -> None:
    seen: list[Any] = []

    def look(live: Live, now: int) -> None:
        seen.append(LiveFront(live).status()["served_from"])

    made, _ = run(other, fast=True, turn=look, until=SINCE + 1)
    judged = kinds(made, "fast_form_judged")[0]
    assert judged.data["serves"] == "original"
    loud = [e for e in kinds(made, "guarantee_weakened") if e.data["what"] == "serving from a fast form"]
    assert "GradientBoostingClassifier" in loud[0].data["reason"]
    assert tell(loud[0]).startswith("LOUD")
    ((ref, told),) = seen[0].items()
    assert (ref, told["form"]) == ("world/1", "original")
    assert "GradientBoostingClassifier" in told["why"]


def test_the_switch_is_one_line_and_on_by_default(tmp_path: Path) -> None:
    with using_stores("world", tmp_path) as opened:
        assert opened[0].fast
    (tmp_path / "loudly.toml").write_text("[server]\nfast_forms = false\n")
    with using_stores("world", tmp_path) as opened:
        assert not opened[0].fast
    (tmp_path / "loudly.toml").write_text("[server]\nfast_forms = 1\n")
    with pytest.raises(ConfigError, match="wants true or false"):
        open_stores("world", tmp_path)
    (tmp_path / "loudly.toml").write_text("[server]\nport = true\n")
    with pytest.raises(ConfigError, match="wants a whole number"):
        open_stores("world", tmp_path)


def test_a_model_that_takes_a_table_keeps_the_original() -> None:
    app = make_app(WORLD)
    system = replace(app.system, train=replace(app.system.train, fit=boosted, frame="polars"))
    made = replay(system, WORLD, memory_stores("world"), since=SINCE, until=SINCE + 1)
    assert "the model takes a table" in kinds(made, "fast_form_judged")[0].data["verdict"]["reason"]


def test_a_server_whose_library_is_gone_starts_with_the_original_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    made, stores = run(boosted, fast=True, until=SINCE + 1)
    without = tuple(f for f in stores.formats if f.name != "onnx")
    live = Live(made.system, replace(stores, formats=without, fast={"onnx-trees": lambda: None}), DataClock(SINCE), key=b"replay")
    _tell_forms(live)
    assert "LOUD world: world/1: onnx-trees passed, and its library is not installed here" in capsys.readouterr().err
    told = [r.event for r in stores.ledger.read()][-1]
    assert (told.kind, told.data["what"]) == ("guarantee_weakened", "serving from a fast form")
    rows = WORLD.tail(5).drop("y")
    both = Live(made.system, stores, DataClock(SINCE), key=b"replay").ready["world/1"], live.ready["world/1"]
    assert [r.served for r in both] == ["onnx-trees", "original"]
    assert np.allclose(*(r.predict(rows) for r in both), atol=1e-12)
