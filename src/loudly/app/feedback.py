"""`loudly feedback`: late labels of a file, by a spool to the server that writes the log, or into the log where none runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import polars as pl

from loudly.app import verbs
from loudly.config import read_config
from loudly.core.clock import WallClock
from loudly.core.values import Field
from loudly.data.pseudonym import pseudonymise
from loudly.errors import DataError, WheelAway, nearest
from loudly.loop import traffic
from loudly.loop.system import System
from loudly.loop.taking import BY_HAND, outcome_of
from loudly.serve.request import expectation, fits
from loudly.store.segments import SegmentWriter, being_written
from loudly.store.spools import SPOOLS, waiting


def feedback(system: System, folder: Path | None, labels: pl.DataFrame) -> Mapping[str, int]:
    """Labels for predictions of the log: how many were joined, how many unknown, how many wait for the server that runs.

    strange: how many were set aside, of values that the champion does not know.  repeated: of keys that have a label already, which
    counts; `changed` of them say otherwise.

    Raises: DataError for a table without key or label, keys that no request has, or labels of another type than in training.
    """
    for column in (system.key, system.label):
        if column not in labels.columns:
            raise DataError(f"The labels have no column {column!r}.", do=nearest(column, labels.columns))
    labels = labels.select(system.key, system.label)
    key = labels.schema[system.key]
    if not (key.is_integer() or key in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        told = f"The keys {system.key!r} of the labels are no texts and no whole numbers."
        raise DataError(told, seen=str(key), do="Write them as in the requests.")
    with verbs.using_stores(system.name, folder) as opened:
        dataset = verbs.status(opened).dataset
    if dataset is not None:
        _held(labels[system.label], dataset.schema.field(system.label))
    nothing = {"joined": 0, "unknown": 0, "strange": 0, "repeated": 0, "changed": 0, "spooled": 0}
    if labels.is_empty():
        return nothing
    config = read_config(folder)
    root = config.root
    if being_written(root / "traffic") or waiting(root / SPOOLS):  # their answers may stand in a spool still
        hidden = pseudonymise(labels, system.private, verbs.private_key(config))
        _spool(root / SPOOLS / f"{BY_HAND}-{os.urandom(6).hex()}", hidden)
        return nothing | {"spooled": labels.height}
    with verbs.using_stores(system.name, folder, traffic=True) as opened:
        live = verbs.caught_up(system, opened)
        arrival = live.feedback(labels)
        live.tick()
    return nothing | outcome_of(arrival)


def _held(given: pl.Series, field: Field | None) -> None:
    """A label of another type would be folded as no label at all, in silence."""
    wrong = [value for value in given.drop_nulls().unique().to_list() if field is not None and not fits(value, field.kind)]
    if wrong and field is not None:
        raise DataError(
            f"Labels of {field.name!r} are of another type than in training: expected {expectation(field)}.",
            seen=", ".join(repr(value) for value in wrong[:3]),
            do="Write them as the training table has them.",
        )


def _spool(folder: Path, labels: pl.DataFrame) -> None:
    """On disk when this returns; the server takes it over at its next tick. Raises: WheelAway where the disk refuses."""
    with closing(SegmentWriter(folder, through=True)) as spool:
        taken = spool.append("labels", traffic.labels_to_bytes(labels, WallClock().now()))
        spool.flush()
        if not taken or spool.refused:
            raise WheelAway("The disk does not take the labels.", seen=spool.refused, do="Send them again later.")
