"""Pages as a browser takes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest


class Balanced(HTMLParser):
    """Counts tags that are opened and not closed."""

    void = ("meta", "circle", "line", "path", "polyline", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def whole(page: str) -> None:
    """Every tag is closed, nothing is fetched and nothing is run."""
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["']?http""", page)


def drawn(page: Path | str, folder: Path) -> bytes:
    """The picture that Chromium makes of a page: a file, or an address."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("LOUD: no chromium on this machine; the page is not drawn")
    picture = folder / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    more = ["--disable-component-update", "--disable-quic", "--hide-scrollbars", "--window-size=1000,1800"]
    address = page.as_uri() if isinstance(page, Path) else page
    where = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={picture}", address]
    subprocess.run([chromium, *flags, *more, *where], check=True, capture_output=True, timeout=60)
    return picture.read_bytes()
