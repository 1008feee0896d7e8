"""Kafka against librdkafka's own cluster in this process: real protocol, no broker to install."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from loudly import plugins
from loudly.errors import DataError, StoreError
from loudly.shift.checkpoint import Checkpoint, follow
from loudly.shift.event_time import NO_TIME, Batch
from loudly.shift.window_shapes import Tumbling
from loudly.shift.window_state import Codec
from loudly.shift.windows import Windows, last_words
from loudly.testing.faults import Killed
from loudly.testing.source_case import TABLE, SourceCase

kafka = pytest.importorskip("confluent_kafka")
PARTITIONS = 4  # what the mock cluster gives every topic
SECOND = 1_000_000
QUIET = {"log_level": 0, "fetch.wait.max.ms": 20}  # an end is told at once


@dataclass(frozen=True)
class Total:
    n: int
    x: int

    def merge(self, other: Total) -> Total:
        return Total(self.n + other.n, self.x + other.x)


CODEC: Codec[Total] = Codec(lambda t: json.dumps([t.n, t.x]).encode(), lambda b: Total(*json.loads(b)))
WINDOWS = Windows(Tumbling(60 * SECOND), lambda t: Total(t.height, int(t["x"].sum())), disorder=30 * SECOND, lateness=10**12)


@dataclass
class Cluster:
    """A producer with the cluster it brought."""

    producer: Any
    servers: str

    def send(self, topic: str, values: Sequence[bytes | None], partition: int | None = None, at: int = 0) -> None:
        for i, value in enumerate(values):
            where = i % PARTITIONS if partition is None else partition
            self.producer.produce(topic, value=value, partition=where, timestamp=at + i if at else 0)
        assert self.producer.flush(10) == 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    producer = kafka.Producer({"bootstrap.servers": "in this process", "test.mock.num.brokers": 1, **QUIET})
    brokers = producer.list_topics(timeout=10).brokers.values()
    yield Cluster(producer, ",".join(f"{b.host}:{b.port}" for b in brokers))
    del producer


def source_of(cluster: Cluster, topic: str, **more: Any) -> Any:
    settings = {"bootstrap.servers": cluster.servers, "group.id": topic, **QUIET}
    return plugins.resolve("source", "kafka")(topic, settings, **{"time": "at", **more})


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        {"at": int(t), "x": int(x)} for t, x in zip(np.sort(rng.integers(0, 600, n)) * SECOND, rng.integers(-9, 9, n), strict=True)
    ]


def told(values: Sequence[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(v).encode() for v in values]


def expected(values: Sequence[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    by_minute = pl.DataFrame(values).group_by(pl.col("at") // (60 * SECOND)).agg(pl.len(), pl.col("x").sum())
    return {int(m) * 60 * SECOND: (int(n), int(x)) for m, n, x in by_minute.iter_rows()}


def words(checkpoint: Checkpoint[Total]) -> dict[int, tuple[int, int]]:
    return {s: (w.value.n, w.value.x) for s, w in last_words(checkpoint.spoken()).items() if w.value is not None}


def read(source: Any) -> Batch:
    """All that a source has, as one: how a partition is cut into batches is the broker's speed."""
    found = list(source.read({}))
    rows, at, numbers = pl.concat([b.rows for b in found]), [b.at for b in found], [b.offsets for b in found]
    (partition,) = {b.source for b in found}
    return Batch(rows, np.concatenate(at), partition, np.concatenate(numbers))


def test_every_row_is_folded_once_though_the_process_dies_before_it_can_commit(cluster: Cluster, tmp_path: Path) -> None:
    values = rows(800)
    cluster.send("rows", told(values[:500]))

    class DyingSource:
        """Dies at the n-th commit: the checkpoint is safe, the group's offsets are not."""

        def __init__(self, source: Any, n: int) -> None:
            self.read, self._commit, self._n = source.read, source.commit, n

        def commit(self, offsets: Any) -> None:
            self._n -= 1
            if self._n == 0:
                raise Killed
            self._commit(offsets)

    for n in (1, 2, 3):
        source, checkpoint = source_of(cluster, "rows", batch=60), Checkpoint(tmp_path / "k.db", WINDOWS, CODEC)
        with pytest.raises(Killed):
            follow(WINDOWS, DyingSource(source, n), checkpoint)
        source.close()
        checkpoint.close()
    cluster.send("rows", told(values[500:]))
    source, checkpoint = source_of(cluster, "rows", batch=60), Checkpoint(tmp_path / "k.db", WINDOWS, CODEC)
    state = follow(WINDOWS, source, checkpoint, end=True)
    assert words(checkpoint) == expected(values)
    assert sum(state.offsets.values()) == 800
    assert set(state.offsets) == {f"rows/{p}" for p in range(PARTITIONS)} == set(source.partitions)
    reader = kafka.Consumer({"bootstrap.servers": cluster.servers, "group.id": "rows", **QUIET})
    held = reader.committed([kafka.TopicPartition("rows", p) for p in range(PARTITIONS)], timeout=10)
    assert {f"rows/{t.partition}": t.offset for t in held} == dict(state.offsets), "the group stands where the checkpoint does"
    for opened in (reader, source, checkpoint):
        opened.close()


class TestKafka(SourceCase):
    @pytest.fixture
    def source(self, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
        cluster.send(tmp_path.name, told(TABLE.to_dicts()))
        made = source_of(cluster, tmp_path.name, batch=9)
        yield made
        made.close()


CHILD = """
import os, signal, sys
from pathlib import Path
from test_kafka_source import CODEC, QUIET, WINDOWS
from loudly.adapters.kafka_source import KafkaSource
from loudly.shift.checkpoint import Checkpoint, follow

heard = []
def tell(step):
    heard.append(step)
    if len(heard) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

settings = {"bootstrap.servers": sys.argv[1], "group.id": "killed", **QUIET}
follow(WINDOWS, KafkaSource("killed", settings, time="at", batch=40), Checkpoint(Path(sys.argv[2]), WINDOWS, CODEC), tell=tell)
"""


def test_a_real_kill_folds_every_row_once(cluster: Cluster, tmp_path: Path) -> None:
    values = rows(900, seed=1)
    cluster.send("killed", told(values))
    here = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for after in (2, 5):
        child = [sys.executable, "-c", CHILD, cluster.servers, str(tmp_path / "k.db"), str(after)]
        assert subprocess.run(child, env={**os.environ, "PYTHONPATH": here}, check=False).returncode == -signal.SIGKILL
    source, checkpoint = source_of(cluster, "killed"), Checkpoint(tmp_path / "k.db", WINDOWS, CODEC)
    assert 0 < sum(checkpoint.load().offsets.values()) < 900
    follow(WINDOWS, source, checkpoint, end=True)
    assert words(checkpoint) == expected(values)
    source.close()
    checkpoint.close()


def test_nothing_is_committed_before_the_checkpoint(cluster: Cluster) -> None:
    cluster.send("careful", told(rows(20)))
    source = source_of(cluster, "careful")
    assert sum(b.rows.height for b in source.read({})) == 20
    source.close()
    reader = kafka.Consumer({"bootstrap.servers": cluster.servers, "group.id": "careful", **QUIET})
    held = reader.committed([kafka.TopicPartition("careful", p) for p in range(PARTITIONS)], timeout=10)
    assert all(t.offset == kafka.OFFSET_INVALID for t in held)
    reader.close()


def test_messages_that_are_no_rows_are_counted_and_named(cluster: Cluster) -> None:
    cluster.send("mixed", [b'{"at": 1, "x": 1}', b"{", None, b"[1]", b'{"at": 2, "x": 2}'], partition=0)
    source = source_of(cluster, "mixed", batch=2)
    batch = read(source)
    assert batch.rows["x"].to_list() == [1, 2]
    assert batch.offsets.tolist() == [0, 4]
    assert source.unreadable == 3
    assert [(u.partition, u.offset) for u in source.refused] == [(0, 1), (0, 2), (0, 3)]
    assert "no value" in source.refused[1].reason
    cluster.send("mixed", [b"{"], partition=0)
    for _ in range(3):  # nothing behind it carries the checkpoint past it
        assert not list(source.read({"mixed/0": 5}))
    assert source.unreadable == len(source.refused) == 4
    source.close()


def test_times_are_those_of_the_rows_or_of_the_messages(cluster: Cluster) -> None:
    cluster.send(
        "texts", [b'{"t": "2024-07-01T12:00:00+02:00"}', b'{"t": "2024-07-01T10:00:01Z"}'], partition=0, at=1_700_000_000_000
    )
    stamped, by_text = source_of(cluster, "texts", time=""), source_of(cluster, "texts", time="t")
    one = read(stamped)
    assert one.at.tolist() == [1_700_000_000_000_000, 1_700_000_000_001_000]
    two = read(by_text)
    assert np.diff(two.at).tolist() == [SECOND]
    nowhere = source_of(cluster, "texts", time="nowhere")
    with pytest.raises(DataError, match="no time"):
        list(nowhere.read({}))
    for source in (stamped, by_text, nowhere):
        source.close()


def test_a_text_that_is_no_time_holds_nobody_up_and_one_without_a_zone_is_asked_about(cluster: Cluster) -> None:
    plain = [
        b'{"t": "2024-07-01T12:00:00"}',
        b'{"t": "yesterday"}',
        b'{"t": "2024-07-01 12:00:01.5"}',
        b'{"t": "2024-07-01T10:00:02Z"}',
    ]
    cluster.send("local", plain, partition=0)
    here, nowhere = source_of(cluster, "local", time="t", naive="Europe/Berlin"), source_of(cluster, "local", time="t")
    batch = read(here)
    assert (batch.at - batch.at[0]).tolist()[2:] == [1.5 * SECOND, 2 * SECOND]
    assert batch.at[1] == NO_TIME
    with pytest.raises(DataError, match="have no zone"):
        list(nowhere.read({}))
    for source in (here, nowhere):
        source.close()


def test_rows_deleted_before_they_were_folded_are_named_and_never_skipped(cluster: Cluster) -> None:
    cluster.send("short", told(rows(5)), partition=0)
    source = source_of(cluster, "short")
    with pytest.raises(StoreError, match="deleted before they were folded"):
        list(source.read({"short/0": 900}))
    source.close()


def test_brokers_that_do_not_answer_are_an_error() -> None:
    made = plugins.resolve("source", "kafka")("rows", {"bootstrap.servers": "127.0.0.1:9", **QUIET}, patience=0.5)
    with pytest.raises(StoreError, match="cannot be read"):
        list(made.read({}))
    made.close()
