"""Batches form while the model is busy, keep to their size, and a queue that is full says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("msgspec")

from loudly.adapters.batching import MOST_STUCK, Batcher, Full, Late
from loudly.core.values import Field, Kind, Role, Schema
from loudly.serve.attempt import Attempt
from loudly.serve.front import Answered
from loudly.serve.rows import Rows

SCHEMA = Schema((Field("id", Kind.TEXT, Role.KEY), Field("x", Kind.NUMBER)))
OTHER = Schema((Field("id", Kind.TEXT, Role.KEY), Field("x", Kind.NUMBER, nullable=True)))


@dataclass
class Echo:
    """A front that answers x, waits where it is told to, and keeps the sizes of its batches."""

    wait: Callable[[], Any] = lambda: None
    sizes: list[int] = field(default_factory=list)
    settled: int = 0
    name: str = "echo"
    key: str = "id"
    label_name: str = "y"

    def answer(self, rows: Rows, attempt: Attempt) -> Answered:
        self.sizes.append(rows.height)
        self.wait()
        if -1.0 in rows.columns["x"]:
            raise ValueError("minus one")
        attempt.close()
        n = rows.height
        return Answered(list(rows.columns["x"]), ["e/1"] * n, ["control"] * n, [1.0] * n, [False] * n)

    def refuse(self, rows: int, why: str) -> None:
        raise NotImplementedError

    def settle(self) -> None:
        self.settled += 1

    def version(self) -> str | None:
        return "e/1"

    def schema(self) -> Schema | None:
        return SCHEMA

    def example(self) -> Mapping[str, Any]:
        return {}

    def give_up(self, rows: Rows, attempt: Attempt) -> Answered:
        raise NotImplementedError

    def lose(self, rows: Rows, attempt: Attempt) -> None:
        raise NotImplementedError

    def label(self, labels: list[Mapping[str, Any]]) -> Mapping[str, Any]:
        return {}

    def status(self) -> Mapping[str, Any]:
        return {}

    def flush(self) -> None:
        pass


def one(*values: float, schema: Schema = SCHEMA) -> Rows:
    return Rows(schema, {"id": [str(v) for v in values], "x": list(values)}, len(values))


async def answer(batcher: Batcher, rows: Rows) -> list[float]:
    answered, first = await batcher.submit(rows)
    return list(answered.predictions[first : first + rows.height])


@pytest.mark.parametrize("inline", [False, True])
def test_everybody_gets_their_own_and_requests_of_one_tick_go_together(inline: bool) -> None:
    front = Echo()

    async def main() -> list[list[float]]:
        batcher = Batcher(front, 64, 1000, 5.0, inline)
        found = await asyncio.gather(*(answer(batcher, one(*map(float, range(i, i + 1 + i % 3)))) for i in range(40)))
        assert await answer(batcher, one(7.0)) == [7.0]
        batcher.stop()
        return found

    assert asyncio.run(main()) == [[float(v) for v in range(i, i + 1 + i % 3)] for i in range(40)]
    assert sum(front.sizes) == sum(1 + i % 3 for i in range(40)) + 1
    assert max(front.sizes) <= 64
    assert len(front.sizes) == 3, "two batches of what was there, one of what came later"
    assert front.settled >= 2


def test_a_lone_request_waits_for_nobody_and_a_busy_model_makes_batches() -> None:
    gate = threading.Semaphore(0)
    front = Echo(wait=gate.acquire)

    async def main() -> None:
        batcher = Batcher(front, 8, 1000, 5.0)
        first = asyncio.ensure_future(answer(batcher, one(1.0)))
        while not front.sizes:
            await asyncio.sleep(0.001)
        assert front.sizes == [1], "idle: at once, alone"
        rest = [asyncio.ensure_future(answer(batcher, one(float(i)))) for i in range(20)]
        await asyncio.sleep(0.02)
        assert front.sizes == [1], "busy: collected"
        for _ in range(8):
            gate.release()
        assert await first == [1.0]
        assert [v for found in await asyncio.gather(*rest) for v in found] == [float(i) for i in range(20)]
        batcher.stop()

    asyncio.run(main())
    assert front.sizes == [1, 8, 8, 4]


def test_a_large_request_runs_alone_and_schemas_are_not_mixed() -> None:
    front = Echo()

    async def main() -> None:
        batcher = Batcher(front, 8, 1000, 5.0)
        parts = [one(1.0), one(*map(float, range(50))), one(2.0), one(3.0, schema=OTHER), one(4.0)]
        await asyncio.gather(*(answer(batcher, p) for p in parts))
        batcher.stop()

    asyncio.run(main())
    assert front.sizes == [1, 50, 1, 1, 1]


def test_a_full_queue_refuses_and_says_when_and_is_usable_again() -> None:
    gate = threading.Semaphore(0)
    front = Echo(wait=gate.acquire)

    async def main() -> None:
        batcher = Batcher(front, 4, 10, 5.0)
        running = [asyncio.ensure_future(answer(batcher, one(0.0)))]
        while not front.sizes:
            await asyncio.sleep(0.001)
        running += [asyncio.ensure_future(answer(batcher, one(float(i)))) for i in range(10)]
        await asyncio.sleep(0)
        with pytest.raises(Full) as full:
            batcher.submit(one(99.0))
        assert 0 < full.value.seconds <= 60
        assert batcher.waiting == 10
        for _ in range(20):
            gate.release()
        await asyncio.gather(*running)
        assert batcher.waiting == 0
        assert await answer(batcher, one(5.0)) == [5.0]
        batcher.stop()

    asyncio.run(main())


def test_what_the_front_raises_reaches_its_batch_and_no_other() -> None:
    front = Echo()

    async def main() -> None:
        batcher = Batcher(front, 8, 100, 5.0)
        with pytest.raises(ValueError, match="minus one"):
            await answer(batcher, one(-1.0))
        assert await answer(batcher, one(3.0)) == [3.0]
        batcher.stop()

    asyncio.run(main())


def test_threads_that_hang_are_counted_bounded_and_come_back() -> None:
    gate = threading.Event()
    front = Echo(wait=gate.wait)

    async def main() -> None:
        batcher = Batcher(front, 1, 100, 0.1)
        for _ in range(MOST_STUCK):
            with pytest.raises(Late) as late:
                await answer(batcher, one(1.0))
            assert late.value.attempt is not None
        assert batcher.dead
        with pytest.raises(Late) as late:
            await answer(batcher, one(1.0))
        assert late.value.attempt is None, "it did not even begin"
        assert len(front.sizes) == MOST_STUCK
        gate.set()
        for _ in range(200):
            if not batcher.stuck:
                break
            await asyncio.sleep(0.01)
        assert batcher.stuck == 0
        assert await answer(batcher, one(2.0)) == [2.0]
        batcher.stop()

    asyncio.run(main())
