"""`loudly status` says whether a server that came back has folded its past, which only the ledger can tell another process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from command_line import ROW, Project
from loudly.app import verbs
from loudly.app.project import load_app
from loudly.app.returning import Returning, progress_bar
from loudly.loop.live import Live
from loudly.loop.taking import Taking
from loudly.serve.attempt import Attempt
from loudly.serve.rows import rows_of
from loudly.store.spools import Spools
from waiting import until


@contextmanager
def started(project: Project) -> Iterator[tuple[Live, Returning]]:
    """The wheel of a server that starts, and what folds its past."""
    app = load_app(project.folder / "app.py")
    with verbs.using_stores(app.name, app.folder, traffic=True) as opened:
        live = verbs.open_live(app.system, opened)
        back = Returning(live, Taking(live, Spools(project.folder / "spools")), progress_bar())
        yield live, back
        back.stop()


def test_what_is_folded_still_or_cannot_be_is_said_until_it_is(shipped: Project, tmp_path: Path) -> None:
    project = shipped.copy(tmp_path)
    log = project.folder / ".loudly" / "traffic"

    def said() -> str:
        return str(project.json("status")["catching_up"] or "")

    def shown() -> str:
        told = said()
        assert told in project.run("status").stdout
        return told

    assert shown() == ""
    with started(project) as (live, back):
        back.begin(log, {})
        row = rows_of([{**ROW, "loan_id": "asked"}], live.ready[live.state.champion or ""].schema)
        live.answering.answer(row, Attempt((1,)))
    assert shown() == "", "a short log is folded at once"
    with started(project) as (live, back), live.lock:  # nothing can be folded
        back.begin(log, {})
        back.wait()
        assert "LOUD the past is being folded since " in shown()
    assert "when the server ended" in shown()
    sealed = max(log.glob("*.seg"))
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:-1] + bytes([whole[-1] ^ 255]))
    with started(project) as (live, back):
        back.begin(log, {})
        until(lambda: "SegmentUnreadable" in said(), "it is said")
    assert "LOUD the past could not be folded since " in shown()
    sealed.write_bytes(whole)
    with started(project) as (live, back):
        back.begin(log, {})
        until(lambda: said() == "", "a short log is folded, and what was said is over")
        assert live.book.waiting == 1
