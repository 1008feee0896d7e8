"""How a candidate meets traffic, as text and as settings: "shadow 1d", "canary 5% 25% 100%", "blue-green", "ab 50% for 14d",
"ab 40% 30% 30% for 14d", "thompson among 3 for 14d", "epsilon-greedy 0.1 for 14d", "linucb on age, income for 14d",
"interleave team draft for 14d", "interleave probabilistically for 14d"; A/B tests and bandits "... ramped 1% 10% 100% every 1d"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from loudly.core.clock import DAY, duration
from loudly.core.values import plain
from loudly.errors import ConfigError, nearest

LINEAR = ("linucb", "linear-thompson")
BANDITS = ("epsilon-greedy", "thompson", "ucb1", *LINEAR)
# How two rankings are interleaved, as it is written, and the strategy that does it.
INTERLEAVE = "interleave"
INTERLEAVED = {"team draft": "team-draft", "probabilistically": "probabilistic"}
STRATEGIES = ("shadow", "canary", "blue-green", "ab", *BANDITS, INTERLEAVE)
EXAMPLE = 'e.g. "ab 40% 30% 30% for 14d", "thompson among 3 for 14d" or "linucb on age, income for 14d"'
COLUMNS = r"\b(?:on|adjusted by)\s+(.+?)(?=\s+(?:for|every|among|on|adjusted)\b|\s+[\d.]+[%a-z]*(?:\s|$)|$)"
AMONG, NUMBER = r"\bamong\s+(\d+)(?!\S)", r"\d*\.?\d+"
RAMPED, RAMP = r"\bramped\b", rf"((?:\s*{NUMBER}%)+)(?:\s+every\s+(\S+))?"
RAMP_EXAMPLE = 'e.g. "ab 50% for 21d ramped 1% 10% 100% every 1d"'
# What a digest leaves out where it is not used, so that it stays what it was before there were such settings.
LATER = ("shares", "arms", "floor", "columns", "wait", "share", "because", "ramp", "relative")


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """One stage of a rollout.

    steps: shares of traffic for the candidate, the last is 1; for ab the one share of all candidates.  hold: least time (µs) a
    step lasts; for shadow its length.
    margin: metric units by which the candidate may be worse.  alpha: risk of a wrong promotion, and of a wrong rollback, over all
    looks together: half of it is the interval's on each side, half the errors' (the guard on latency takes a tenth of it more).
    days: labelled days that must have been seen before any verdict; rows of one day are not independent.
    paired: both versions score each row of the rollout, so that labels judge both on the same rows; right where the answer
    does not influence the label.  slice_margin: the same for each declared slice.  deadline: µs after the stage began.
    wait: µs after its answer from which a row counts for a promotion, so that slow labels are not missed; None: nobody knows how
    long.  share: of rows of that age that had a label so far.  because: where both come from. The loop fills these in.
    ramp: shares of all units that take part, step by step; each lasts `hold` at least.
    relative: whether the margins are shares of what is expected of the champion; the loop makes them units of the metric.
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
    shares: tuple[float, ...] = ()
    arms: int = 2
    floor: float = 0.05
    columns: tuple[str, ...] = ()
    wait: int | None = 0
    share: float = 0.0
    because: str = ""
    ramp: tuple[float, ...] = ()
    relative: bool = False

    @property
    def bandit(self) -> bool:
        """Whether its shares follow rewards."""
        return self.strategy in BANDITS

    @property
    def experiments(self) -> bool:
        """Whether it tells arms apart by units of their own: an A/B test or a bandit, of many arms or on a ramp."""
        return self.strategy == "ab" or self.bandit

    @property
    def growing(self) -> tuple[float, ...]:
        """The shares that it comes to, step by step: of the units that take part, or of the candidate."""
        return self.ramp or self.steps

    @property
    def interleaves(self) -> bool:
        """Whether it merges rankings into one list."""
        return self.strategy in INTERLEAVED.values()

    @property
    def rewarded(self) -> bool:
        """Whether it learns from what came of an answer once all labels have had their time, not from how good a score was."""
        return self.bandit or self.interleaves

    @property
    def contextual(self) -> bool:
        """Whether it chooses by what is known of a row."""
        return self.strategy in LINEAR

    def said(self) -> dict[str, Any]:
        """As plain data, for a digest of the policy."""
        return {k: v for k, v in plain(self).items() if k not in LATER or v != plain(NOTHING_SAID)[k]}


NOTHING_SAID = RolloutSpec("shadow")


def parse_rollout(
    text: str,
    *,
    margin: float | str | None = None,
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

    A bandit spreads a share evenly whatever it believes, by a number or a percentage.

    >>> parse_rollout("epsilon-greedy 0.1 for 14d").floor, parse_rollout("thompson among 3 for 7d").arms
    (0.1, 3)
    >>> parse_rollout("linucb on age, income for 14d").columns
    ('age', 'income')

    A margin with a per cent sign is a share of what is expected of the champion, and so is that of slices (5 %) then.

    >>> spec = parse_rollout("canary 5% 100%", margin="2%")
    >>> spec.margin, spec.slice_margin, spec.relative
    (0.02, 0.05, True)

    The margin of interleaving is of the share of the wins: 0.02 promotes a candidate that surely wins more than 48 %.

    >>> parse_rollout("interleave team draft among 3 for 14d").strategy
    'team-draft'

    A ramp lets a growing share of the units take part in an A/B test or a bandit.

    >>> parse_rollout("thompson among 3 for 14d ramped 5% 25% 100% every 12h").ramp
    (0.05, 0.25, 1.0)
    """
    name, _, rest = text.strip().partition(" ")
    if name not in STRATEGIES:
        raise ConfigError(f"There is no strategy {name!r}.", do=nearest(name, STRATEGIES))
    if name == INTERLEAVE:
        name, rest = _interleaved(rest, text)
    rest, *ramp = re.split(RAMPED, rest, maxsplit=1)
    spec = _given(RolloutSpec(name), margin, slice_margin, alpha, deadline, paired, days)
    told = _words(rest, text)
    times = told.times
    if len(times) > 1:
        raise ConfigError(f"A stage has one duration, {text!r} has {len(times)}.", do='e.g. "canary 5% 100% every 1d"')
    spec = replace(spec, columns=told.columns, arms=2 if told.arms is None else told.arms)
    if name == "ab" or spec.rewarded:
        spec = replace(spec, paired=False, deadline=duration(times[0]) if times else spec.deadline)
    elif times:
        spec = replace(spec, hold=duration(times[0]))
    if ramp:
        spec = _ramped(spec, ramp[0], text)
    if spec.bandit:
        floors = (*told.numbers, *told.shares)
        return _checked(replace(spec, floor=floors[0]) if floors else spec, text, len(floors) > 1)
    if name == "ab":
        spec = _split(spec, told.shares, told.arms)
    elif told.shares:
        spec = replace(spec, steps=told.shares)
    return _checked(spec, text, bool(told.numbers))


def _ramped(spec: RolloutSpec, ramp: str, text: str) -> RolloutSpec:
    """Raises: ConfigError for a stage that is no experiment, or shares that do not grow to 100 %."""
    if not spec.experiments:
        why = "Only an A/B test or a bandit is ramped: a canary is a ramp itself, all others have no share that could grow."
        raise ConfigError(why, seen=text, do=RAMP_EXAMPLE)
    told = re.fullmatch(RAMP, ramp.strip())
    if told is None:
        do = f"{RAMP_EXAMPLE}; how long the whole stage may last stands before it"
        raise ConfigError("A ramp is shares, and how long each lasts at least.", seen=text, do=do)
    shares = tuple(float(share) / 100 for share in told[1].replace("%", " ").split())
    if list(shares) != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1 or len(shares) < 2:
        raise ConfigError("The shares of a ramp grow to 100 %, in two steps or more.", seen=text, do=RAMP_EXAMPLE)
    return replace(spec, ramp=shares, hold=duration(told[2]) if told[2] else spec.hold)


def _interleaved(rest: str, text: str) -> tuple[str, str]:
    """The strategy that merges rankings as the text says, and the words behind that. Raises: ConfigError."""
    for words, strategy in INTERLEAVED.items():
        if rest.startswith(words):
            return strategy, rest.removeprefix(words)
    do = " or ".join(f'"{INTERLEAVE} {words} for 14d"' for words in INTERLEAVED)
    raise ConfigError("Rankings are interleaved by team draft or probabilistically.", seen=text, do=do)


@dataclass(frozen=True, slots=True)
class _Words:
    """What stands in the text of a stage behind its name."""

    shares: tuple[float, ...]
    numbers: tuple[float, ...]
    times: tuple[str, ...]
    arms: int | None
    columns: tuple[str, ...]


def _words(rest: str, text: str) -> _Words:
    """Raises: ConfigError for columns or arms that are named twice, and for a share that is no number."""
    columns, arms = re.findall(COLUMNS, rest), re.findall(AMONG, rest)
    if len(columns) > 1 or len(arms) > 1:
        raise ConfigError("Columns and arms are named once.", seen=text, do=EXAMPLE)
    words = re.sub(rf"{COLUMNS}|{AMONG}|\b(?:every|for)\b", " ", rest).split()
    odd = [w for w in words if w.endswith("%") and not re.fullmatch(NUMBER, w[:-1])]
    if odd:
        raise ConfigError("A share is a number and a per cent sign.", seen=f"{odd[0]!r} in {text!r}", do=EXAMPLE)
    shares = tuple(float(w[:-1]) / 100 for w in words if w.endswith("%"))
    numbers = tuple(float(w) for w in words if re.fullmatch(NUMBER, w))
    times = tuple(w for w in words if not w.endswith("%") and not re.fullmatch(NUMBER, w))
    named = tuple(c.strip() for c in columns[0].split(",") if c.strip()) if columns else ()
    return _Words(shares, numbers, times, int(arms[0]) if arms else None, named)


def _split(spec: RolloutSpec, shares: tuple[float, ...], arms: int | None) -> RolloutSpec:
    """An A/B test's arms: one share is the candidate's, several are those of all arms, none is an even split.

    Raises: ConfigError where the shares are not of all traffic, or not those of the arms.
    """
    arms = max(2, len(shares)) if arms is None else arms
    if len(shares) == 1 and arms == 2:
        shares = (1 - shares[0], shares[0])
    shares = shares or (1 / max(1, arms),) * arms
    if arms < 2 or len(shares) != arms or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-9:
        raise ConfigError("An A/B test has one share between 0 and 100 %, or those of all arms.", seen=str(shares), do=EXAMPLE)
    candidates = shares[1] if arms == 2 else 1 - shares[0]
    return replace(spec, arms=arms, steps=(candidates,), shares=shares if arms > 2 else ())


def check_stages(specs: tuple[RolloutSpec, ...]) -> tuple[RolloutSpec, ...]:
    """The stages, if they can follow each other: what chooses between several arms, or learns from rewards, comes last.

    Raises: ConfigError.
    """
    for spec in specs[:-1]:
        if spec.rewarded or spec.arms > 2:
            raise ConfigError(f"The stage {spec.strategy!r} ends the rollout: no other follows it.", do="Put it last.")
    return specs


def _given(
    spec: RolloutSpec,
    margin: float | str | None,
    slice_margin: float | None,
    alpha: float | None,
    deadline: int | None,
    paired: bool | None,
    days: int | None,
) -> RolloutSpec:
    relative = None
    if isinstance(margin, str):
        margin, relative = _share_of_the_loss(margin, spec), True
    changes: dict[str, Any] = {
        "margin": margin,
        "relative": relative,
        "slice_margin": slice_margin,
        "alpha": alpha,
        "deadline": deadline,
        "paired": paired,
        "days": days,
    }
    return replace(spec, **{name: value for name, value in changes.items() if value is not None})


def _share_of_the_loss(text: str, spec: RolloutSpec) -> float:
    """Raises: ConfigError for a text that is no percentage, and where the margin is none of the metric."""
    if not re.fullmatch(NUMBER + "%", text.strip()):
        raise ConfigError("A margin is a number, or a percentage.", seen=repr(text), do='e.g. margin="2%" of what is expected')
    if spec.rewarded:
        raise ConfigError("What learns from rewards has a margin of the reward, or of the wins.", seen=text, do="margin=0.02")
    return float(text.strip()[:-1]) / 100


def _checked(spec: RolloutSpec, text: str, odd: bool) -> RolloutSpec:
    """odd: numbers were left over."""
    if spec.strategy == "canary" and (list(spec.steps) != sorted(set(spec.steps)) or spec.steps[-1] != 1.0):
        raise ConfigError("A canary's shares grow to 100 %.", seen=text, do='e.g. "canary 5% 25% 100%"')
    if spec.interleaves and spec.steps != (1.0,):
        raise ConfigError("Interleaving has no shares: every list is one of both.", seen=text)
    if spec.strategy in ("shadow", "blue-green") and spec.steps != (1.0,):
        do = 'Take the share out; "canary 5% 25% 100%" grows by shares.'
        raise ConfigError(f"A {spec.strategy} stage has no share: it is of all traffic.", seen=text, do=do)
    if any(not 0 < share <= 1 for share in spec.steps):
        raise ConfigError("A share is above 0 and at most 100 %.", seen=text)
    if odd or not 0 <= spec.floor <= 1:
        raise ConfigError("A bandit takes one number, the share that it spreads evenly; no other stage takes one.", seen=text)
    if spec.arms < 2 or (spec.arms > 2 and not spec.experiments and spec.strategy != "team-draft"):
        raise ConfigError("An A/B test, a bandit and a team draft may have more than two arms.", seen=text, do=EXAMPLE)
    if bool(spec.columns) != spec.contextual and (spec.strategy, len(spec.columns)) != ("ab", 1):
        raise ConfigError("A linear bandit chooses by columns; an A/B test may be adjusted by one.", seen=text, do=EXAMPLE)
    if spec.contextual and spec.floor == 0:
        raise ConfigError("Without a floor no arm of a linear bandit can be judged.", seen=text, do=EXAMPLE)
    if not 0 < spec.alpha < 0.5 or spec.margin < 0 or spec.hold < 0 or spec.days < 1:
        raise ConfigError(
            "An impossible rollout.",
            seen=f"alpha={spec.alpha}, margin={spec.margin}, days={spec.days}",
            do="alpha lies between 0 and 0.5, margin is not below 0, and labelled days are at least 1.",
        )
    if spec.deadline <= spec.hold * (len(spec.ramp) or (len(spec.steps) if spec.strategy == "canary" else 1)):
        raise ConfigError(
            "The deadline comes before the last step could end.",
            seen=text,
            do="Give more time or fewer, shorter steps.",
        )
    return spec
