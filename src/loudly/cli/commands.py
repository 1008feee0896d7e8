"""What the commands print: tables for people, one JSON document for programs; exit codes 0 yes, 1 no, 3 not yet."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from loudly.app import operate, returning, verbs
from loudly.app.doctor import examine
from loudly.app.export import Exporting
from loudly.app.export import export as write
from loudly.app.feedback import feedback as send_labels
from loudly.app.project import load_app, load_apps, make_project
from loudly.app.server import run_server
from loudly.app.workers import run_workers
from loudly.config import read_config
from loudly.core.clock import duration, iso
from loudly.core.late import late
from loudly.core.values import Decision, Evidence, Verdict, plain
from loudly.data.read import read_table
from loudly.errors import ConfigError, LoudlyError
from loudly.loop.plan import explain, step_data
from loudly.loop.replay import monthly
from loudly.loop.tell import tell
from loudly.loop.tuning import Tuning
from loudly.loop.why import standing
from loudly.plugins import resolve
from loudly.store.segments import being_written

wheel = late("loudly.demo.wheel")
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
EXIT = {Decision.PASS: 0, Decision.FAIL: 1, Decision.UNDECIDED: 3}
LAST = 8


def say(data: Any, as_json: bool, text: Callable[[], None]) -> None:
    """One JSON document, or text."""
    if as_json:
        print(json.dumps(data, indent=2, sort_keys=True))
    else:
        text()


def lines(texts: Iterable[str]) -> None:
    """One line each."""
    for text in texts:
        out.print(text, markup=False)


def leave(verdict: Verdict) -> None:
    """Ends with the exit code of a verdict."""
    raise SystemExit(EXIT[verdict.decision])


def bar(hidden: bool = False) -> Progress:
    """A progress bar with time spent and left, on standard error where that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=hidden or not console.is_terminal)


def init(folder: Path, as_json: bool) -> None:
    made = make_project(folder)
    where = "" if folder == Path() else f"cd {folder} && "

    def text() -> None:
        for path in made:
            out.print(f"made {path}")
        out.print(f"next: {where}loudly train && loudly ship && loudly serve")

    say({"made": [str(p) for p in made]}, as_json, text)


def train(file: Path, tune: bool, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        before = verbs.status(opened).position
        with bar(hidden=as_json) as progress:
            task = progress.add_task("training", total=None)

            def tell_progress(what: str, done: int, total: int | None) -> None:
                progress.update(task, description=what, completed=done, total=total)

            try:
                version = verbs.train(app.system, opened, tuning=Tuning(tune, tell_progress))
            except LoudlyError:
                told = [tell(r.event) for r in opened[0].ledger.read(before)]
                lines(line for line in told if line.startswith("LOUD") and not as_json)
                raise
        new = [r.event for r in opened[0].ledger.read(before)]
    gate = next(e for e in reversed(new) if e.kind == "gate_judged").data["verdict"]
    assert isinstance(gate, dict)
    data = {"version": version, "gate": gate, "events": [tell(e) for e in new]}
    say(data, as_json, lambda: lines(tell(e) for e in new))
    raise SystemExit(EXIT[Decision(str(gate["decision"]))])


def ship(file: Path, version: str | None, beside: list[str], as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        before = verbs.status(opened).position
        gate = verbs.ship(app.system, opened, version, beside)
        new = [tell(r.event) for r in opened[0].ledger.read(before)]
    refused = [] if gate.passed else [f"refused by the gate: {gate.decision} {gate.reason}"]
    say({"gate": plain(gate), "events": new}, as_json, lambda: lines((*refused, *new)))
    leave(gate)


def serve(files: list[Path], host: str | None, port: int | None, on_ray: bool, workers: int | None) -> None:
    file, apps = files[0], load_apps(files)
    app = apps[0]
    count = workers if workers is not None else read_config(app.folder).server.workers
    if (on_ray or count > 1) and len(files) > 1:
        told = "Ray Serve and workers take one file."
        raise ConfigError(told, seen=", ".join(map(str, files)), do="Serve each by a command of its own.")
    if count < 1:
        raise ConfigError("--workers wants at least one process.", seen=str(count))
    if on_ray:
        config = read_config(app.folder)
        doors = config.executor.workers
        resolve("server", "ray")(str(file), host or config.server.host, port or config.server.port, doors)
        return
    if count > 1:
        run_workers(file, app, host, port, count)
    else:
        run_server(apps, host, port)


def feedback(file: Path, labels: Path, as_json: bool) -> None:
    app = load_app(file)
    made = send_labels(app.system, app.folder, read_table(labels))
    told = [f"{made['joined']:,} labels joined, {made['unknown']:,} unknown"]
    if made["unknown"]:
        told.append("unknown: no logged answer with that key waits for its label; `loudly status` shows some of the keys")
    if made["repeated"]:
        told.append(f"{made['repeated']:,} repeated, of which {made['changed']:,} say otherwise: the first label of a key counts")
    if made["strange"]:
        told.append(
            f"LOUD {made['strange']:,} labels set aside, of values that the champion does not know: `loudly status` shows some"
        )
    if made["spooled"]:
        told = [f"{made['spooled']:,} labels wait for the server: it joins them at its next tick, or start; `loudly status` tells"]
    say(made, as_json, lambda: lines(told))
    raise SystemExit(3 if made["spooled"] else 0 if made["joined"] else 1)


def ope(file: Path, policies: list[str], rollout: int | None, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened, bar(hidden=as_json) as progress:
        task = progress.add_task("reading the traffic log", total=None)
        told = operate.ope(app.system, opened, policies, rollout, lambda rows: progress.update(task, completed=rows))

    def text() -> None:
        arms = ", ".join(f"{arm.name} {arm.version}" for arm in told.arms)
        out.print(f"rollout {told.rollout}: {arms}; {told.labelled:,} of {told.answered:,} answers have a label", markup=False)
        if told.left_out:
            out.print(f"{told.left_out:,} of these were not chosen by chance; weights leave them out", markup=False)
        table = Table("policy", "method", "reward", "95 %", "rows", "worth")
        for policy, found in (("as it was", told.earned), *((p.policy, e) for p in told.policies for e in p.evidence)):
            worth = found.detail.get("effective")
            table.add_row(policy, found.method, number(found.effect), between(found), f"{found.n:,}", number(worth, 0))
        out.print(table)
        lines((*told.warnings, *(f"{p.policy}: {warning}" for p in told.policies for warning in p.warnings)))

    say(plain(told), as_json, text)


def number(value: Any, digits: int = 4) -> str:
    """A number as a table shows it."""
    return "-" if value is None else f"{value:,.{digits}f}"


def between(found: Evidence) -> str:
    """The interval of evidence as a table shows it."""
    return f"[{number(found.low)}, {number(found.high)}]"


def replay(file: Path, since: str | None, until: str | None, step: str, as_json: bool) -> None:
    app = load_app(file)
    with bar() as progress:
        task = progress.add_task("replaying", total=None)
        made = verbs.replay(
            app.system,
            since=since,
            until=until,
            step=duration(step),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    months = monthly(made) if made.answers.height else {}
    told = [(iso(r.event.at), r.event.kind, tell(r.event)) for r in made.events if r.event.kind != "window_judged"]
    data = {"refits": made.refits, "champion": made.state.champion, "metric": months, "events": [t for *_, t in told]}

    def text() -> None:
        for at, _, line in told:
            out.print(f"{at}  {line}", markup=False)
        table = Table("month", app.system.metric)
        for month, value in months.items():
            table.add_row(month, "-" if value is None else f"{value:.4f}")
        out.print(table)
        out.print(f"{made.answers.height:,} answers, {made.refits} refits, champion {made.state.champion}")
        if made.state.champion is None:
            out.print("LOUD no version has passed its gate, so nobody answered: the reasons stand above", markup=False)
            if made.blocked:
                out.print(f"     {verbs.mending(made.blocked)}", markup=False)

    say(data, as_json, text)
    raise SystemExit(1 if made.blocked or made.state.champion is None else 0)


def plan(file: Path, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        made = verbs.plan(app.system, opened)
    told = explain(made)
    data = {"at": iso(made.at), "steps": [step_data(s) for s in made.steps], "lines": list(told)}
    say(data, as_json, lambda: lines(told))


def apply(file: Path, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        before = verbs.status(opened).position
        made = verbs.apply(app.system, opened)
        done = [tell(r.event) for r in opened[0].ledger.read(before)]
    told = [*explain(made), *done]
    say({"steps": [step_data(s) for s in made.steps], "events": done}, as_json, lambda: lines(told))


def status(file: Path, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        state, last = verbs.status(opened), verbs.events(opened)[-LAST:]
        past = returning.told(state.catching_up, being_written(opened[1].root / "traffic"))
    rows = [
        (v.ref, standing(state, v.ref), iso(v.at), f"{state.trained_rows[v.ref]:,}", state.expects(v.ref, app.system.metric))
        for v in state.versions.values()
    ]
    data = {
        "champion": state.champion,
        "rollout": state.rollout.version if state.rollout else None,
        "beside": list(state.rollout.others) if state.rollout else [],
        "strategy": state.rollout.strategy if state.rollout else None,
        "alarms": {cause: alarm["reason"] for cause, alarm in state.alarms.items()},
        "held_back": dict(state.held),
        "versions": [{"version": r[0], "standing": r[1], "fitted": r[2], "expected": r[4]} for r in rows],
        "killed": state.killed,
        "catching_up": past or None,
    }

    def text() -> None:
        table = Table("version", "standing", "registered", "rows", f"expected {app.system.metric}")
        for ref, stands, at, count, expected in rows:
            table.add_row(ref, stands, at, count, "-" if expected is None else f"{expected:.4f}")
        out.print(table if rows else "no version yet: run `loudly train`")
        if past:
            out.print(past, markup=False)
        for cause, alarm in state.alarms.items():
            out.print(f"ALARM {cause} since {iso(alarm['at'])}: {alarm['reason']}")
        if state.held:
            told = ", ".join(f"{cause} ({why})" for cause, why in sorted(state.held.items()))
            out.print(f"LOUD {len(state.held)} alarms held back: {told}", markup=False)
        for recorded in last:
            out.print(f"{recorded.position:>5}  {iso(recorded.event.at)}  {tell(recorded.event)}", markup=False)

    say(data, as_json, text)
    raise SystemExit(0 if state.champion else 3)


def why(file: Path, version: str | None, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        record = verbs.why(opened, version)
    say(plain(record), as_json, lambda: lines(record.lines()))


def rollback(file: Path, reason: str, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        champion = verbs.rollback(app.system, opened, reason)
    say({"champion": champion}, as_json, lambda: out.print(f"{champion} answers everything"))


def kill(file: Path, reason: str, on: bool, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        verbs.kill(app.system, opened, reason, on)
    say({"killed": on}, as_json, lambda: out.print(f"kill switch {'on' if on else 'off'}"))


def predict(file: Path, files: str, target: Path, version: str | None, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened, bar(hidden=as_json) as progress:
        task = progress.add_task("answering", total=None)

        def tell_progress(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        made = operate.predict(app.system, opened, files, target, version, tell_progress)
    told = [f"{made.rows:,} rows answered by {made.version}: {made.files[0]}"]
    told += [f"each prediction scores {', '.join(made.classes)}, in this order"] if made.classes else []
    told += [f"LOUD {made.aside:,} rows set aside, with reasons: {made.files[1]}"] if made.aside else []
    told += [f"LOUD {made.fallbacks:,} rows answered by the fallback: the model failed on them"] if made.fallbacks else []
    say(plain(made), as_json, lambda: lines(told))
    raise SystemExit(0 if made.rows else 1)


def export(file: Path, kind: str, folder: Path, image: str, replicas: int, as_json: bool) -> None:
    app = load_app(file)
    made = write(kind, Exporting(app.name, file.resolve(), read_config(app.folder), image, replicas), folder.resolve())
    say({"made": [str(p) for p in made]}, as_json, lambda: lines(f"made {p}" for p in made))


def forget(file: Path, key: str, reason: str, hidden: bool, purge: bool, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        before = verbs.status(opened).position
        wish, erased = operate.forget(app.system, opened, key, reason, hidden=hidden, purge=purge)
        new = [tell(r.event) for r in opened[0].ledger.read(before)]
    whose = "a server writes the traffic log, or the next one takes over what a killed one left in spools"
    later = [] if erased else [f"{whose}: it erases at its next tick; `loudly status` tells when it has"]
    chained = [f"LOUD ledger event {at} names the key itself; the chain keeps it" for at in wish.named]
    data = {**plain(wish), "erased": [plain(e) for e in erased], "events": new}
    say(data, as_json, lambda: lines((*new, *later, *chained)))
    raise SystemExit(0 if erased else 3)


def mirror(file: Path, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        made = verbs.mirror(opened)
    told = f"{made.runs} runs and {made.versions} versions mirrored, champion {made.champion}"
    say(plain(made), as_json, lambda: out.print(told))


def doctor(file: Path, as_json: bool) -> None:
    app = load_app(file)
    with verbs.using_stores(app.name, app.folder) as opened:
        found = examine(opened)
    bad = [v for v in found if v.failed]

    def text() -> None:
        for verdict in found:
            out.print(f"{verdict.decision:<9}  {verdict.subject}: {verdict.reason}")

    say([plain(v) for v in found], as_json, text)
    raise SystemExit(1 if bad else 0)


def demo(folder: Path, short: bool, as_json: bool) -> None:
    figures = wheel.run_demo(folder, short=short, console=out if not as_json else None)
    if as_json:
        print(json.dumps(figures, indent=2, sort_keys=True))
