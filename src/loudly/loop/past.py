"""How far a restarted wheel has folded its past in again."""

from __future__ import annotations

from dataclasses import dataclass

from loudly.core.canon import Json


@dataclass(slots=True)
class Past:
    """The logged traffic of before.

    open: whether it is still being folded; nothing is decided until then.  rows: predictions that are folded.
    read, size: bytes of the log.  wrong: why it is folded no further, or "".
    """

    open: bool = False
    rows: int = 0
    read: int = 0
    size: int = 0
    wrong: str = ""

    def told(self) -> dict[str, Json] | None:
        """As a status tells it, None when all is folded. of: the rows of the log, about: as many as its bytes tell so far.

        >>> Past(open=True, rows=500, read=1000, size=4000).told()
        {'rows': 500, 'of': 2000}
        """
        if not self.open:
            return None
        of = round(self.rows * max(1.0, self.size / self.read)) if self.read else 0
        return {"rows": self.rows, "of": of, **({"stopped": self.wrong} if self.wrong else {})}
