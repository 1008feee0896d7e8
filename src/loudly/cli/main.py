"""`loudly`: what you type. Every command prints a table or, with --json, one JSON document.

Exit codes: 0 yes, 1 no, 3 not yet. The commands come late, so that `loudly --help` is quick.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from loudly.core.late import late
from loudly.errors import LoudlyError

commands = late("loudly.cli.commands")
app = typer.Typer(
    name="loudly",
    help="The whole wheel of machine learning in production, where nothing fails in silence.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

File = Annotated[Path, typer.Option("--file", "-f", help="Your Python file with the App.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Version = Annotated[str | None, typer.Argument(help="A version, e.g. flights/3 or 3; by default the newest or the champion.")]
APP = Path("app.py")
# What imports make stays: to look through all of it again and again would only make them slower.
COLLECT = (50_000, 20, 50)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to make the project.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a project that works: app.py, loudly.toml and a small table."""
    commands.init(folder, as_json)


@app.command()
def train(
    file: File = APP,
    tune: Annotated[bool, typer.Option("--tune", help="Search for parameters again, beginning with the champion's.")] = False,
    as_json: AsJson = False,
) -> None:
    """Version the data, judge it, fit, evaluate, gate and register a candidate."""
    commands.train(file, tune, as_json)


@app.command()
def ship(
    version: Version = None,
    beside: Annotated[list[str] | None, typer.Option("--beside", help="A further candidate; may be said again.")] = None,
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """Start the rollout of a version, or make it champion where there is none."""
    commands.ship(file, version, beside or [], as_json)


@app.command()
def serve(
    files: Annotated[list[Path] | None, typer.Argument(help="Several files: each model under /models/NAME.")] = None,
    file: File = APP,
    host: Annotated[str | None, typer.Option(help="Address; from loudly.toml by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; from loudly.toml by default.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer; from loudly.toml by default.")] = None,
    on_ray: Annotated[bool, typer.Option("--ray", help="Behind Ray Serve: many doors, one wheel.")] = False,
) -> None:
    """Answer POST /predict and /feedback over HTTP; judge, alarm, roll out and retrain by the policy."""
    commands.serve(files or [file], host, port, on_ray, workers)


@app.command()
def feedback(
    labels: Annotated[Path, typer.Argument(help="A table (csv, parquet, jsonl) with the key and label columns.")],
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """Hand late labels to the running server (exit code 3: not joined yet), or join them where none runs."""
    commands.feedback(file, labels, as_json)


@app.command()
def ope(
    policies: Annotated[
        list[str] | None,
        typer.Argument(
            help='An arm or version (candidate, 3), shares ("80% 20%"), a bandit ("thompson for 14d"); each arm by default.'
        ),
    ] = None,
    rollout: Annotated[int | None, typer.Option(help="Where it started in the ledger; the newest by default.")] = None,
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """Off-policy evaluation: what another arm, share, bandit or version would have earned on a rollout's traffic."""
    commands.ope(file, policies or [], rollout, as_json)


@app.command()
def replay(
    file: File = APP,
    since: Annotated[str | None, typer.Option(help="Train on rows before this date, replay from it on.")] = None,
    until: Annotated[str | None, typer.Option(help="Replay up to this date.")] = None,
    step: Annotated[str, typer.Option(help="How far the clock moves at once.")] = "1d",
    as_json: AsJson = False,
) -> None:
    """Push history through the live code on its own clock, in memory: a rehearsal of the whole policy."""
    commands.replay(file, since, until, step, as_json)


@app.command()
def plan(file: File = APP, as_json: AsJson = False) -> None:
    """Show what the policy would do now, and why."""
    commands.plan(file, as_json)


@app.command()
def apply(file: File = APP, as_json: AsJson = False) -> None:
    """Do what `loudly plan` shows."""
    commands.apply(file, as_json)


@app.command()
def status(file: File = APP, as_json: AsJson = False) -> None:
    """Champion, rollout, alarms and the last decisions."""
    commands.status(file, as_json)


@app.command()
def why(version: Version = None, file: File = APP, as_json: AsJson = False) -> None:
    """The decision record of a version: evidence, run, gate, rollout, verdict."""
    commands.why(file, version, as_json)


@app.command()
def rollback(
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")],
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """End a running rollout, or give the traffic back to the champion before."""
    commands.rollback(file, reason, as_json)


@app.command()
def kill(
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger.")],
    off: Annotated[bool, typer.Option("--off", help="Release the switch.")] = False,
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """The kill switch: no retraining and no promotion until it is released."""
    commands.kill(file, reason, not off, as_json)


@app.command()
def predict(
    files: Annotated[str, typer.Argument(help="A Parquet file, a glob, or a folder of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the answers go; rows set aside go beside it.")],
    version: Annotated[str | None, typer.Option(help="Who answers; the champion by default.")] = None,
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """Answer the rows of Parquet files, row group by row group, as the server would."""
    commands.predict(file, files, out, version, as_json)


@app.command()
def export(
    kind: Annotated[str, typer.Argument(help="docker, kubernetes or kserve.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that the files go into.")],
    image: Annotated[str, typer.Option(help="The name of your image; manifests need it.")] = "",
    replicas: Annotated[int, typer.Option(help="At most so many pods; more than one needs shared stores.")] = 1,
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """Write a Dockerfile, Kubernetes manifests or a KServe InferenceService for the project."""
    commands.export(file, kind, out, image, replicas, as_json)


@app.command()
def forget(
    key: Annotated[str, typer.Argument(help="A key, or a value of a private column.")],
    reason: Annotated[str, typer.Option(help="Why; it goes into the ledger, the key does not.")],
    pseudonym: Annotated[bool, typer.Option("--pseudonym", help="What is given is the pseudonym already.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Delete old training data that holds the subject, too.")] = False,
    file: File = APP,
    as_json: AsJson = False,
) -> None:
    """Erase a subject from traffic and from the newest dataset; name the versions that saw it and what stays."""
    commands.forget(file, key, reason, pseudonym, purge, as_json)


@app.command()
def mirror(file: File = APP, as_json: AsJson = False) -> None:
    """Make MLflow's runs, versions and alias anew from the ledger."""
    commands.mirror(file, as_json)


@app.command()
def doctor(file: File = APP, as_json: AsJson = False) -> None:
    """Verify the hash chain, every stored byte the ledger names, and the set-up."""
    commands.doctor(file, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the page and the figures go.")] = Path("out/demo"),
    short: Annotated[bool, typer.Option("--short", help="Three months and two policies only.")] = False,
    as_json: AsJson = False,
) -> None:
    """A year of real flights round the whole wheel, four policies side by side, and the rehearsals."""
    commands.demo(out, short, as_json)


def main() -> None:
    """The entry point: errors of ours are three lines, not a traceback."""
    gc.set_threshold(*COLLECT)
    try:
        app()
    except LoudlyError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except OSError as error:  # of files that a command was given, or that the stores are in
        where = f"\n  Seen: {error.filename}" if error.filename else ""
        print(f"error: The system refuses: {error.strerror or error}{where}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
