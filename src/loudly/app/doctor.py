"""The doctor: is the chain whole, are all stored bytes what they were, can the champion answer?"""

from __future__ import annotations

from loudly.app.verbs import Opened
from loudly.core.values import Decision, Verdict
from loudly.errors import LoudlyError
from loudly.loop.state import State, fold_all
from loudly.store.chain import verify
from loudly.store.segments import read_segments


def examine(opened: Opened) -> tuple[Verdict, ...]:
    """One verdict for each part that could be damaged."""
    return (_chain(opened), *_blobs(opened), _traffic(opened))


def _chain(opened: Opened) -> Verdict:
    try:
        count = sum(1 for _ in verify(opened[0].ledger.read()))
    except LoudlyError as wrong:
        return Verdict(Decision.FAIL, "ledger", str(wrong))
    return Verdict(Decision.PASS, "ledger", f"{count:,} events, the chain holds")


def _blobs(opened: Opened) -> tuple[Verdict, ...]:
    try:
        state = fold_all(opened[0].ledger.read())
    except LoudlyError as wrong:
        return (Verdict(Decision.FAIL, "blobs", f"cannot tell which belong: {wrong}"),)
    names = {**dict.fromkeys(opened[0].blobs.iterate(), "a stored blob"), **_named(state)}
    bad = []
    for name, what in names.items():
        try:
            with opened[0].blobs.open(name) as stream:
                stream.read()
        except LoudlyError as wrong:
            bad.append(Verdict(Decision.FAIL, what, str(wrong)))
    return tuple(bad) or (Verdict(Decision.PASS, "blobs", f"{len(names)} stored or named by the ledger, all whole"),)


def _named(state: State) -> dict[str, str]:
    """Digest -> what it is, of everything the ledger names."""
    models = {v.model: f"artefact of {v.ref}" for v in state.versions.values()}
    parts = {p.digest: "a part of the dataset" for p in state.dataset.parts} if state.dataset else {}
    return {**models, **parts}


def _traffic(opened: Opened) -> Verdict:
    try:
        count = sum(1 for _ in read_segments(opened[1].root / "traffic"))
    except LoudlyError as wrong:
        return Verdict(Decision.FAIL, "traffic", str(wrong))
    return Verdict(Decision.PASS, "traffic", f"{count:,} records can be read")
