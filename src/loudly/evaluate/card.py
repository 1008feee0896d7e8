"""A model card: what a version is, what it was judged by and how it did, as Markdown.

Source: Mitchell et al. 2019, "Model cards for model reporting".
"""

from __future__ import annotations

from loudly.core.clock import iso
from loudly.core.values import Evidence, ModelVersion, Run, Verdict
from loudly.evaluate.report import Report


def card(version: ModelVersion, run: Run, report: Report, gate: Verdict, fast: Verdict | None = None) -> str:
    """The card of a version; tables align when read as text. fast: what was judged of its fast form, if one was asked for."""
    params = ", ".join(f"{name}={value}" for name, value in sorted(run.params.items())) or "as in the code"
    lines = [
        f"# {version.ref}",
        "",
        f"- task: {report.task}, judged by {report.main} on {report.rows:,} held-out rows, newest first",
        f"- fitted: {iso(version.at)} on {run.rows:,} rows of dataset {run.dataset[:12]}, seed {run.seed}, {params}",
        f"- start: {run.start or 'nothing (stateless)'}",
        f"- artefact: {version.format} {version.model[:12]}, schema {version.schema}",
        f"- gate: {gate.decision}: {gate.reason}",
        *([f"- fast form: {fast.decision}: {fast.reason}"] if fast is not None else []),
        "",
        "## Metrics",
        *_table(report.metrics),
    ]
    if report.slices:
        lines += ["", f"## {report.main} by slice (intervals hold for all together)", *_table(report.slices)]
    if report.calibration:
        lines += ["", "## Calibration", "| mean score | share of positives | interval | rows |", "|---:|---:|---|---:|"]
        lines += [f"| {b.score:.3f} | {b.truth:.3f} | {b.low:.3f} - {b.high:.3f} | {b.n:,} |" for b in report.calibration]
    return "\n".join(lines) + "\n"


def _table(found: tuple[Evidence, ...]) -> list[str]:
    rows = [f"| {e.about:<20} | {_number(e.effect)} | {_number(e.low)} | {_number(e.high)} | {e.n:>8,} |" for e in found]
    return ["| what                 |  value |    low |   high |     rows |", "|---|---:|---:|---:|---:|", *rows]


def _number(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.4f}"
