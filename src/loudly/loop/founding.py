"""The first turn of the wheel: the user's table versioned and judged, and a wheel with something to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from loudly.core.canon import Json
from loudly.core.values import Event, Verdict, plain
from loudly.data.pseudonym import pseudonymise
from loudly.data.snapshot import snapshot
from loudly.errors import DataError, UserFileError, nearest
from loudly.features.feature_set import unread
from loudly.loop.live import Live
from loudly.loop.restart import in_time, insist_all, rows_of
from loudly.loop.retraining import policy_digest
from loudly.serve.context import check_columns
from loudly.validate.checks import judge_table
from loudly.validate.key_predictors import FEWEST, find_key_predictors, judge_key_predictors, key_predictor_of
from loudly.validate.key_predictors import blocking as blocking_keys
from loudly.validate.leakage import find_leaks
from loudly.validate.schema import infer_schema, refuse_odd_numbers


def found(live: Live, table: pl.DataFrame) -> tuple[Verdict, ...]:
    """Versions the table, freezes its schema, judges it and looks for leaks; all of it goes into the ledger.

    A leak, a failed check, or a key predictor that is gone or constant blocks: the verdicts come back, and `live` has
    nothing to learn from.
    """
    system = live.system
    table = pseudonymise(table, system.private, live.key)
    table = live.sides.train(table)
    refuse_odd_numbers(table, system.label, system.ignored)
    schema = infer_schema(
        table,
        label=system.label,
        time=system.time,
        key=system.key,
        private=system.private,
        ignored=system.ignored,
        side=live.sides.columns,
        group=system.group,
    )
    known = {*table.columns, *_columns_before(live)}  # one that has gone may be ignored on purpose
    for what, name in (*(("ignored", n) for n in system.ignored), *(("known_before", n) for n in system.known_before)):
        if name not in known:
            raise UserFileError(f"The column {name!r} in {what}=[...] is not in the table.", do=nearest(name, table.columns))
    labelled = in_time(table.drop_nulls(system.label), system.time)
    if labelled.is_empty():
        raise DataError("No row of the table has a label.", seen=f"{table.height:,} rows", do="Check the label column.")
    with live.tally.spend("data"):
        dataset = snapshot(labelled, live.stores.blobs, system.name, schema, system.time)
    for spec in system.rollout:
        check_columns(spec.columns, schema)
    now = live.clock.now()
    insist_all(live, Event("system_loaded", now, {"name": system.name, "policy": policy_digest(system)}), *live.sides.report(now))
    with live.tally.spend("validate"):
        kept = _judge_keys(live, labelled)
        stopped = blocking_keys(kept)
        keys = find_key_predictors(table, schema, label=system.label, time=system.time)
        judged = (*judge_table(table, schema, now=now), *kept)
        leaks = find_leaks(table, schema, label=system.label, time=system.time, known_before=system.known_before)
    frozen = list(live.state.key_predictors) if stopped else [key.plain() for key in keys]
    unseen = [f"{field.name} ({field.kind})" for field in unread(system.features, schema) if system.train.frame != "raw"]
    told = f"the model sees nothing of {', '.join(unseen)}: "
    told += "texts and times reach it through an @app.feature or @app.train(frame='raw'); or ignore them"
    named: dict[str, Json] = {"schema_version": schema.version, "columns": len(schema.fields), "key_predictors": frozen}
    insist_all(
        live,
        Event("dataset_versioned", now, {"dataset": plain(dataset), "digest": dataset.digest}),
        Event("schema_frozen", now, named),
        *(Event("table_judged", now, {"verdict": plain(verdict)}) for verdict in judged),
        *(Event("leakage_found", now, {"verdict": plain(verdict)}) for verdict in leaks),
        *([Event("guarantee_weakened", now, {"what": "inputs", "reason": told})] if unseen else ()),
        *(Event("guarantee_weakened", now, {"what": v.subject, "reason": v.reason}) for v in leaks if v.passed and v.evidence),
    )
    blocking = (*(v for v in (*judged, *leaks) if v.failed and v not in kept), *stopped)
    if not blocking:
        live.retraining.begin(dataset, labelled)
    return blocking


def _columns_before(live: Live) -> set[str]:
    """The columns of all tables that the ledger knows."""
    told: list[Any] = [r.event.data["dataset"] for r in live.stores.ledger.read() if r.event.kind == "dataset_versioned"]
    return {field["name"] for dataset in told for field in dataset["schema"]["fields"]}


def _judge_keys(live: Live, labelled: pl.DataFrame) -> tuple[Verdict, ...]:
    """The key predictors of the freeze before, on the rows that are new since; on all where those are few."""
    keys = [key_predictor_of(k) for k in live.state.key_predictors if k["name"] not in live.system.ignored]
    before = live.state.dataset.last if live.state.dataset is not None else None
    new = labelled.filter(pl.col(live.system.time).dt.epoch("us") > before) if before is not None else labelled
    rows = new if new.height >= FEWEST else labelled
    return judge_key_predictors(keys, rows, label=live.system.label, time=live.system.time)


def reopen(live: Live) -> bool:
    """After a restart: the dataset the ledger names is what there is to learn from. False where there is none.

    Raises: UserFileError where its label, time or key is none that the dataset has.
    """
    dataset, system = live.state.dataset, live.system
    if dataset is None:
        return False
    for what, name in (("label", system.label), ("time", system.time), ("key", system.key)):
        if dataset.schema.field(name) is None:
            told = f"The {what} column {name!r} is not in the newest dataset: it was another when this was trained."
            raise UserFileError(told, do=f"{nearest(name, dataset.schema.names)}; or begin anew: [store] root.")
    live.retraining.begin(dataset, rows_of(live, dataset))
    return True


def reasons(blocking: Sequence[Verdict]) -> list[str]:
    """Blocking verdicts as lines."""
    return [f"{v.subject}: {v.reason}" for v in blocking]
