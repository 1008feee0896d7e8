"""What changed between two versions of a table: rows, columns, schema. A value; printing is somebody else's work."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from loudly.core.seams import Blobs
from loudly.core.values import Dataset
from loudly.data.snapshot import load


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """Keys of rows added, removed and changed; columns added, removed and of another kind."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    kinds_changed: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return not any((self.added, self.removed, self.changed, self.columns_added, self.columns_removed, self.kinds_changed))


def diff(before: Dataset, after: Dataset, blobs: Blobs, key: str) -> DatasetDiff:
    """Compares two versions row by row, by key. Cost: both tables in memory; none where the digests agree."""
    old_kinds = {f.name: f.kind for f in before.schema.fields}
    new_kinds = {f.name: f.kind for f in after.schema.fields}
    both = [name for name in old_kinds if name in new_kinds]
    kinds = tuple(name for name in both if old_kinds[name] is not new_kinds[name])
    gone = tuple(name for name in old_kinds if name not in new_kinds)
    fresh = tuple(name for name in new_kinds if name not in old_kinds)
    if before.parts == after.parts:
        return DatasetDiff((), (), (), fresh, gone, kinds)
    old, new = load(before, blobs), load(after, blobs)
    shared = [name for name in both if name in old.columns and name in new.columns]
    rows = old.select(shared).join(new.select(shared), on=key, how="inner", suffix=" after")
    differs = pl.any_horizontal([pl.col(n).ne_missing(pl.col(f"{n} after")) for n in shared if n != key] or [pl.lit(False)])
    return DatasetDiff(
        _keys(new.join(old, on=key, how="anti"), key),
        _keys(old.join(new, on=key, how="anti"), key),
        _keys(rows.filter(differs), key),
        fresh,
        gone,
        kinds,
    )


def _keys(rows: pl.DataFrame, key: str) -> tuple[str, ...]:
    return tuple(rows[key].cast(pl.String).sort().to_list())
