"""Where alarms go: the terminal, a file of JSON lines, a webhook. A door that is shut is said, never raised."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Sequence
from http.client import HTTPException
from pathlib import Path

from loudly.core.saying import loud
from loudly.core.seams import Notify
from loudly.core.values import Event, Verdict, plain, verdict_of

TIMEOUT_SECONDS = 3.0
PAGING = ("alarm_raised", "estimate_disproved")


def page(doors: Sequence[Notify], events: Iterable[Event]) -> None:
    """What somebody must be told of, through every door."""
    for event in events:
        if event.kind in PAGING:
            for notify in doors:
                notify(verdict_of(event.data["verdict"]))  # type: ignore[arg-type]


def terminal(verdict: Verdict) -> None:
    """One LOUD line on standard error."""
    loud("", f"{verdict.subject}: {verdict.reason}")


def to_file(verdict: Verdict, path: Path = Path("alarms.jsonl")) -> None:
    """One JSON line appended to a file."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(plain(verdict)) + "\n")
    except OSError as wrong:
        terminal(Verdict(verdict.decision, f"alarm file {path}", f"{wrong}; the alarm was: {verdict.reason}"))


def to_webhook(verdict: Verdict, address: str) -> None:
    """A POST of the verdict as JSON to an address, with a time-out of 3 s."""
    body = json.dumps(plain(verdict)).encode()
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            answer.read()
    except (OSError, HTTPException, ValueError) as wrong:  # ValueError: no address at all
        terminal(Verdict(verdict.decision, "alarm webhook", f"{wrong}; the alarm was: {verdict.reason}"))
