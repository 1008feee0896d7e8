"""One spelling for every value: canonical JSON, digests, and hashes of units that are the same everywhere."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]


def canonical(value: Json) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; NaN and infinities are refused.

    >>> canonical({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(data: bytes) -> str:
    """SHA-256 in hex: the name of bytes in every store.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def finite(value: float | None) -> float | None:
    """The number, or None where there is none to tell (NaN, infinity): JSON has no word for them."""
    return None if value is None or not math.isfinite(value) else float(value)


def unit_draw(unit: str, salt: str) -> float:
    """A number in [0, 1) that depends on the unit and the salt alone: same worker, other worker, after a restart.

    Source: BLAKE2b, 53 bits.  Cost: about 1 µs.

    >>> unit_draw("user-7", "rollout-1") == unit_draw("user-7", "rollout-1")
    True
    """
    raw = hashlib.blake2b(f"{salt}\x1f{unit}".encode(), digest_size=8).digest()
    return (int.from_bytes(raw, "big") >> 11) / 9007199254740992.0


def unit_draws(unit: str, salt: str, n: int) -> list[float]:
    """As many numbers in [0, 1) as are asked for, which depend on the unit and the salt alone.

    Source: SHAKE-128, 53 bits each.  Cost: about 1 µs and 0.1 µs a number.

    >>> unit_draws("query-7", "rollout-1", 2) == unit_draws("query-7", "rollout-1", 9)[:2]
    True
    """
    raw = hashlib.shake_128(f"{salt}\x1f{unit}".encode()).digest(8 * n)
    return [(int.from_bytes(raw[i : i + 8], "big") >> 11) / 9007199254740992.0 for i in range(0, 8 * n, 8)]
