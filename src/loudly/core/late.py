"""A module that is imported at its first use, for heavy libraries that most processes never touch.

scipy does that itself: `import scipy` is light, and `scipy.stats` comes when it is asked for (SPEC 1 of scientific Python).
scikit-learn, skops and pyarrow do not, and `importlib.util.LazyLoader` and `lazy_loader` both begin with the parent package,
which of scikit-learn is the heavy part. Python 3.15 writes it `lazy import` (PEP 810).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any


class Late:
    """Stands for a module until somebody asks for what is in it; safe in threads, as every import is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        """Raises: as `import` and the module itself do, at every use."""
        return getattr(import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"late({self._name!r})"


def late(name: str) -> Any:
    """The module called `name`, imported when something of it is asked for.

    Raises: ModuleNotFoundError where its package is not installed: at once, as `import` would.

    >>> colours = late("colorsys")
    >>> colours.rgb_to_hls(1.0, 1.0, 1.0)
    (0.0, 1.0, 0.0)
    """
    package = name.partition(".")[0]
    if find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    return Late(name)
