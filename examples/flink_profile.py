"""The merge of loudly's windows as a PyFlink job: Flink cuts the windows and moves the bytes, the summaries are ours.

Prints every window of the job beside the same window from `loudly.shift` in one process; exits 1 where a byte differs.
Run it with `make flink` (see README.md): PyFlink needs an environment of its own, and Java.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from pyflink.common import Duration, Time, Types, WatermarkStrategy
from pyflink.common.watermark_strategy import TimestampAssigner
from pyflink.datastream import ProcessWindowFunction, StreamExecutionEnvironment
from pyflink.datastream.window import TumblingEventTimeWindows

from loudly.core.clock import HOUR, MINUTE, instant, iso
from loudly.shift.event_time import Batch
from loudly.shift.map_reduce import merged
from loudly.shift.window_shapes import Tumbling
from loudly.shift.window_state import Codec
from loudly.shift.windows import Windows, last_words

EDGES = np.linspace(-3, 3, 63)
DISORDER = 10 * MINUTE
Row = tuple[int, int, float]  # worker, event time in ms, value
Word = tuple[int, bytes]  # start of the window in µs, its summary


@dataclass(frozen=True)
class Counts:
    """Counts in 64 bins; a profile of `loudly.shift` takes its place in earnest: anything with `merge` does."""

    counts: Any

    def merge(self, other: Counts) -> Counts:
        return Counts(self.counts + other.counts)


def counts(table: pl.DataFrame) -> Counts:
    return Counts(np.bincount(np.searchsorted(EDGES, table["x"].to_numpy()), minlength=64).astype("<i8"))


CODEC: Codec[Counts] = Codec(lambda c: c.counts.tobytes(), lambda b: Counts(np.frombuffer(b, dtype="<i8")))


def rows(n: int = 4_000) -> list[Row]:
    """A day of rows from two workers, up to ten minutes out of order."""
    rng = np.random.default_rng(0)
    at = instant("2024-03-01") + np.sort(rng.integers(0, 24 * HOUR, n)) - rng.integers(0, DISORDER, n)
    return [(i % 2, int(t) // 1000, float(x)) for i, (t, x) in enumerate(zip(at, rng.normal(size=n), strict=True))]


def by_loudly(data: Iterable[Row]) -> dict[int, bytes]:
    """One process."""
    _, at, x = (np.array(column) for column in zip(*data, strict=True))
    windows = Windows(Tumbling(HOUR), counts, disorder=DISORDER)
    state, first = windows.update(windows.init(), Batch(pl.DataFrame({"x": x}), at.astype(np.int64) * 1000))
    _, rest = windows.advance(state)
    return {s: CODEC.dump(w.value) for s, w in last_words([*first.spoken, *rest.spoken]).items() if w.value is not None}


class AtOf(TimestampAssigner):
    """The event time of a row, for Flink."""

    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        return int(value[1])


class Make(ProcessWindowFunction):
    """The summary of one worker's rows of one window."""

    def process(self, key: int, context: Any, elements: Iterable[Any]) -> Iterable[Word]:
        yield context.window().start * 1000, CODEC.dump(counts(pl.DataFrame({"x": [e[2] for e in elements]})))


def by_flink(data: list[Row]) -> dict[int, bytes]:
    """Two keyed workers make summaries of their own windows; a second step merges those of one window."""
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(2)
    env.set_python_executable(sys.executable)
    late = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_millis(DISORDER // 1000)).with_timestamp_assigner(AtOf())
    hourly = TumblingEventTimeWindows.of(Time.hours(1))
    word = Types.TUPLE([Types.LONG(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
    made = (
        env.from_collection(data, type_info=Types.TUPLE([Types.INT(), Types.LONG(), Types.DOUBLE()]))
        .assign_timestamps_and_watermarks(late)
        .key_by(lambda row: row[0])
        .window(hourly)
        .process(Make(), word)
        .key_by(lambda made: made[0])
        .window(hourly)
        .reduce(lambda one, other: (one[0], merged(one[1], other[1], CODEC)), output_type=word)
    )
    with made.execute_and_collect() as found:
        return {int(start): bytes(summary) for start, summary in found}


def main() -> int:
    if shutil.which("java") is None:
        print(
            "LOUD Flink runs on Java, and there is none here: install a JRE 11 or 17 (e.g. default-jre-headless).", file=sys.stderr
        )
        return 3
    data = rows()
    ours, theirs = by_loudly(data), by_flink(data)
    for start in sorted({*ours, *theirs}):
        same = ours.get(start) == theirs.get(start)
        total = int(CODEC.load(ours[start]).counts.sum()) if start in ours else 0
        print(f"{iso(start):<17}{total:>6} rows  {'the same bytes' if same else 'DIFFERENT'}")
    print(f"{len(ours)} windows, {'all the same bytes' if ours == theirs else 'NOT the same'} from Flink and from one process")
    return 0 if ours == theirs else 1


if __name__ == "__main__":
    sys.exit(main())
