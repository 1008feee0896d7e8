"""What stops coming is an alarm, soon; what is quiet as it always was is none."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from conftest import SINCE, make_app
from loudly.app.server import LiveFront
from loudly.app.verbs import memory_stores
from loudly.core.clock import DAY, HOUR, DataClock, iso
from loudly.core.values import Decision, Evidence, Verdict
from loudly.loop.founding import found, reopen
from loudly.loop.live import Live
from loudly.loop.restart import catch_up
from loudly.monitor import silence as silence_module
from loudly.monitor.alerts import Alerts
from loudly.monitor.judged import Cause, WindowJudged
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.silence import Labels, Requests
from loudly.store.segments import SegmentWriter

YEAR = 365 * 24
OF_DAY, OF_WEEK = np.arange(YEAR) % 24, np.arange(YEAR) % 168
PATTERNS = {
    "always": np.full(YEAR, 0.999),
    "mostly": np.full(YEAR, 0.9),
    "half": np.full(YEAR, 0.5),
    "seldom": np.full(YEAR, 0.05),
    "by day": np.where(OF_DAY < 8, 0.02, 0.999),
    "by day of work": np.where((OF_DAY < 8) | (OF_DAY >= 18) | (OF_WEEK >= 120), 0.0, 0.98),
    "once a day": np.where(OF_DAY == 3, 1.0, 0.0),
    "once a week": np.where(OF_WEEK == 3, 1.0, 0.0),
}


def heard(hours: Any) -> tuple[Requests, int]:
    """The ears after requests in these hours, and how many silences between them were alarms."""
    ears, alarms = Requests(), 0
    for hour in hours:
        alarms += ears.silence(int(hour) * HOUR) is not None
        ears.came(int(hour) * HOUR)
    return ears, alarms


def found_after(ears: Requests, last: int) -> int:
    """Hours without a request until it is an alarm."""
    return next(h for h in range(1, 24 * 365) if ears.silence((last + 1 + h) * HOUR) is not None)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("name", "hours"),
    [
        ("always", 3),
        ("mostly", 8),
        ("half", 20),
        ("seldom", 300),
        ("by day", 14),
        ("by day of work", 100),
        ("once a day", 48),
        ("once a week", 340),
    ],
)
def test_a_year_as_it_always_was_has_hardly_an_alarm_and_an_outage_has_one_soon(name: str, hours: int) -> None:
    rng, alarms, delays = np.random.default_rng(0), 0, []
    for _ in range(30):
        came = np.flatnonzero(rng.random(YEAR) < PATTERNS[name])
        ears, more = heard(came)
        alarms += more
        delays.append(found_after(ears, int(came[-1])))
    assert np.median(delays) <= hours
    assert alarms <= 7, "a tenth a year is expected at most, 3 of 30; 7 are beyond its 98 %"


@pytest.mark.simulation
def test_either_half_of_the_rule_alone_cries_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decision 0017 says of them, in alarms a year of a caller without an outage; together they have a tenth."""

    def a_year(chance: Any) -> float:
        rng = np.random.default_rng(0)
        return float(np.mean([heard(np.flatnonzero(rng.random(YEAR) < chance))[1] for _ in range(10)]))

    by_chance = {share: np.full(YEAR, share) for share in (0.02, 0.3, 0.7)}
    with monkeypatch.context() as longest_alone:
        longest_alone.setattr(silence_module, "RISK", 1.0)
        longest_alone.setattr(silence_module, "SLACK", 1.0)
        found_ = {share: a_year(chance) for share, chance in by_chance.items()}
    assert all(3 <= alarms <= 8 for alarms in found_.values())
    with monkeypatch.context() as chance_alone:
        chance_alone.setattr(silence_module, "SLACK", 0)
        chance_alone.setattr(silence_module, "MANY", np.inf)
        assert 45 <= a_year(PATTERNS["by day of work"]) <= 53, "one every week-end"


def test_an_outage_does_not_teach_but_a_habit_does() -> None:
    day = [h for h in range(24 * 30) if h % 24 >= 6]
    assert found_after(heard(day)[0], day[-1]) == 9
    outage = [h for h in day if not 480 <= h < 480 + 60]
    ears, alarms = heard(outage)
    assert (alarms, found_after(ears, outage[-1])) == (1, 10), "the outage was an alarm, and the next is found an hour later"
    twice = [h for h in outage if not 600 <= h < 600 + 60]
    ears, alarms = heard(twice)
    assert alarms == 2
    assert found_after(ears, twice[-1]) > 60


def test_nothing_is_known_in_the_first_week_and_a_clock_that_jumps_back_changes_nothing() -> None:
    ears = Requests()
    assert ears.silence(10 * DAY) is None
    ears.came(0)
    assert ears.silence(300 * DAY) is None
    ears, _ = heard(range(150))
    assert ears.silence(400 * HOUR) is None
    ears, _ = heard(range(200))
    ears.came(20 * HOUR)
    told = ears.silence(210 * HOUR)
    assert told is not None
    assert (told.decision, told.evidence[0].effect, told.evidence[0].n) == (Decision.FAIL, 10.0, 200)
    assert told.reason == (
        "no request since 1970-01-09 08:00, for 10h; the longest time without one was 0s, and of 200 hours 200 had some"
    )


@pytest.mark.parametrize(("share", "least"), [(1.0, 50), (0.5, 50), (0.1, 110), (0.01, 1146)])
def test_labels_are_missed_when_so_many_old_answers_without_one_are_rare(share: float, least: int) -> None:
    """n answers have no label by chance with (1 - share)^n; 10⁻⁵ is asked, and 50 answers."""
    ears = Labels(arrive_within=2 * HOUR)
    for minute in range(0, 20_000, 10):
        ears.answered(10, minute * HOUR // 60, 0)
        ears.came(round(10 * share) if share >= 0.1 else minute % 100 == 0, minute * HOUR // 60)
    begun, n = 20_000 * HOUR // 60, 0
    while n < 5000 and not any(ears.silence(begun + n * HOUR // 60 + 3 * HOUR + look) for look in (0, 1)):
        ears.answered(10, begun + n * HOUR // 60, 0)
        n += 10
    # An answer is old when what was given with it (a 64th of the time) is.
    assert least <= n <= 1.1 * least + 60


def test_labels_come_in_their_time_a_batch_a_day_and_never() -> None:
    ears = Labels(arrive_within=DAY)
    for hour in range(24 * 20):
        ears.answered(100, hour * HOUR, hour * HOUR)
        if hour % 24 == 6:
            ears.came(2400, hour * HOUR)
        assert ears.silence(hour * HOUR) is None, "a day's labels, six hours late, are within half as long again"
    told = next(t for hour in range(480, 600) if (t := ears.silence(hour * HOUR)) is not None)
    assert "no label has come since 1970-01-20 06:00" in told.reason
    never = Labels(arrive_within=HOUR)
    never.answered(49, 0, 0)
    assert [never.silence(DAY + look) for look in range(3)] == [None] * 3, "49 are too few to tell"
    never.answered(1, 10, 2 * DAY)
    assert [never.silence(2 * DAY + look) for look in range(3)] == [None] * 3, "the row is of the day after tomorrow"
    assert never.silence(3 * DAY) is None, "what came between two looks may be on its way"
    told = never.silence(3 * DAY + 1)  # type: ignore[assignment]
    assert told.reason == "no label has come ever, though 50 answers are of rows older than 1h 30m"
    never.came(1, 4 * DAY)
    assert [never.silence(5 * DAY + look) for look in range(3)] == [None] * 3


def test_memory_is_bounded_whatever_comes() -> None:
    ears = Labels(arrive_within=DAY)
    for second in range(0, 3 * 86_400, 20):
        ears.answered(1, second * HOUR // 3600, 0)
        ears.came(1, second * HOUR // 3600)
    assert len(ears._young) <= 110


def silence(what: str) -> Cause:
    return Cause("silence", f"silence: {what}", Verdict(Decision.FAIL, what, "nothing comes", (Evidence("counted", 1.0, n=1),)))


def test_a_silence_pages_whatever_the_budget_and_lasts_until_it_is_over() -> None:
    alerts = Alerts(MonitorSettings(budget=1))
    performance = Cause("performance", "performance", silence("x").verdict)
    window = WindowJudged(0, DAY, 0, 100, (performance,), {}, "worse")
    first = alerts.events((window,), 0)
    assert [e.data["cause"] for e in first] == ["performance"]
    both = [silence("requests"), silence("labels")]
    told = alerts.by_clock(both, 1, "world/1")
    assert [(e.kind, e.data["cause"], e.data["alarm"]) for e in told] == [
        ("alarm_raised", "silence: requests", "silence"),
        ("alarm_raised", "silence: labels", "silence"),
    ]
    calm = WindowJudged(DAY, 2 * DAY, 0, 100, (performance,), {}, "as before")
    assert (alerts.by_clock(both, 2), alerts.events((calm,) * 9, 2)) == ((), ()), "it is told once, and no window ends it"
    champion = {str(e.data["cause"]): e.data for e in (*first, *told)}
    ended = [e.data["cause"] for e in alerts.reset(champion, 3)]
    assert ended == ["performance"], "another champion hears no more than the last"
    (over,) = alerts.by_clock([silence("labels")], 4)
    assert (over.kind, over.data["cause"]) == ("alarm_cleared", "silence: requests")


def named(rows: pl.DataFrame, hour: int, at: int = 0) -> pl.DataFrame:
    """The same rows as others', of that hour."""
    return rows.with_columns(pl.format("{}-{}", pl.lit(hour), "id").alias("id"), at=pl.lit(at).cast(pl.Datetime("us")))


def test_a_server_that_nobody_asks_or_labels_pages_and_goes_on_when_they_do(table: pl.DataFrame, tmp_path: Path) -> None:
    asked = table.drop("y").tail(40)
    with closing(SegmentWriter(tmp_path)) as log:
        stores = replace(memory_stores("world"), traffic=log)

        def start(now: int) -> Live:
            live = Live(make_app(table, stage="manual").system, stores, DataClock(now), key=b"key")
            reopen(live)
            return live

        def hours(live: Live, since: int, until: int, *, rows: bool, labels: bool) -> list[tuple[str, str]]:
            before = len(list(stores.ledger.read()))
            for hour in range(since, until):
                live.clock.advance(SINCE + hour * HOUR)  # type: ignore[attr-defined]
                if rows:
                    live.answer(named(asked, hour, live.clock.now()))
                if labels and hour >= 2:
                    live.feedback(named(table.tail(40).select("id", "y"), hour - 2).drop("at"))
                live.tick()
            events = [r.event for r in stores.ledger.read()][before:]
            return [(e.kind, str(e.data["cause"])) for e in events if str(e.data.get("cause", "")).startswith("silence")]

        live = start(SINCE)
        assert not found(live, table.filter(pl.col("at").dt.epoch("us") < SINCE))
        live.retrain("first training", "there is no model yet")
        assert hours(live, 0, 200, rows=True, labels=True) == []
        assert hours(live, 200, 250, rows=True, labels=False) == [("alarm_raised", "silence: labels")]
        assert hours(live, 250, 260, rows=False, labels=False) == [("alarm_raised", "silence: requests")]
        log.flush()
        again = start(SINCE + 260 * HOUR)
        catch_up(again, tmp_path)
        for one in (live, again):
            assert one.state.alarms.keys() >= {"silence: labels", "silence: requests"}
        heard = LiveFront(again).status()["heard"]
        assert heard == {"request": iso(SINCE + 249 * HOUR), "label": iso(SINCE + 199 * HOUR)}
        assert hours(again, 261, 264, rows=False, labels=False) == [], (
            "who was away hears what it heard, and says it no second time"
        )
        assert sorted(hours(again, 264, 268, rows=True, labels=True)) == [
            ("alarm_cleared", "silence: labels"),
            ("alarm_cleared", "silence: requests"),
        ]
