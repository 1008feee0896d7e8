"""Who may ask, and how often: API keys with roles, and a token bucket for each key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loudly.config import secret
from loudly.core.clock import stopwatch
from loudly.errors import ConfigError, nearest

ROLES = ("predict", "feedback", "admin")


class Bucket:
    """Tokens that refill at `rate` a second up to `burst`."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._tokens = rate, burst, burst
        self._at = stopwatch()

    def wait(self) -> float:
        """Takes a token and returns 0, or takes none and returns the seconds until there is one."""
        now = stopwatch()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who asks: what it may do, and its bucket (None: no limit)."""

    roles: tuple[str, ...]
    bucket: Bucket | None

    def may(self, role: str) -> bool:
        """Whether it has the role; an admin has all of them."""
        return role in self.roles or "admin" in self.roles


class Door:
    """Knows the keys by their digest; without keys everybody may do everything, at one common rate."""

    def __init__(self, keys: Mapping[str, tuple[str, ...]], rate: float, burst: float) -> None:
        """keys: secret -> roles.  rate: requests a second and key, 0 for no limit.  burst: how many at once."""
        self._keys = {_digest(k.encode()): Visitor(roles, _bucket(rate, burst)) for k, roles in keys.items()}
        self._anybody = Visitor(ROLES, _bucket(rate, burst))

    def who(self, key: bytes) -> Visitor | None:
        """The visitor of a key; None for one that is not known, or none."""
        return self._keys.get(_digest(key)) if self._keys else self._anybody


def keys_of(said: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Keys as `[server] keys` says them, "role+role=env:NAME": secret -> roles.

    Raises: ConfigError for an unknown role, a secret that stands in the file, a variable that is not set, a key given twice.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in said:
        names, _, source = line.partition("=")
        roles = tuple(r.strip() for r in names.split("+"))
        for role in roles:
            if role not in ROLES:
                raise ConfigError(f"[server] keys names an unknown role {role!r}.", do=nearest(role, ROLES))
        if not source.strip().startswith("env:"):
            raise ConfigError("A key stands in loudly.toml.", seen=f"{names}=...", do=f'Write "{names}=env:NAME" and set NAME.')
        value = secret(source.strip())
        if not value:
            raise ConfigError("The environment does not hold a key.", seen=source.strip(), do=f"Set {source.strip()[4:]}.")
        if value in found:
            raise ConfigError("Two keys are the same.", seen=source.strip(), do='Join their roles: "predict+feedback=env:NAME".')
        found[value] = roles
    return found


def _bucket(rate: float, burst: float) -> Bucket | None:
    return Bucket(rate, max(1.0, burst or rate)) if rate > 0 else None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
