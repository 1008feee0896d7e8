"""What an application around another passes on to the one inside it."""

from __future__ import annotations

from typing import Any


def draining_inside() -> Any:
    """`draining` as a property: of the application that `_app` holds, asked of it and told to it.

    >>> class Inner:
    ...     draining = False
    >>> class Around:
    ...     draining = draining_inside()
    ...     def __init__(self, app): self._app = app
    >>> inner = Inner()
    >>> Around(Around(inner)).draining = True
    >>> inner.draining
    True
    """

    def told(around: Any, so: bool) -> None:
        around._app.draining = so

    return property(lambda around: bool(around._app.draining), told, doc="Whether the application is told to stop.")
