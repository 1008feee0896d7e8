"""How a candidate meets traffic, as text and as settings: "shadow 1d", "canary 5% 25% 100%", "blue-green", "ab 50% for 14d"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from loudly.core.clock import DAY, duration
from loudly.errors import ConfigError, nearest

STRATEGIES = ("shadow", "canary", "blue-green", "ab")
AB_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """One stage of a rollout.

    steps: shares of traffic for the candidate, the last is 1; for ab the one share.  hold: least time (µs) a step lasts; for
    shadow its length.
    margin: metric units by which the candidate may be worse.  alpha: risk of a wrong promotion, and of a wrong rollback, over all
    looks together: half of it is the interval's on each side, half the errors' (the guard on latency takes a tenth of it more).
    days: labelled days that must have been seen before any verdict; rows of one day are not independent.
    paired: both versions score each row of the rollout, so that labels judge both on the same rows; right where the answer
    does not influence the label.  slice_margin: the same for each declared slice.  deadline: µs after the stage began.
    """

    strategy: str
    steps: tuple[float, ...] = (1.0,)
    hold: int = DAY
    margin: float = 0.02
    slice_margin: float = 0.05
    alpha: float = 0.05
    days: int = 4
    rows: int = 500
    paired: bool = True
    deadline: int = 14 * DAY


def parse_rollout(
    text: str,
    *,
    margin: float | None = None,
    slice_margin: float | None = None,
    alpha: float | None = None,
    deadline: int | None = None,
    paired: bool | None = None,
    days: int | None = None,
) -> RolloutSpec:
    """The settings of a stage.

    Raises: ConfigError for an unknown strategy, shares that do not grow to 100 %, an impossible margin or risk.

    >>> parse_rollout("canary 5% 25% 100% every 2d").steps
    (0.05, 0.25, 1.0)

    An A/B test ends when it is sure, and at the latest after the time given here; it is never paired.

    >>> parse_rollout("ab 20% for 21d").deadline // DAY
    21
    """
    name, _, rest = text.strip().partition(" ")
    if name not in STRATEGIES:
        raise ConfigError(f"There is no strategy {name!r}.", do=nearest(name, STRATEGIES))
    spec = _given(RolloutSpec(name), margin, slice_margin, alpha, deadline, paired, days)
    words = re.sub(r"\b(every|for)\b", " ", rest).split()
    shares = tuple(float(w[:-1]) / 100 for w in words if w.endswith("%"))
    times = [w for w in words if not w.endswith("%")]
    if len(times) > 1:
        raise ConfigError(f"A stage has one duration, {text!r} has {len(times)}.", do='e.g. "canary 5% 100% every 1d"')
    if name == "ab":
        spec = replace(spec, steps=(AB_SHARE,), paired=False, deadline=duration(times[0]) if times else spec.deadline)
    elif times:
        spec = replace(spec, hold=duration(times[0]))
    if shares:
        spec = replace(spec, steps=shares)
    return _checked(spec, text)


def _given(
    spec: RolloutSpec,
    margin: float | None,
    slice_margin: float | None,
    alpha: float | None,
    deadline: int | None,
    paired: bool | None,
    days: int | None,
) -> RolloutSpec:
    changes: dict[str, Any] = {
        "margin": margin,
        "slice_margin": slice_margin,
        "alpha": alpha,
        "deadline": deadline,
        "paired": paired,
        "days": days,
    }
    return replace(spec, **{name: value for name, value in changes.items() if value is not None})


def _checked(spec: RolloutSpec, text: str) -> RolloutSpec:
    if spec.strategy == "canary" and (list(spec.steps) != sorted(set(spec.steps)) or spec.steps[-1] != 1.0):
        raise ConfigError("A canary's shares grow to 100 %.", seen=text, do='e.g. "canary 5% 25% 100%"')
    if spec.strategy == "ab" and (len(spec.steps) != 1 or not 0 < spec.steps[0] < 1):
        raise ConfigError("An A/B test has one share, between 0 and 100 %.", seen=text, do='e.g. "ab 50% for 14d"')
    if any(not 0 < share <= 1 for share in spec.steps):
        raise ConfigError("A share is above 0 and at most 100 %.", seen=text)
    if not 0 < spec.alpha < 0.5 or spec.margin < 0 or spec.hold < 0 or spec.days < 1:
        raise ConfigError("An impossible rollout.", seen=f"alpha={spec.alpha}, margin={spec.margin}, days={spec.days}")
    if spec.deadline <= spec.hold * (len(spec.steps) if spec.strategy == "canary" else 1):
        raise ConfigError(
            "The deadline comes before the last step could end.",
            seen=text,
            do="Give more time or fewer, shorter steps.",
        )
    return spec
