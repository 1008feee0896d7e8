"""`loudly demo`: a year of flights round the whole wheel; prints what happened and why, and writes a page with plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loudly.core.clock import instant, stopwatch
from loudly.demo import nycflights
from loudly.demo.jobs import BAD, END, POLICIES, REHEARSALS, Job, run_job
from loudly.store.executors import Processes
from loudly.validate.leakage import find_leaks
from loudly.validate.schema import infer_schema
from loudly.web.page import render

WORSE = 0.01
# The dearest first, so that two processes end together.
ORDER = ("fortnight", "stateless", "stateful", "bad_gate", "bad_canary", "never", "celsius", "gone", "nulls")
SHORT = ("stateless", "never", "celsius")


def run_demo(folder: Path, *, short: bool = False, console: Console | None = None) -> dict[str, Any]:
    """Runs all replays on two processes, prints the figures (with a console) and writes `index.html` and `figures.json`."""
    begun = stopwatch()
    if console is not None:
        console.print("A year of flights from New York, 2013. Is a flight more than 15 minutes late?")
    leaks = _leaks()
    until, mirrored = instant("2013-05-01") if short else END, {"stateless": folder}
    jobs = [Job(key, until, mirrored.get(key)) for key in (SHORT if short else ORDER)]
    made = _run(jobs)
    figures: dict[str, Any] = {
        "leaks": leaks,
        "policies": {key: {"name": name, **made[key]} for key, name in POLICIES.items() if key in made},
        "rehearsals": {key: {"name": name, **made[key]} for key, name in REHEARSALS.items() if key in made},
        "bad": {key: {"name": name, **made[key]} for key, name in BAD.items() if key in made},
    }
    _compare(figures["policies"])
    figures["seconds"] = stopwatch() - begun
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1, sort_keys=True))
    (folder / "index.html").write_text(render(figures))
    if console is not None:
        tell(figures, console)
        console.print(f"\nThe page: {folder / 'index.html'}")
    return figures


def tell(figures: dict[str, Any], console: Console) -> None:
    """Prints the figures."""
    console.print("\n[bold]Leakage[/] in the table as published (each would make a model brilliant on paper and useless):")
    for line in figures["leaks"]:
        console.print(f"  {line}", markup=False)
    console.print("\n[bold]Four policies[/], March to December, labels one day late:")
    console.print(_policies(figures["policies"]))
    story = figures["policies"].get("stateless", {}).get("story", ())
    console.print("\n[bold]What loudly did and why[/] (stateless):")
    for line in story[:14]:
        console.print(f"  {line[:200]}", markup=False)
    console.print("\n[bold]Rehearsals[/]: each named, none retrained on")
    for one in figures["rehearsals"].values():
        console.print(f"  {one['name']}: {one['first'] or 'NOT NAMED'}: {'; '.join(one['named'])}", markup=False)
        console.print(f"      refits on it: {one['refits_on_it']}; held: {len(one['held'])} times", markup=False)
    if figures["bad"]:
        console.print("\n[bold]A bad candidate[/] that passes on the mean:")
    for one in figures["bad"].values():
        console.print(f"  {one['name']}", markup=False)
        stopped = f"stopped by {one['stopped_by']} after {one['answers']:,} answers"
        console.print(f"      {stopped}: {one['reason'][:220]}", markup=False)
    console.print("\n[bold]MLflow[/] reads the same runs:")
    console.print(f"  {figures['policies'].get('stateless', {}).get('mirrored', 'no')}", markup=False)
    console.print("\n[bold]Why does the champion answer?[/]")
    for line in figures["policies"].get("stateless", {}).get("why", ()):
        console.print(f"  {line[:200]}", markup=False)


def _policies(policies: dict[str, Any]) -> Table:
    table = Table("policy", "mean AUC", "refits", "alarms", "worse rows", "to recover", "fit+predict s", "wheel s")
    for one in policies.values():
        table.add_row(
            one["name"],
            f"{one['mean']:.4f}",
            str(len(one["refits"])),
            str(len(one["alarms"])),
            f"{one['worse_rows']:,}",
            f"{one['recovery_days']} d",
            f"{one['model']:.1f}",
            f"{one['wheel']:.1f}",
        )
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _compare(policies: dict[str, Any]) -> None:
    """Rows of weeks in which a policy was more than 0.01 AUC below refitting every two weeks, and the longest such stretch."""
    yardstick = policies.get("fortnight", policies.get("stateless"))
    assert yardstick is not None
    for one in policies.values():
        rows = run = longest = 0
        for week, (auc, count) in one["weeks"].items():
            best = yardstick["weeks"].get(week, [None])[0]
            worse = auc is not None and best is not None and auc < best - WORSE
            rows += count if worse else 0
            run = run + 7 if worse else 0
            longest = max(longest, run)
        one["worse_rows"], one["recovery_days"] = rows, longest


def _run(jobs: list[Job]) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    made = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("replaying", total=len(jobs))
        for job, result in Processes(2).each(run_job, jobs):
            made[job.key] = result
            progress.update(task, advance=1, description=f"done: {job.key}")
    return made


def _leaks() -> list[str]:
    """What the leakage check says of the flights as published."""
    table = nycflights.raw()
    judged = ["year", "month", "day", "flight_id", "scheduled", "late", "tailnum"]
    schema = infer_schema(table, label="late", time="scheduled", key="flight_id", ignored=["year", "month", "day", "tailnum"])
    assert set(judged) <= set(table.columns)
    return [v.reason for v in find_leaks(table, schema, label="late", time="scheduled")]
