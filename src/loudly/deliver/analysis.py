"""A verdict as Flagger and Argo Rollouts ask for it, so that a mesh's canary stands or falls by the quality of the model.

Flagger looks at the status alone (2xx is yes), so each of its hooks has a path of its own: `/analysis/flagger/promotion` (for
`confirm-promotion` and `confirm-traffic-increase`) says yes to PASS alone, `/analysis/flagger/rollback` (for `rollback`) says
yes to FAIL alone. UNDECIDED is yes to neither: the canary waits. Argo's web metric reads JSON: `/analysis/argo` answers 200 with
`{"result": "PASS" | "FAIL" | "UNDECIDED", ...}`, and a template with both a successCondition and a failureCondition takes what is
neither as inconclusive. A path may name the version: `/analysis/argo/flights/3`; Flagger may name it in the webhook's metadata.
Without a name the running rollout's candidate is meant.
Source: Flagger's webhooks (https://docs.flagger.app/usage/webhooks), Argo Rollouts' web metric
(https://argo-rollouts.readthedocs.io/en/stable/analysis/web/).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loudly.core.values import Decision, Verdict, plain

ROOT = "/analysis/"
ARGO, PROMOTION, ROLLBACK = "argo", "flagger/promotion", "flagger/rollback"
ASKED = (ARGO, PROMOTION, ROLLBACK)
NOT_YET, NO = 425, 409
JudgeVersion = Callable[[str | None], Verdict]


@dataclass(frozen=True, slots=True)
class Told:
    """An answer over HTTP: its status and its JSON body."""

    status: int
    body: bytes


def analyse(path: str, body: bytes, judge: JudgeVersion) -> Told:
    """The answer to a webhook. judge: the verdict on a version, or on the running rollout's candidate for None.

    Never raises for what a client sent: a path or body that is none is 404 or 400, and no success.

    >>> verdict = Verdict(Decision.UNDECIDED, "m/2", "too few labels", missing="400 labels")
    >>> analyse("/analysis/flagger/promotion", b"", lambda _: verdict).status
    425
    >>> analyse("/analysis/flagger/rollback/m/2", b"", lambda _: verdict).status
    425
    >>> json.loads(analyse("/analysis/argo", b"", lambda _: verdict).body)["result"]
    'UNDECIDED'
    """
    rest = path.removeprefix(ROOT)
    asked = next((a for a in ASKED if rest == a or rest.startswith(f"{a}/")), None)
    if not path.startswith(ROOT) or asked is None:
        return _told(404, {"error": f"ask one of {', '.join(ROOT + a for a in ASKED)}"})
    try:
        named = _named(body)
    except ValueError as wrong:
        return _told(400, {"error": str(wrong)})
    verdict = judge(rest[len(asked) + 1 :] or named)
    said = {"result": str(verdict.decision), **plain(verdict)}
    return _told(200 if asked == ARGO else _status(verdict.decision, yes=_YES[asked]), said)


_YES = {PROMOTION: Decision.PASS, ROLLBACK: Decision.FAIL}


def _status(decision: Decision, yes: Decision) -> int:
    """2xx for the one decision that the hook waits for; UNDECIDED is never it."""
    if decision is Decision.UNDECIDED:
        return NOT_YET
    return 200 if decision is yes else NO


def _named(body: bytes) -> str | None:
    """The version that Flagger's payload names in its metadata. Raises: ValueError for a body that is no such payload."""
    if not body.strip():
        return None
    try:
        given: Any = json.loads(body)
    except (ValueError, RecursionError) as wrong:
        raise ValueError(f"no JSON: {wrong}") from wrong
    metadata = given.get("metadata", {}) if isinstance(given, dict) else given
    if metadata is None and given is not None:
        return None
    version = metadata.get("version", "") if isinstance(metadata, dict) else None
    if not isinstance(version, str):
        raise ValueError('a webhook is an object, whose metadata may name a version, as in {"metadata": {"version": "flights/3"}}')
    return version or None


def _told(status: int, content: Any) -> Told:
    return Told(status, json.dumps(content, allow_nan=False).encode())
