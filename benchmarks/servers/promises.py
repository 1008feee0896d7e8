"""What was asked, what was got, and whether it was held; what was not run is neither held nor forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field

HELD, FAILED, NOT_RUN = "held", "FAILED", "NOT RUN"


@dataclass(frozen=True, slots=True)
class Promise:
    """got: None where it could not be measured, `told` says why.  most: the figure may be at most what was asked."""

    what: str
    asked: float
    got: float | None
    unit: str = "x"
    most: bool = False
    told: str = ""

    @property
    def state(self) -> str:
        if self.got is None:
            return NOT_RUN
        return HELD if (self.got <= self.asked if self.most else self.got >= self.asked) else FAILED


@dataclass(slots=True)
class Promises:
    """All of one run."""

    made: list[Promise] = field(default_factory=list)

    def add(self, what: str, asked: float, got: float | None, unit: str = "x", *, most: bool = False, told: str = "") -> None:
        """One more."""
        self.made.append(Promise(what, asked, got, unit, most, told))

    def show(self) -> int:
        """Prints all of them; returns the exit code: 0 held, 1 some failed, 3 none failed and some were not run."""
        print(f"\n{'promise':<74} {'asked':>14} {'got':>14}")
        for p in self.made:
            got = "-" if p.got is None else f"{p.got:,.3g} {p.unit}" if p.got < 1000 else f"{p.got:,.0f} {p.unit}"
            asked = f"{'<=' if p.most else '>='} {p.asked:,g} {p.unit}"
            print(f"{p.what:<74} {asked:>14} {got:>14}  {p.state}{' LOUD ' + p.told if p.told else ''}")
        counts = {state: sum(p.state == state for p in self.made) for state in (HELD, FAILED, NOT_RUN)}
        print("promises: " + ", ".join(f"{n} {state}" for state, n in counts.items()), flush=True)
        return 1 if counts[FAILED] else 3 if counts[NOT_RUN] else 0
