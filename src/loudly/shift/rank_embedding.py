"""The default test: has this window moved, anywhere, in any way? One call, nothing to tune, exact at every sample size.

Each row becomes four small embeddings, all of them means of ranks in one half of the reference: *location* (the rank of each
column), *spread* (how far the rank is from the middle), *novelty* (-log of the upper rank of the row's standardised distance, so
that two absurd rows among ten are heard) and, where the model's scores are given, *scores* (the Cramér-von Mises expansion of their
ranks). A window's statistics are the squared distances of its mean embeddings; splits of the window and the other half of the
reference give their joint null, and the least of the four p-values is calibrated by itself, so the level is exact.

Location and spread see dense small changes that a test of the single worst column misses; novelty sees the few absurd rows at
n = 10; scores see what the model sees. On Failing Loudly this beats the published best at every n (`benchmarks/failing_loudly.py`).

Cost: one sort of half the reference; a window costs ranks and one matrix product, linear in its rows (5,000 at most are used).
Source: Rabanser et al. 2019 (task and protocol); Anderson & Darling 1952 (expansion); Schrab et al. 2023 (aggregation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loudly.core.canon import Json
from loudly.core.seams import Floats
from loudly.core.values import Decision, Evidence, Verdict
from loudly.errors import DataError
from loudly.shift.encode import Encoding, encoding_of, spoken
from loudly.shift.table import as_table
from loudly.stats.permutation import aggregate, subsets, window_means

Single = NDArray[np.float32]

PERMUTATIONS = 299
# So many splits are held in memory at once.
AT_ONCE = 2_000
LEAST_ALPHA = 1e-4
DOUBT = 0.2
MOST_ROWS = 5_000
MOST_REFERENCE = 10**7
FEWEST = 20
WAVES = 6
FLOOR = 1e-3
BLAMED = 5


@dataclass(frozen=True, slots=True)
class Ranks:
    """Columns of the fit half, sorted and without NaN; the share of each that was missing, and the rows. Mid-ranks in (0, 1)."""

    columns: tuple[Floats, ...]
    missing: tuple[float, ...]
    rows: int = 1

    def __call__(self, rows: Floats) -> Single:
        """Shape: (n, d) -> (n, d); NaN stays NaN."""
        out = np.empty(rows.shape, dtype=np.float32)
        for j, known in enumerate(self.columns):
            value = rows[:, j]
            both = np.searchsorted(known, value, "left") + np.searchsorted(known, value, "right")
            out[:, j] = np.where(np.isnan(value), np.nan, (both + 1) / (2 * len(known) + 2))
        return out


@dataclass(frozen=True, slots=True)
class RankReference:
    """A reference that has been fitted; `check` holds windows against it. Made by `fit`."""

    encoding: Encoding
    ranks: Ranks
    centre: Floats
    scale: Floats
    distances: Floats
    score_ranks: Ranks | None
    held: tuple[Single, ...]
    means: tuple[Floats, ...]
    rows: int
    seed: int

    def check(
        self, window: Any, scores: Any = None, *, alpha: float = 0.05, tolerance: float = 0.05, permutations: int = PERMUTATIONS
    ) -> Verdict:
        """FAIL where the window surely differs and by more than is tolerated; PASS where it surely does not; else UNDECIDED.

        scores: (n,) or (n, k), what the model said of the rows, where the reference was fitted with scores.
        tolerance: the largest effect that is no matter: |P(window > reference) - 1/2| of a column or score, the change of its
        spread or of its missing share, the share of novel rows.
        The first evidence has the p-value of the whole; the others are the effects that are largest.

        >>> rng = np.random.default_rng(0)
        >>> reference = fit(rng.normal(size=(2000, 3)))
        >>> reference.check(rng.normal(size=(200, 3)) + [0, 0, 0.5]).decision.value
        'FAIL'
        """
        if not LEAST_ALPHA <= alpha < 1 or not tolerance >= 0:
            do = f"Take an alpha from {LEAST_ALPHA} to below 1, and a tolerance from 0 on."
            raise DataError("No window can be judged so.", seen=f"alpha {alpha}, tolerance {tolerance}", do=do)
        # A family that speaks alone has as many chances as there are families: its p-value must be able to reach alpha, too.
        permutations = max(permutations, int(np.ceil(len(FAMILIES) / alpha)) - 1)
        frame, notes = as_table(window, self.encoding.names)
        if frame.height == 0:
            return Verdict(Decision.UNDECIDED, "shift", "the window has no rows", missing="rows")
        given, told = frame.height, _scores(scores, frame.height, self.score_ranks)
        rng = np.random.default_rng((self.seed, given))
        if given > MOST_ROWS:
            kept = np.sort(rng.permutation(given)[:MOST_ROWS])
            frame, told = frame[kept], None if told is None else told[kept]
        rows = self.encoding(frame)
        embedded = self.embed(rows, told)
        p, detail = self._tested(embedded, len(rows), permutations, rng)
        said = (
            *(f"reference: {n}" for n in self.encoding.notes),
            *(f"window: {n}" for n in spoken(notes) if n.split(":")[0] in self.encoding.names),
            *(f"window: {n}: new, the reference does not know it" for n in frame.columns if n not in self.encoding.given),
        )
        if said:
            detail["notes"] = list(said)
        effects = self._effects(rows, told, embedded[2][:, 0], alpha)
        largest = abs(effects[0].effect or 0.0)
        whole = Evidence(
            "rank embedding, permuted", largest, n=given, about="all columns", unit="largest effect", tolerance=tolerance,
            p_value=p, detail=detail,
        )  # fmt: skip
        found = _verdict(whole, effects, alpha, tolerance, self._wanted)
        return replace(found, reason=f"{found.reason}; LOUD: {'; '.join(said)}") if said else found

    def _wanted(self, n: int, far: float, tolerance: float) -> str:
        """What it takes until the farthest end of an interval is within the tolerance, if it comes nearer as chance does."""
        if tolerance <= 0:
            return "a tolerance above zero"
        known, used = self.ranks.rows, min(n, MOST_ROWS)
        room = (tolerance / far) ** 2 * (1 / used + 1 / known)
        if room >= 1 / known + 1 / MOST_ROWS:
            return f"about {int(np.ceil(1 / (room - 1 / known))) - used:,} more rows"
        if room > 1 / MOST_ROWS and (more := int(np.ceil(2 / (room - 1 / MOST_ROWS)))) <= MOST_REFERENCE:
            return f"a reference of about {more:,} rows; its {self.rows:,} leave too much open for any window"
        return f"a wider tolerance: of a window {MOST_ROWS:,} rows are looked at, and more would not settle {tolerance:g}"

    def embed(self, rows: Floats, scores: Floats | None) -> tuple[Single, ...]:
        """The four embeddings of each row; a missing cell stands in the middle of everything but the missing family."""
        rank = self.ranks(rows)
        gone = np.isnan(rank)
        location = np.where(gone, np.float32(0.5), rank)
        spread = np.where(gone, np.float32(0.25), np.abs(location - np.float32(0.5)))
        distance = _distance(rows, self.centre, self.scale)
        novelty = -np.log1p(-Ranks((self.distances,), (0.0,))(distance[:, None]))
        parts = [location, spread, novelty, gone.astype(np.float32)]
        if scores is not None and self.score_ranks is not None:
            parts.append(_waves(self.score_ranks(scores)))
        return tuple(parts)

    def _tested(
        self, embedded: tuple[Single, ...], n: int, permutations: int, rng: np.random.Generator
    ) -> tuple[float, dict[str, Json]]:
        """The p-value of the whole, and of each family. Many permutations are drawn only where few leave a doubt.

        A first p-value above DOUBT is final; a second one is cut there, so the level stays exact, whatever the two share.
        Source: Besag & Clifford 1991 (Biometrika 78), in two steps.
        """
        drawn, ceiling = min(permutations, PERMUTATIONS), 1.0
        found = self._families(embedded, n, drawn, rng)
        p, each = aggregate(list(found.values()))
        if p <= DOUBT and drawn < permutations:
            drawn, ceiling = permutations, DOUBT
            found = self._families(embedded, n, drawn, rng)
            p, each = aggregate(list(found.values()))
        detail: dict[str, Json] = {"rows_used": n, "permutations": drawn, **dict(zip(found, each, strict=True))}
        return min(p, ceiling), detail

    def _families(self, embedded: tuple[Single, ...], n: int, permutations: int, rng: np.random.Generator) -> dict[str, Floats]:
        """Squared distance of the mean embedding in each split, by family: one matrix product for all of them."""
        pool = len(self.held[0]) + n
        named = zip(FAMILIES, self.held, embedded, self.means, strict=False)
        kept = [(name, np.concatenate([held, mine]), mean) for name, held, mine, mean in named]
        kept = [(name, pooled, mean) for name, pooled, mean in kept if name != "missing" or pooled.any()]
        features = np.concatenate([pooled for _, pooled, _ in kept], axis=1)
        drawn = (subsets(pool, n, min(AT_ONCE, permutations - at), rng)[min(at, 1) :] for at in range(0, permutations, AT_ONCE))
        means = np.concatenate([window_means(features, windows) for windows in drawn])
        ends = np.cumsum([pooled.shape[1] for _, pooled, _ in kept])[:-1]
        found = {}
        for (name, _, mean), part in zip(kept, np.split(means, ends, axis=1), strict=True):
            gap = part - mean
            found[name] = gap[:, 0] if name == "novelty" else np.einsum("bk,bk->b", gap, gap)
        return found

    def _effects(self, rows: Floats, scores: Floats | None, novelty: Single, alpha: float) -> tuple[Evidence, ...]:
        """What moved, the farthest first, with simultaneous intervals: one effect for everything that a family can see."""
        found = [_Effect("novel rows", "novelty", "share beyond the 99th percentile", novelty > -np.log(0.01), 0.01, None)]
        found += _moves(self.ranks, rows, self.encoding.outputs)
        if scores is not None and self.score_ranks is not None:
            found += _moves(self.score_ranks, scores, tuple(f"score {j}" for j in range(scores.shape[1])))
        z = NormalDist().inv_cdf(1 - alpha / (2 * len(found)))
        return tuple(sorted((e.evidence(z, alpha) for e in found), key=lambda e: -abs(e.effect or 0.0)))


@dataclass(frozen=True, slots=True)
class _Effect:
    """A mean of the window minus what it is in the reference. reference_n: rows behind `expected`, None where it is exact."""

    method: str
    about: str
    unit: str
    values: Any
    expected: float
    reference_n: int | None

    def evidence(self, z: float, alpha: float) -> Evidence:
        values = np.asarray(self.values, dtype=np.float64)
        n, mean = len(values), float(values.mean())
        # Agresti and Coull's four rows more: an interval from few equal values is wide, not empty.
        spread = (float(values.var()) * n + 1.0) / (n + 4)
        held = spread / self.reference_n if self.reference_n else 0.0
        half = z * float(np.sqrt(spread / n + held))
        effect = mean - self.expected
        return Evidence(self.method, effect, effect - half, effect + half, n, self.about, self.unit, 1 - alpha)


def _moves(ranks: Ranks, rows: Floats, names: tuple[str, ...]) -> list[_Effect]:
    """Of each column: where its ranks lie, how wide, and how many cells are missing."""
    found, rank = [], ranks(rows).astype(np.float64)
    for column, missing, name, known in zip(rank.T, ranks.missing, names, ranks.columns, strict=True):
        there = column[~np.isnan(column)]
        if len(there) and len(known):
            width, n = 2 * np.abs(there - 0.5), len(known)
            usual = float(2 * np.abs(Ranks((known,), (0.0,))(known[:, None])[:, 0] - 0.5).mean())
            found.append(_Effect("mean rank", name, "P(window > reference) - 1/2", there, 0.5, n))
            found.append(
                _Effect("spread of ranks", f"spread of {name}", "twice the mean distance from the middle rank", width, usual, n)
            )
        found.append(_Effect("missing share", f"missing {name}", "change of share", np.isnan(column), missing, ranks.rows))
    return found


FAMILIES = ("location", "spread", "novelty", "missing", "scores")


def fit(
    reference: Any, scores: Any = None, *, embed: Mapping[str, Callable[[Any], Floats]] | None = None, seed: int = 0
) -> RankReference:
    """Fits a reference: half of its rows for ranks, half for the null. Shapes: a table or (n, d); scores (n,) or (n, k).

    embed: a representation for each column of text or images; without one such a column is left out, and every verdict says so.
    Raises: DataError for fewer than 20 rows, or no column that can be compared.
    """
    encoding, frame = encoding_of(reference, embed), as_table(reference)[0]
    if frame.height < FEWEST:
        raise DataError(
            "The reference is too small.", seen=f"{frame.height} rows", do=f"Give at least {FEWEST}; thousands are better."
        )
    if not encoding.names:
        raise DataError("The reference has no column that can be compared.", seen="; ".join(encoding.notes) or "no columns")
    rows = encoding(frame)
    order = np.random.default_rng(seed).permutation(len(rows))
    one, two = order[: len(rows) // 2], order[len(rows) // 2 :][:MOST_ROWS]
    told = None if scores is None else _matrix(scores, len(rows))
    score_ranks = None if told is None else _sorted(told[one])
    half = rows[one]
    centre, scale = _scales(half)
    distances = np.sort(_distance(half, centre, scale))
    bare = RankReference(encoding, _sorted(half), centre, scale, distances, score_ranks, (), (), len(rows), seed)
    held = bare.embed(rows[two], None if told is None else told[two])
    fitted = bare.embed(half, None if told is None else told[one])
    means = tuple(part.mean(axis=0, dtype=np.float64) for part in fitted)
    return RankReference(encoding, bare.ranks, centre, scale, distances, score_ranks, held, means, len(rows), seed)


def detect(
    reference: Any,
    window: Any,
    reference_scores: Any = None,
    window_scores: Any = None,
    *,
    embed: Mapping[str, Callable[[Any], Floats]] | None = None,
    alpha: float = 0.05,
) -> Verdict:
    """Has the window moved from the reference? `fit` and `check` in one call; fit once where many windows are checked.

    >>> rng = np.random.default_rng(1)
    >>> detect(rng.normal(size=(500, 2)), rng.normal(size=(100, 2)) * 3).failed
    True
    """
    return fit(reference, reference_scores, embed=embed).check(window, window_scores, alpha=alpha)


def _verdict(
    whole: Evidence, effects: tuple[Evidence, ...], alpha: float, tolerance: float, wanted: Callable[[int, float, float], str]
) -> Verdict:
    assert whole.p_value is not None
    evidence, moved, differs = (whole, *effects[:BLAMED]), effects[0], whole.p_value <= alpha
    told = f"p {whole.p_value:.3g}; most in {moved.about}: {moved.effect:+.3f} [{moved.low:+.3f}, {moved.high:+.3f}]"
    far = max(max(abs(e.low or 0.0), abs(e.high or 0.0)) for e in effects)
    if differs and abs(moved.effect or 0.0) > tolerance:
        return Verdict(Decision.FAIL, "shift", f"it has moved: {told}", evidence)
    if far <= tolerance:
        return Verdict(Decision.PASS, "shift", f"within the tolerance of {tolerance:g}: {told}", evidence)
    reason = (
        "it differs, and by how much cannot be told yet"
        if differs
        else f"nothing was found, and {whole.n:,} rows could not show it"
    )
    missing = wanted(whole.n, far, tolerance)
    return Verdict(Decision.UNDECIDED, "shift", f"{reason}: {told}", evidence, missing)


def _scores(scores: Any, n: int, ranks: Ranks | None) -> Floats | None:
    if (scores is None) != (ranks is None):
        raise DataError("Scores belong to both or to neither.", seen="scores for one of reference and window")
    made = None if scores is None else _matrix(scores, n)
    if made is not None and ranks is not None and made.shape[1] != len(ranks.columns):
        seen = f"{made.shape[1]} a row, {len(ranks.columns)} in the reference"
        raise DataError("The reference has another number of scores a row.", seen=seen)
    return made


def _matrix(scores: Any, n: int) -> Floats:
    try:
        made = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as wrong:
        raise DataError("Scores must be numbers.", seen=str(wrong), do="Give what the model makes of each row.") from wrong
    made = made[:, None] if made.ndim == 1 else made
    if made.ndim != 2 or len(made) != n:
        raise DataError("Scores are one row each.", seen=f"shape {made.shape} for {n} rows")
    if not np.isfinite(made).all():
        raise DataError("A score is NaN or infinite.", seen=f"{int((~np.isfinite(made)).any(axis=1).sum())} rows")
    return made


def _sorted(rows: Floats) -> Ranks:
    columns = tuple(np.sort(column[~np.isnan(column)]) for column in rows.T)
    return Ranks(columns, tuple(1 - len(c) / len(rows) for c in columns), len(rows))


def _scales(rows: Floats) -> tuple[Floats, Floats]:
    """The middle of each column, and what counts as one step away from it: its deviation, and a little of its own reach.

    A column that is constant is measured by its middle, one of zeros alone by the others. A column of large numbers says nothing
    about the small ones of another. Shapes: (n, d) -> (d,), (d,).
    """
    known = [column[np.isfinite(column)] for column in rows.T]
    with np.errstate(over="ignore", invalid="ignore"):
        centre = np.array([float(c.mean()) if len(c) else 0.0 for c in known])
        sd = np.array([float(c.std()) if len(c) else 0.0 for c in known])
        reach = np.array([float(np.abs(c - m).max(initial=0.0)) for c, m in zip(known, centre, strict=True)])
        own = np.where(reach > np.abs(centre) * 1e-9, reach, np.abs(centre))
        return centre, sd + FLOOR * np.where(own > 0, own, np.sqrt(np.mean(sd**2)) + 1e-12)


def _distance(rows: Floats, centre: Floats, scale: Floats) -> Floats:
    """Mean squared standardised distance over the columns that are known."""
    with np.errstate(over="ignore", invalid="ignore"):
        z = (rows - centre) / scale
        out: Floats = np.where(np.isnan(z), 0.0, np.minimum(z * z, 1e12)).mean(axis=1)
    return out


def _waves(ranks: Single) -> Single:
    """sqrt(2) cos(π k u) / k for k up to 6: squared means sum to the Cramér-von Mises statistic."""
    parts = [np.float32(np.sqrt(2) / k) * np.cos(np.float32(np.pi * k) * ranks) for k in range(1, WAVES + 1)]
    return np.concatenate(parts, axis=1)
