"""A rollout in real processes: `kill -9` in the middle of it, and a ramp over several workers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from command_line import ROW, Project  # noqa: E402
from loudly.loop.calls import CALLS, Entry, told_of  # noqa: E402
from loudly.stats.arm_process import ArmProcess  # noqa: E402
from under_load import OF_PROCESSES, Load, Site, serving  # noqa: E402
from waiting import PATIENCE, until  # noqa: E402

pytestmark = OF_PROCESSES
# The single process writes its log within 5 ms of an answer; a machine that is busy with other tests is given this many seconds.
WRITTEN = 1.0
ODD = '''
@app.feature
def odd(income):
    """Raises where a client says so; else it is the income. The first version does not know it."""
    if (income == -2).any():
        raise RuntimeError("out of order")
    return income


app.labels('''
# Failed units of the candidate, of none of control, that are enough where it answers half: at half of an alpha of 5 %.
ENOUGH = next(n for n in range(1, 50) if ArmProcess().add(n, 0, 0.5).worse(0.025, 0.5))


@pytest.fixture(scope="module")
def offered(shipped: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A champion, and a second version that raises where it is told to, trained and not yet shipped."""
    made = shipped.copy(tmp_path_factory.mktemp("offered"))
    made.edit("app.py", "app.labels(", ODD.lstrip("\n"))
    made.edit("app.py", '"shadow 1d", "canary 5% 25% 100%"', '"ab 50% for 30d ramped 40% 100% every 8s"')
    made.edit("loudly.toml", "[server]", "[server]\ntick = 0.2")
    assert made.run("train").returncode == 0
    return made


def ask(client: Any, units: list[str], income: float = 30_000.0) -> list[dict[str, Any]]:
    """What each unit of one call is answered."""
    answer = client.post("/predict", json=[{**ROW, "loan_id": unit, "income": income} for unit in units])
    assert answer.status_code == 200
    return list(answer.json()["answers"])


def entries(site: Site) -> list[Entry]:
    """What the log says that the rollout was told, in order."""
    return [entry for payload in site.records(CALLS) for entry in told_of(payload).entries]


def counted(told: list[Entry]) -> tuple[Counter[str], Counter[str]]:
    """Answers of each arm, and its units that failed, each once."""
    calls = [entry for entry in told if isinstance(entry, tuple)]
    failed = {call[1] for call in calls if call[1] is not None}
    answered: Counter[str] = Counter()
    for call in calls:
        answered.update(call[0])
    return answered, Counter(arm for _, arm in failed)


def grown(site: Site) -> bool:
    return len(site.events("share_grown")) == 1


def ticked(site: Site) -> None:
    """The wheel has told the time twice more, and so has judged whatever was counted before."""

    def times() -> int:
        return sum(isinstance(entry, int) for entry in entries(site))

    before = times()
    until(lambda: times() >= before + 2, "two ticks")


def test_after_a_kill_the_rollout_goes_on_with_all_that_its_guards_had_counted(offered: Project, tmp_path: Path) -> None:
    with ExitStack() as held:
        project = offered.copy(tmp_path / "shipped")
        assert project.run("ship").returncode == 0
        site = held.enter_context(serving(project, tmp_path / "site", 0))
        client = held.enter_context(httpx.Client(base_url=site.url, timeout=PATIENCE))
        until(lambda: grown(site), "all units take part")
        so_far = site.get("/status").json()["verdict"]
        assert so_far["decision"] == "UNDECIDED"
        assert so_far["reason"] == site.get("/analysis/argo").json()["reason"]
        assert "labelled" in so_far["missing"]

        # All units answered, two of the candidate's fail, one of them twice.
        units = [f"u{i}" for i in range(60)]
        arms = {unit: answer["arm"] for unit, answer in zip(units, ask(client, units), strict=True)}
        ours = [unit for unit in units if arms[unit] == "candidate"]
        assert ENOUGH < len(ours) < 60 - ENOUGH
        for unit in (ours[0], ours[1], ours[0]):
            assert ask(client, [unit], income=-2.0)[0]["fallback"]
        until(lambda: counted(entries(site))[1] == {"candidate": 2}, "both are counted")
        with Load(site) as load:
            site.process.kill()
            at = time.monotonic()
            site.process.wait()

        # What was acknowledged is in the log, but for the end of it.
        logged, lost = site.logged(), []
        assert set(units) <= set(logged)
        for name in {key.rsplit("-", 1)[0] for key in load.acknowledged}:
            mine = [key for key in load.acknowledged if key.rsplit("-", 1)[0] == name]
            there = [key in logged for key in mine]
            assert there == sorted(there, reverse=True), "of a client's answers none is lost before one that is kept"
            lost += [key for key, kept in zip(mine, there, strict=True) if not kept]
        assert all(load.when[key] > at - WRITTEN for key in lost)
        assert max(logged[key] for key in load.acknowledged) == 1
        before = entries(site)

        # The state after the restart is what the log tells, and the rollout is where it was.
        events = {kind: site.events(kind) for kind in ("rollout_started", "stage_started", "share_grown")}
        site.start()
        until(lambda: site.get("/status").json()["catching_up"] is None, "the log is folded")
        states = until(lambda: [e for e in entries(site)[len(before) :] if isinstance(e, dict)], "the state of the restart")
        answered, failed = counted(before)
        assert states[0]["evidence"]["answered"] == dict(answered)
        assert {arm: states[0]["evidence"]["errors"][arm] for arm in arms.values()} == {"control": 0, **failed}
        assert states[0]["step"] == 1
        assert {kind: site.events(kind) for kind in events} == events
        control = next(unit for unit in units if arms[unit] == "control")
        assert client.post("/feedback", json={"loan_id": control, "late": True}).json()["joined"] == 1
        assert [answer["arm"] for answer in ask(client, units)] == list(arms.values()), "who met an arm meets it again"

        # Units that failed before are known; as many more as are wanting stop it, and not one fewer.
        for unit in ours[: ENOUGH - 1]:
            ask(client, [unit], income=-2.0)
        until(lambda: counted(entries(site))[1] == {"candidate": ENOUGH - 1}, "they are counted")
        ticked(site)
        assert not site.events("version_rolled_back")
        ask(client, [ours[ENOUGH - 1]], income=-2.0)
        (stopped,) = until(lambda: site.events("version_rolled_back"), "the candidate is rolled back")
        assert f"{ENOUGH} of {ENOUGH} units with failed answers are the candidate's" in stopped["reason"]
        assert {answer["version"] for answer in ask(client, ours)} == {"loans/1"}
        site.stop()
        assert site.project.run("doctor").returncode == 0, "the chain and every stored byte, after all of it"


@pytest.fixture
def doors(offered: Project, tmp_path: Path) -> Iterator[tuple[Site, list[Any]]]:
    """Two workers, and a connection to each."""
    with ExitStack() as held:
        site = held.enter_context(serving(offered, tmp_path / "site", 2))
        found: dict[str, Any] = {}

        def both() -> bool:
            client = held.enter_context(httpx.Client(base_url=site.url, timeout=PATIENCE))
            found.setdefault(client.get("/status").json()["door"], client)
            return len(found) == 2

        until(both, "a connection to each worker")
        yield site, list(found.values())


def test_a_ramp_is_one_for_all_workers_in_its_time_its_arms_and_its_end(doors: tuple[Site, list[Any]]) -> None:
    site, clients = doors
    units = [f"u{i}" for i in range(80)]
    assert site.project.run("ship").returncode == 0, "while they serve"

    def met(share: float) -> list[dict[str, str]]:
        """The arm of each unit at each worker, where both are at this share of the units."""
        told = [ask(client, units) for client in clients]
        chances = {"candidate": share / 2, "control": 1 - share / 2}
        if any(answer["propensity"] != pytest.approx(chances.get(answer["arm"])) for answers in told for answer in answers):
            return []
        return [{unit: answer["arm"] for unit, answer in zip(units, answers, strict=True)} for answers in told]

    one, other = until(lambda: met(0.4), "the first step at both workers")
    assert one == other
    early = {unit for unit, arm in one.items() if arm == "candidate"}
    assert 0 < len(early) < 40
    one, other = until(lambda: met(1.0), "the second step at both workers, by time alone")
    assert one == other
    ours = [unit for unit, arm in one.items() if arm == "candidate"]
    assert early < set(ours), "units only ever enter"
    assert len(site.events("share_grown")) == 1

    # A unit fails at both workers, and is one; others fail at one of them.
    for client in clients:
        ask(client, [ours[0]], income=-2.0)
    for i, unit in enumerate(ours[1 : ENOUGH - 1]):
        ask(clients[i % 2], [unit], income=-2.0)
    until(lambda: counted(entries(site))[1] == {"candidate": ENOUGH - 1}, "they are counted")
    ticked(site)
    assert not site.events("version_rolled_back")
    ask(clients[0], [ours[ENOUGH - 1]], income=-2.0)
    (stopped,) = until(lambda: site.events("version_rolled_back"), "the candidate is rolled back")
    assert f"{ENOUGH} of {ENOUGH} units" in stopped["reason"]
    for client in clients:
        until(lambda c=client: {answer["version"] for answer in ask(c, units)} == {"loans/1"}, "the champion alone, at each worker")
        assert not any(answer["fallback"] for answer in ask(client, ours, income=-2.0))
    site.stop()
