"""What is to blame for a FAIL: which columns moved and since which hour, in which slice, which rows go wrong, what kind of shift.

Everything is read from the counts of windows and from the rows that were kept of them, so a blame costs about a tenth of a second,
whatever the traffic, and the kind of a shift about one; they are asked for when an alarm is raised, not at every window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl

from loudly.core.canon import Json
from loudly.core.clock import HOUR, iso
from loudly.core.seams import Floats
from loudly.errors import DataError
from loudly.monitor.answers import HOURS, apart
from loudly.monitor.examples import KEPT, MOST_CLASSES, ON, SCORE, TRUTH, Examples
from loudly.monitor.sampled import table_of
from loudly.monitor.settings import MonitorSettings
from loudly.monitor.shifts import Seen
from loudly.shift.blame import Blamed, blame_columns, blame_slices, since_when
from loudly.shift.error_rules import error_rules
from loudly.shift.kind import ShiftKind, kind_of_shift
from loudly.shift.plan import Plan
from loudly.stats.divergence import ks, total_variation

MOST_COLUMNS = 3
MOST_SLICES = 2
MOST_RULES = 2
MOST_VALUES = 30
# A loss may come of shifts that are not worth an alarm by themselves.
SMALL = 0.5
FEWEST = 300
MOST_PAST = 3000
UNTOLD = "the kind of shift cannot be told yet"
NO_PAST = f"{UNTOLD} (too few labelled rows of this champion from before)"
TOO_WIDE = f"the kind of shift and the rows that go wrong are told of up to {MOST_CLASSES} classes"


@dataclass(frozen=True, slots=True)
class ColumnBlamed:
    """A column that moved: by how much surely, since when, and between which times that began."""

    column: str
    unit: str
    effect: float | None
    low: float | None
    high: float | None
    since: str
    earliest: str
    latest: str

    @property
    def told(self) -> str:
        """For people."""
        moved = "broken" if self.effect is None else f"{self.unit} {self.effect:.2f}"
        return f"{self.column} ({moved}, since {self.since})"


@dataclass(frozen=True, slots=True)
class Blame:
    """All that is blamed. slices, rules: sentences. kind: of shift, with its reason."""

    columns: tuple[ColumnBlamed, ...] = ()
    slices: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    kind: str = ""

    @property
    def told(self) -> str:
        """As one half sentence, or nothing."""
        parts = [", ".join(c.told for c in self.columns), ", ".join(self.slices)]
        said = [p for p in parts if p]
        made = [f"blamed: {'; '.join(said)}"] if said else []
        made += [f"errors are worst where {' and where '.join(self.rules)}"] if self.rules else []
        made += [self.kind] if self.kind else []
        return "; ".join(made)

    def plain(self) -> dict[str, Json]:
        """As plain JSON."""
        return {
            **asdict(self),
            "columns": [asdict(c) for c in self.columns],
            "slices": list(self.slices),
            "rules": list(self.rules),
        }


@dataclass(frozen=True, slots=True)
class Case:
    """What blame is read from: the reference's rows, the champion's windows by start, and its labelled rows."""

    settings: MonitorSettings
    plan: Plan
    reference: pl.DataFrame
    windows: Mapping[int, Seen]
    examples: Examples

    def shift(self, columns: Sequence[str], kind: str) -> Blame:
        """Of a shift of these columns."""
        found = self._columns(columns, self.settings.shift)
        return Blame(found, self._slices(found), (), kind or self._untold)

    def loss(self, columns: Sequence[str], kind: str) -> Blame:
        """Of a loss that labels confirm: what moved among these columns, and which rows go wrong."""
        found = self._columns(columns, SMALL * self.settings.shift)
        return Blame(found, self._slices(found), self._rules(), kind or self._untold)

    def feed(self, column: str, start: int) -> Blame:
        """Of a broken column, in the window that begins at `start`."""
        if column not in self.plan.bins or start not in self.windows:
            return Blame()
        found = self._hour(column, [start])
        return Blame((ColumnBlamed(column, "feed", None, None, None, *found),)) if found else Blame()

    @property
    def _untold(self) -> str:
        return TOO_WIDE if self.examples.wide else NO_PAST

    # -- which columns, since when -----------------------------------------------------------------------------------

    def _recent(self) -> list[int]:
        return sorted(self.windows)[-4 * self.settings.trailing :]

    def _columns(self, columns: Sequence[str], tolerance: float) -> tuple[ColumnBlamed, ...]:
        starts = self._recent()
        if not starts:
            return ()
        last = starts[-self.settings.trailing :]
        far = {}
        for name in columns:
            bins = self.plan.bins[name]
            seen = np.sum([self.windows[s].profile.counts(name) for s in last], axis=0)
            if seen.sum() > 0:
                far[name] = (ks if bins.numeric else total_variation)(bins.counts, seen)
        named = sorted((n for n in far if far[n] > tolerance), key=lambda n: -far[n])[:MOST_COLUMNS]
        if not named:
            return ()
        counts = {n: np.stack([self.windows[s].profile.counts(n) for s in starts]) for n in named}
        numeric = [n for n in named if self.plan.bins[n].numeric]
        found = blame_columns({n: self.plan.bins[n].counts for n in named}, counts, tolerance, numeric, self.settings.alpha)
        return tuple(self._blamed(b, starts) for b in found)

    def _blamed(self, found: Blamed, starts: Sequence[int]) -> ColumnBlamed:
        evidence, since = found.verdict.evidence[0], found.since
        near = starts[max(0, since.low - 1) : since.high + 2]
        times = self._hour(found.column, near)
        if times is None or self.settings.window <= HOUR:
            times = tuple(iso(starts[i]) for i in (since.window, since.low, since.high))  # type: ignore[assignment]
        assert times is not None
        return ColumnBlamed(found.column, evidence.unit, evidence.effect, evidence.low, evidence.high, *times)

    def _hour(self, column: str, starts: Sequence[int]) -> tuple[str, str, str] | None:
        """The hour it began, the first and the last that it may be, from the rows that were kept of these windows."""
        order = list(self.plan.bins)
        bins, at, hours = self.plan.bins[column], order.index(column), order.index(HOURS)
        k, rows = bins.size + 1, []
        for start in starts:
            sample = self.windows[start].profile.sample
            if sample is not None and len(sample.rows.values):
                values = sample.rows.values
                codes = bins.search(values[:, at]) if bins.numeric else np.nan_to_num(values[:, at], nan=bins.size).astype(np.int64)
                rows.append((start // HOUR + values[:, hours].astype(np.int64), np.minimum(codes, bins.size)))
        if not rows:
            return None
        when, what = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        known, place = np.unique(when, return_inverse=True)
        seen = np.bincount(place * k + what, minlength=len(known) * k).reshape(len(known), k)
        missing = self.reference[column].null_count() / max(1, self.reference.height)
        held = np.append(bins.counts, round(missing / max(1e-9, 1 - missing) * int(bins.counts.sum())))
        found = since_when(held, seen)
        return tuple(iso(int(known[i]) * HOUR) for i in (found.window, found.low, found.high))  # type: ignore[return-value]

    # -- which slice -------------------------------------------------------------------------------------------------

    def _slices(self, found: Sequence[ColumnBlamed]) -> tuple[str, ...]:
        """The slices that explain the shift of the first column alone."""
        if not found:
            return ()
        column = found[0].column
        by = [
            n
            for n, b in self.plan.bins.items()
            if not b.numeric and n != column and not apart(n) and 1 < len(b.categories) <= MOST_VALUES
        ]
        rows = pl.concat([self._sample(s) for s in self._recent()[-self.settings.trailing :]])
        if not by or rows.is_empty():
            return ()
        told = blame_slices(self.reference, rows, column, by, self.settings.shift, self.settings.alpha)
        return tuple(f"{column} only in {s.name}" for s in told if s.alone)[:MOST_SLICES]

    def _sample(self, start: int) -> pl.DataFrame:
        return table_of(self.windows[start].profile.sample, self.plan)

    # -- which rows, which kind --------------------------------------------------------------------------------------

    def _split(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Labelled rows from before, and those of the trailing windows."""
        starts = self._recent()
        if not starts:
            return pl.DataFrame(), pl.DataFrame()
        turn = starts[-1] - self.settings.trailing * self.settings.window + self.settings.window
        return self.examples.between(0, turn).head(MOST_PAST), self.examples.between(turn, starts[-1] + self.settings.window)

    def _rules(self) -> tuple[str, ...]:
        """Which rows are answered surely worse than others, and worse than before where there is a before."""
        past, rows = self._split()
        if rows.height < FEWEST:
            return ()
        columns = [c for c in rows.columns if c not in KEPT]
        reference = (past, _loss(past)) if past.height >= FEWEST and set(columns) <= set(past.columns) else None
        days = rows[ON].to_numpy(), None if reference is None else past[ON].to_numpy()
        found = error_rules(rows, _loss(rows), columns, reference, days=days)
        return tuple(
            f"{r.text} (loss {r.effect:+.3f} [{r.low:+.3f}, {r.high:+.3f}], {r.share:.0%} of rows)" for r in found if r.news
        )[:MOST_RULES]

    def kind(self) -> str:
        """Covariate, label or concept shift, as far as the scores of labelled rows tell. Cost: about a second."""
        past, rows = self._split()
        if min(past.height, rows.height) < FEWEST:
            return ""
        try:
            found = kind_of_shift(_scores(past), past[TRUTH], _scores(rows), window_truth=rows[TRUTH])
        except DataError as lacking:
            return f"{UNTOLD} ({lacking.what})" if _probabilities(past) else ""  # it is told of classes
        match found.kind:
            case ShiftKind.NONE:
                return f"no kind of shift is seen ({found.reason})"
            case ShiftKind.UNKNOWN:
                return f"{UNTOLD} ({found.reason})"
            case _:
                return f"{found.kind.value} ({found.reason.removesuffix(f': {found.kind.value}')})"


def _probabilities(rows: pl.DataFrame) -> bool:
    scores = _scores(rows)
    return bool(((scores >= 0) & (scores <= 1)).all())


def _scores(rows: pl.DataFrame) -> Floats:
    """(n,) scores, or (n, k) of several classes."""
    return np.asarray(rows[SCORE].to_numpy(), dtype=np.float64)


def _loss(rows: pl.DataFrame) -> Floats:
    """Squared errors: of probabilities the Brier score, of numbers the squared error."""
    truth, score = rows[TRUTH].to_numpy(), _scores(rows)
    if score.ndim == 1:
        return np.asarray((truth - score) ** 2)
    return np.asarray(((score - np.eye(score.shape[1])[truth.astype(np.int64)]) ** 2).sum(axis=1))
