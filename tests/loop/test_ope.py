"""Off-policy evaluation of a rollout's log: what it says is what the other arm did earn, and where it cannot know it says so."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from conftest import SINCE, make_world
from loudly.app.app import App
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock
from loudly.core.values import Evidence
from loudly.errors import ConfigError, DataError, NotFound, RolloutError
from loudly.loop import ope
from loudly.loop.founding import found
from loudly.loop.live import Live
from loudly.loop.ope import Told, off_policy
from loudly.store.segments import SegmentWriter

TABLE = make_world(days=60)
WHEN = pl.col("at").dt.epoch("us")
# The champion has hardly learned anything; the candidates have.
STRENGTH = [1e-6]


class Silent(ClassifierMixin, BaseEstimator):
    """Says nothing of half the rows."""

    def fit(self, X: Any, y: Any) -> Silent:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> Any:
        return np.where(X[:, :1] > 0, np.nan, [[0.5, 0.5]])

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.classes_[0])


def made_app(*stages: str) -> App:
    app = App("world", label="y", time="at", key="id", metric="roc_auc")
    app.data(lambda: TABLE)

    @app.train(holdout="7d")
    def fit(X: Any, y: Any) -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH[0])).fit(X, y) if STRENGTH[0] else Silent().fit(X, y)

    app.labels(arrive_within="1d")
    app.rollout(*stages, deadline="60d")
    return app


def lived(
    folder: Path, *stages: str, days: int = 20, fits: int = 2, silent: int | None = None, strangers: int = 0
) -> tuple[Live, Path]:
    """A rollout of some days, each labelled a day later; nothing is decided on the way.

    silent: the fit whose model has nothing to say of half the rows.  strangers: labels of the first day that are of no class.
    """
    log = SegmentWriter(folder)
    live = Live(made_app(*stages).system, replace(memory_stores("world"), traffic=log), DataClock(SINCE), key=b"key")
    assert not found(live, TABLE.filter(WHEN < SINCE))
    for number in range(fits):
        STRENGTH[0] = 1e-6 if number == 0 else 1.0 if number != silent else 0.0
        live.retrain("by hand", "a test", offer=False)
    live.offer("world/1", "there is none")
    for number in range(2, fits + 1):
        live.offer(f"world/{number}", "a test") if number == fits else None
    with closing(log):
        for day in range(days):
            now = SINCE + day * DAY
            live.clock.advance(now)  # type: ignore[attr-defined]
            labels = TABLE.filter((now - DAY <= WHEN) & (now > WHEN) & (WHEN >= SINCE)).select("id", "y")
            if day == 1:
                live.feedback(labels.head(strangers).with_columns(y=pl.lit("maybe")))
            live.feedback(labels if day > 1 else labels.tail(-strangers) if strangers else labels)
            for hour in range(24):
                begun = now + hour * HOUR
                live.clock.advance(begun)  # type: ignore[attr-defined]
                live.answer(TABLE.filter((begun <= WHEN) & (begun + HOUR > WHEN)).drop("y"))
        log.flush()
    return live, folder


def true_reward(live: Live, version: str, days: int) -> float:
    """What a version earns where it answers every labelled row: labels here do not hear of answers."""
    rows = TABLE.filter((WHEN >= SINCE) & (SINCE + (days - 1) * DAY > WHEN))
    return float(1 - ((live.ready[version].predict(rows) - rows["y"].to_numpy()) ** 2).mean())


def by_method(told: Told, policy: str) -> dict[str, Evidence]:
    return {e.method: e for p in told.policies if p.policy == policy for e in p.evidence}


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Live, Path]:
    return lived(tmp_path_factory.mktemp("ab"), "ab 30% for 30d")


def test_each_arm_earns_what_it_would_have_earned(tested: tuple[Live, Path]) -> None:
    live, folder = tested
    told = off_policy(live, folder)
    assert [p.policy for p in told.policies] == ["control", "candidate"]
    assert (told.answered, told.labelled, told.left_out) == (20 * 120, 19 * 120, 0)
    gap = true_reward(live, "world/2", 20) - true_reward(live, "world/1", 20)
    assert gap > 0.04, "the arms differ by more than the intervals below are wide"
    for policy, version in (("control", "world/1"), ("candidate", "world/2")):
        truth, found_ = true_reward(live, version, 20), by_method(told, policy)
        assert set(found_) == {"IPS", "SNIPS", "DR", "direct"}
        for method, evidence in found_.items():
            assert evidence.low is not None
            assert evidence.high is not None
            assert evidence.low < truth < evidence.high, (policy, method)
        assert found_["direct"].effect == pytest.approx(truth)
        # Less than the gap, so a policy that is taken for the other is noticed; IPS has the wider one, its weights vary.
        for method in ("SNIPS", "DR"):
            assert found_[method].high - found_[method].low < gap, (policy, method)  # type: ignore[operator]
    assert found_["DR"].high - found_["DR"].low < found_["IPS"].high - found_["IPS"].low  # type: ignore[operator]


def test_shares_lie_between_the_arms_and_the_logs_own_shares_are_what_was_earned(tested: tuple[Live, Path]) -> None:
    live, folder = tested
    told = off_policy(live, folder, ["70% 30%", "20/80", "world/2", "2"])
    assert by_method(told, "70% 30%")["IPS"].effect == pytest.approx(told.earned.effect)
    low, high = (true_reward(live, v, 20) for v in ("world/1", "world/2"))
    mixed = by_method(told, "20/80")["SNIPS"]
    assert mixed.low < 0.2 * low + 0.8 * high < mixed.high  # type: ignore[operator]
    assert by_method(told, "world/2") == by_method(told, "2")


def test_a_bandit_that_learns_ends_near_the_better_arm(tested: tuple[Live, Path]) -> None:
    live, folder = tested
    told = off_policy(live, folder, ["thompson for 14d", "linucb on x1 for 14d", "70% 30%"])
    better, logged = true_reward(live, "world/2", 20), told.earned.effect or 0.0
    found_ = by_method(told, "thompson for 14d")["SNIPS"]
    assert found_.effect > logged + (better - logged) / 3  # type: ignore[operator]
    assert found_.effect < better + 0.02  # type: ignore[operator]
    assert "direct" not in by_method(told, "thompson for 14d")
    assert by_method(told, "linucb on x1 for 14d")["IPS"].n == told.labelled


def test_what_chance_did_not_choose_is_left_out_and_told(tmp_path: Path) -> None:
    live, folder = lived(tmp_path, "shadow 20d", "canary 50% 100% every 5d", days=6)
    told = off_policy(live, folder)
    assert told.left_out == told.labelled == 5 * 120
    (control, candidate) = told.policies
    assert [e.method for e in candidate.evidence] == ["direct"]
    assert candidate.evidence[0].effect == pytest.approx(true_reward(live, "world/2", 6))
    assert "chance chose too few" in candidate.warnings[0]
    assert "does not change the label" in candidate.warnings[1]
    assert control.evidence[0].effect == pytest.approx(told.earned.effect)


def test_a_version_that_was_no_arm_is_judged_directly_and_aloud(tmp_path: Path) -> None:
    live, folder = lived(tmp_path, "ab 50% for 30d", days=4, fits=3)
    told = off_policy(live, folder, ["world/2"])
    (policy,) = told.policies
    assert [a.version for a in told.arms] == ["world/1", "world/3"]
    assert [e.method for e in policy.evidence] == ["direct"]
    assert "LOUD: `direct` takes it that the answer does not change the label" in policy.warnings


def test_the_users_own_reward_counts(tmp_path: Path) -> None:
    live, folder = lived(tmp_path, "ab 50% for 30d", days=4)
    live.system = replace(live.system, reward=lambda rows, answers: (rows["group"] == "a").cast(pl.Float64))
    share = (TABLE.filter((WHEN >= SINCE) & (WHEN < SINCE + 3 * DAY))["group"] == "a").mean()
    assert off_policy(live, folder).earned.effect == pytest.approx(share)


def test_what_has_no_reward_is_left_out_aloud(tmp_path: Path) -> None:
    whole = off_policy(*lived(tmp_path / "whole", "ab 50% for 30d", days=4, fits=3), ["world/2"])
    assert not whole.warnings
    live, folder = lived(tmp_path / "cut", "ab 50% for 30d", days=4, fits=3, silent=1, strangers=7)
    cut = off_policy(live, folder, ["world/2"])
    assert cut.labelled == whole.labelled - 7 == cut.earned.n
    assert "7 labelled answers have no reward" in cut.warnings[0]
    (policy,) = cut.policies
    assert f"{cut.labelled - policy.evidence[0].n:,} of {cut.labelled:,} rows; `direct` leaves them out" in policy.warnings[1]
    assert 0 < policy.evidence[0].n < cut.labelled


def test_a_version_that_reads_what_the_log_has_not_is_not_judged_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live, folder = lived(tmp_path, "ab 50% for 30d", days=4, fits=3)
    opened = ope._opened

    def other(live: Live, version: str) -> Any:
        ready = opened(live, version)
        more = replace(ready.features, inputs=(*ready.features.inputs, "income"))
        return replace(ready, features=more) if version == "world/2" else ready

    monkeypatch.setattr(ope, "_opened", other)
    (policy,) = off_policy(live, folder, ["world/2"]).policies
    assert policy.evidence == ()
    assert policy.warnings == ("LOUD: the log has no income, which world/2 reads; `direct` cannot be told",)


@pytest.mark.parametrize(
    ("policies", "error", "said"),
    [
        (["nobody"], ConfigError, "no arm and no version"),
        (["50% 30%"], ConfigError, "100 % together"),
        (["50% 30% 20%"], ConfigError, "one for each arm"),
        (["canary 5% 100%"], ConfigError, "a bandit alone"),
        (["thomson for 14d"], ConfigError, "thompson"),
        (["linucb on y for 14d"], ConfigError, "'y'"),
    ],
)
def test_a_policy_that_is_none_is_told(tested: tuple[Live, Path], policies: list[str], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        off_policy(*tested, policies)


def test_without_a_rollout_or_labels_nothing_is_told(tested: tuple[Live, Path], tmp_path: Path) -> None:
    live, folder = tested
    with pytest.raises(NotFound, match="position 3"):
        off_policy(live, folder, (), 3)
    with pytest.raises(DataError, match="0 of 0 answers have a label"):
        off_policy(live, tmp_path / "none")
    started = next(r.position for r in live.stores.ledger.read() if r.event.kind == "rollout_started")
    assert off_policy(live, folder, ["control"], started).rollout == str(started)
    bare = Live(live.system, memory_stores("world"), DataClock(SINCE), key=b"key")
    with pytest.raises(RolloutError, match="There was no rollout"):
        off_policy(bare, folder)


def test_a_bandits_log_is_weighted_by_the_probability_of_the_moment(tmp_path: Path) -> None:
    """Its shares move from even to the better arm: without the propensity of each row control would be one of the first days."""
    live, folder = lived(tmp_path, "thompson 20% for 30d")
    told = off_policy(live, folder, ["control", "candidate"])
    assert len(np.unique(live.rollout_state["shares"])) == 2
    for policy, version in (("control", "world/1"), ("candidate", "world/2")):
        found_ = by_method(told, policy)["DR"]
        assert found_.low < true_reward(live, version, 20) < found_.high  # type: ignore[operator]
