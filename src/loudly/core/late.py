"""A module that is imported at its first use: heavy libraries, and rooms of this house that most processes never enter.

scipy does that itself: `import scipy` is light, and `scipy.stats` comes when it is asked for (SPEC 1 of scientific Python).
scikit-learn, skops and pyarrow do not, and `importlib.util.LazyLoader` and the package `lazy_loader` both begin by importing the
parent, which of scikit-learn is the heavy part. Python 3.15 writes it `lazy import` (PEP 810).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def late(name: str) -> ModuleType:
    """The module called `name`, imported when something in it is asked for; safe in threads, as every import is.

    Raises: ModuleNotFoundError where its package is not installed: at once, as `import` would. What the import itself raises
    is raised at each use.

    >>> colours = late("colorsys")
    >>> colours.rgb_to_hls(1.0, 1.0, 1.0)
    (0.0, 1.0, 0.0)
    """
    package = name.partition(".")[0]
    if find_spec(package) is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    module = ModuleType(name)
    vars(module)["__getattr__"] = lambda attribute: getattr(import_module(name), attribute)  # PEP 562
    return module
