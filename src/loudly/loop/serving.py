"""A stored artefact made ready to answer: bytes -> model, features and schema, under a digest the ledger vouches for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from loudly.core.seams import Blobs, FastForm, Floats, Model, ModelFormat
from loudly.core.values import ModelVersion, Schema, Task
from loudly.errors import ModelError, UntrustedModel, nearest
from loudly.features.feature_set import Definition, FeatureSet, FrozenFeatures
from loudly.features.quick import Quick, quick
from loudly.register.bundle import Bundle, unpack
from loudly.register.fast_form import Guarded
from loudly.serve.rows import Rows, asked, places_of_numbers
from loudly.stats.held_out import Quantiles
from loudly.validate.conform import DTYPES

MOST_ASSEMBLERS = 16

FastForms = Mapping[str, Callable[[], FastForm | None]]
ORIGINAL = "original"


@dataclass(frozen=True, slots=True)
class Assembler:
    """Makes the matrix from rows of one schema. places: (k,) of the matrix's plain numbers in `Rows.numbers`."""

    quick: Quick
    places: Any

    def matrix(self, rows: Rows) -> Floats:
        """The features of the rows. Shapes: (n, d)."""
        return self.quick.matrix(np.take(rows.numbers, self.places, axis=1), rows.column, rows.series)


@dataclass(frozen=True, slots=True)
class Ready:
    """A version that can answer: raw rows of its schema in, scores out.

    served: what answers, "original" or the name of a fast form.  told: why, in one line.
    """

    schema: Schema
    features: FrozenFeatures
    model: Model
    format: ModelFormat
    bundle: Bundle
    frame: str
    task: Task
    classes: tuple[str, ...]
    served: str = ORIGINAL
    told: str = ""
    assemblers: dict[int, tuple[Schema, Assembler | None]] = field(default_factory=dict, compare=False, repr=False)

    def predict(self, table: pl.DataFrame) -> Floats:
        """Scores of raw rows: (n,) or (n, k)."""
        return self.model.predict(inputs_of(self.features, table, self.frame))

    def quick(self, rows: Rows) -> Floats:
        """The same scores from the columns of a request; a table is made only where the model or a feature needs one."""
        if self.frame != "numpy":
            return self.predict(rows.table())
        assembler = self._assembler(rows.schema)
        return self.predict(rows.table()) if assembler is None else self.model.predict(assembler.matrix(rows))

    def _assembler(self, schema: Schema) -> Assembler | None:
        known = self.assemblers.get(id(schema))
        if known is None or known[0] is not schema:
            if len(self.assemblers) >= MOST_ASSEMBLERS:
                self.assemblers.clear()
            self.assemblers[id(schema)] = known = (schema, _assembler_of(self.features, schema))
        return known[1]

    @property
    def usual(self) -> Sequence[Quantiles]:
        """Quantiles of its scores of seen and of held-out rows, of each class, where those of any are otherwise."""
        kept = self.bundle.meta.get("held_out_scores", ())
        return [kept] if kept and self.task is not Task.MULTICLASS else kept

    def estimator(self) -> object:
        """The fitted estimator itself, to continue training from."""
        return self.format.restore(self.bundle.model)


def inputs_of(features: FrozenFeatures, table: pl.DataFrame, frame: str) -> Any:
    """What a model gets of a table: a matrix, a table of the same numbers, or the raw inputs in the types of the schema."""
    match frame:
        case "numpy":
            return features.matrix(table)
        case "polars":
            return features.frame(table)
        case _:
            texts = table.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
            types = {name: DTYPES[kind] for name, kind in features.raw.items() if name in table.columns}
            return features.whole(texts.cast(types, strict=False))  # type: ignore[arg-type]


def open_version(
    version: ModelVersion,
    definitions: Sequence[Definition],
    blobs: Blobs,
    formats: Sequence[ModelFormat],
    vouched: bool,
    fast: FastForms | None = None,
) -> Ready:
    """Loads a version. `vouched`: the ledger holds its digest.  fast: forms it may be served from; none by default.

    Raises: UntrustedModel for a format that runs code without that, NotFound and DatasetCorrupt from the store.
    """
    with blobs.open(version.model) as stream:
        data = stream.read()
    return make_ready(data, definitions, formats, vouched, fast)


def make_ready(
    data: bytes,
    definitions: Sequence[Definition],
    formats: Sequence[ModelFormat],
    vouched: bool,
    fast: FastForms | None = None,
) -> Ready:
    """The same from bytes at hand. A fast form serves only where the artefact says that it was held against the original."""
    bundle = unpack(data)
    by_name = {f.name: f for f in formats}
    form = by_name.get(bundle.format)
    if form is None:
        raise ModelError(
            f"The artefact is in format {bundle.format!r}, which is not at hand.",
            do="Install its extra; " + nearest(bundle.format, by_name),
        )
    if form.executes_code and not vouched:
        raise UntrustedModel(
            f"A {bundle.format} artefact runs code when it is loaded, and the ledger does not hold its digest.",
            do="Train it here, or store it as skops, ONNX or native LightGBM.",
        )
    features = FeatureSet(definitions, bundle.schema).thaw(bundle.features)
    meta = bundle.meta
    model, served, told = _fast_model(bundle, by_name, fast or {})
    return Ready(
        bundle.schema,
        features,
        model or form.load(bundle.model),
        form,
        bundle,
        str(meta["frame"]),
        Task(meta["task"]),
        tuple(meta["classes"]),
        served,
        told,
    )


def _assembler_of(features: FrozenFeatures, schema: Schema) -> Assembler | None:
    """The assembler, or None where a feature needs a table."""
    made, places = quick(features, {f.name: f.kind for f in asked(schema)}), places_of_numbers(schema)
    return None if made is None else Assembler(made, np.array([places[name] for _, name in made.numbers], dtype=np.intp))


def opened(fast: FastForms) -> Iterator[FastForm]:
    """The fast forms whose libraries are installed, resolved one after another: the last are heavy to import."""
    for make in fast.values():
        form = make()
        if form is not None:
            yield form


def _fast_model(bundle: Bundle, formats: Mapping[str, ModelFormat], fast: FastForms) -> tuple[Model | None, str, str]:
    """The model of the fast form, or nothing; what serves, and why."""
    said = bundle.meta.get("fast")
    if said is None:
        return None, ORIGINAL, "no fast form was asked for when it was registered"
    if not said["passed"]:
        return None, ORIGINAL, str(said["reason"])
    name = str(said["form"])
    if name not in fast:
        return None, ORIGINAL, f"fast forms are switched off here; {name} passed"
    reader: Any = formats.get(str(said["runs"])) or fast[name]()
    if reader is None:
        return None, ORIGINAL, f"{name} passed, and its library is not installed here"
    return Guarded(reader.load(bundle.fast), said["refuses"]), name, str(said["reason"])
