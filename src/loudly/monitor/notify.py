"""Where alarms go: the terminal, a file of JSON lines, a webhook. A door that is shut is said, never raised."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from loudly.core.values import Verdict, plain

FILE_VARIABLE, HOOK_VARIABLE = "LOUDLY_ALARM_FILE", "LOUDLY_ALARM_WEBHOOK"
TIMEOUT_SECONDS = 3.0


def terminal(verdict: Verdict) -> None:
    """One LOUD line on standard error."""
    Console(stderr=True).print(f"[bold red]LOUD[/] {escape(verdict.subject)}: {escape(verdict.reason)}", highlight=False)


def to_file(verdict: Verdict) -> None:
    """One JSON line appended to the file named by LOUDLY_ALARM_FILE (alarms.jsonl by default)."""
    path = Path(os.environ.get(FILE_VARIABLE, "alarms.jsonl"))
    try:
        with path.open("a") as file:
            file.write(json.dumps(plain(verdict)) + "\n")
    except OSError as wrong:
        terminal(Verdict(verdict.decision, f"alarm file {path}", f"{wrong}; the alarm was: {verdict.reason}"))


def to_webhook(verdict: Verdict) -> None:
    """A POST of the verdict as JSON to the address in LOUDLY_ALARM_WEBHOOK, with a time-out of 3 s."""
    address = os.environ.get(HOOK_VARIABLE, "")
    body = json.dumps(plain(verdict)).encode()
    request = urllib.request.Request(address or "http://127.0.0.1:0", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            answer.read()
    except OSError as wrong:
        terminal(Verdict(verdict.decision, "alarm webhook", f"{wrong}; the alarm was: {verdict.reason}"))
