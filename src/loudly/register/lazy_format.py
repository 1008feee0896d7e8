"""A format of the plugin table whose library is imported when a model is stored or read with it, not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loudly.core.seams import Model, ModelFormat
from loudly.errors import ExtraMissing


@dataclass(frozen=True, slots=True)
class LazyFormat:
    """The format called `name`; make: imports and makes it, cheaply from the second time on.

    Raises: ExtraMissing where a model is to be read and the library is not installed.
    """

    name: str
    make: Callable[[], ModelFormat]

    @property
    def executes_code(self) -> bool:
        return self.make().executes_code

    def accepts(self, fitted: object) -> bool:
        try:
            form = self.make()
        except ExtraMissing:  # a model of a library that is not installed cannot have been fitted here
            return False
        return form.accepts(fitted)

    def dump(self, fitted: object) -> bytes:
        return self.make().dump(fitted)

    def load(self, data: bytes) -> Model:
        return self.make().load(data)

    def restore(self, data: bytes) -> object:
        return self.make().restore(data)
