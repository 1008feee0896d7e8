"""The wheel on a year of flights: AUC of four policies, refits, and what the wheel itself costs beside fit and predict.

Run: python benchmarks/wheel.py. Prints the demo's figures and three checks; exits 1 where one does not hold.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from loudly.demo.wheel import run_demo, tell

if __name__ == "__main__":
    console = Console(width=150)
    figures = run_demo(Path("out/bench"))
    tell(figures, console)
    policies = figures["policies"]
    ours, often = policies["stateless"], policies["fortnight"]
    gap, share = often["mean"] - ours["mean"], len(ours["refits"]) / len(often["refits"])
    wheel, model = (sum(p[k] for p in policies.values()) for k in ("wheel", "model"))
    named = all(r["named"] and not r["refits_on_it"] for r in figures["rehearsals"].values())
    stopped = all(b["stopped_by"] != "nothing" and not b["promoted"] for b in figures["bad"].values())
    checks = {
        f"within 0.005 of every two weeks: {gap:+.4f}": gap <= 0.005,
        f"with at most a third of its refits: {len(ours['refits'])} of {len(often['refits'])}": share <= 1 / 3,
        f"the wheel's own time over fit and predict: {wheel / model:.2f}": wheel <= model,
        "every rehearsal named, none learned from": named,
        "the bad candidate stopped both times": stopped,
    }
    for what, holds in checks.items():
        console.print(f"{'holds' if holds else 'FAILS'}  {what}")
    sys.exit(0 if all(checks.values()) else 1)
