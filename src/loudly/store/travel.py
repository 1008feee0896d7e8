"""Work travels to another process by value, and what comes back is the parent's own.

No worker needs the user's file: functions and classes of it, of a notebook and of other functions travel whole (cloudpickle).
On the way back those that the parent knows by a name come by that name, as pickle's persistent objects. A copy would not do:
formats pickle by reference, and refuse the instance of a class that only looks like that of the user's file.
"""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from threading import RLock
from types import FunctionType
from typing import Any

from loudly.core.late import late
from loudly.errors import ExecutorError, LoudlyError, one_line

cloudpickle: Any = late("cloudpickle")

USERS = "loudly_user_"  # how the modules of users' files are called
Name = tuple[str, str]
_REGISTRY = RLock()


def pack(thing: object) -> bytes:
    """Work, or an item of it, for `work_on`. Raises: ExecutorError where it holds what cannot travel."""
    ours: dict[Name, bool] = {}

    def seen(part: object) -> None:
        """A name goes home where all that bears it is what the parent finds under it: a function that a decorator hides is not."""
        if (name := _name(part)) is not None:
            ours[name] = ours.get(name, True) and _found(name) is part

    try:
        with users_by_value():
            data = _pickled(thing, seen)
    except Exception as wrong:
        raise ExecutorError(
            "The work cannot travel to a worker.",
            seen=one_line(wrong),
            do='Open files, connections and locks inside of your function, or say [executor] kind = "here".',
        ) from wrong
    return pickle.dumps(([name for name, own in ours.items() if own], data))


def work_on(work: bytes, item: bytes) -> bytes:
    """In the worker: what the work makes of the item, or how it failed; `opened` reads it."""
    try:
        (known, done), (more, given) = _unpacked(work), _unpacked(item)
    except Exception as wrong:  # noqa: BLE001 - whatever the parts of the user's say
        do = "Install what it imports where the workers are."
        return _sent_home((False, ExecutorError("A worker cannot open its work.", seen=one_line(wrong), do=do)), ())
    names = {*known, *more}
    try:
        made = done(given)
    except Exception as wrong:  # noqa: BLE001 - raised again in the parent
        return _failure(wrong, names)
    try:
        return _sent_home((True, made), names)
    except Exception as wrong:  # noqa: BLE001 - whatever the parts of the user's say
        do = 'Return what pickles, or say [executor] kind = "here".'
        return _sent_home((False, ExecutorError("What the work made cannot travel back.", seen=one_line(wrong), do=do)), ())


def opened(data: bytes) -> Any:
    """What `work_on` has made. Raises: what the work raised."""
    went_well, made = _loaded(data, _found)
    if not went_well:
        raise made
    return made


@contextmanager
def users_by_value() -> Iterator[None]:
    """Meanwhile whoever pickles by cloudpickle takes the users' files along."""
    with _REGISTRY:
        theirs = [module for name, module in sys.modules.items() if name.startswith(USERS)]
        for module in theirs:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in theirs:
                cloudpickle.unregister_pickle_by_value(module)


def _failure(wrong: Exception, names: Iterable[Name]) -> bytes:
    """An error for the parent, with its traceback where it is none of ours. One that does not pickle is told in words."""
    note = "In the worker:\n" + "".join(traceback.format_exception(wrong))
    if not isinstance(wrong, LoudlyError):
        wrong.add_note(note)
    try:
        homes: dict[Name, object] = {}
        sent = _sent_home((False, wrong), names, homes)
        _loaded(sent, homes.__getitem__)
    except Exception:  # noqa: BLE001 - whatever the parts of the user's say
        told = ExecutorError("The work failed in a worker.", seen=one_line(wrong))
        told.add_note(note)
        return _sent_home((False, told), ())
    return sent


def _sent_home(made: object, names: Iterable[Name], homes: dict[Name, object] | None = None) -> bytes:
    """homes: learns which of the parts go by which name."""
    known, by_name = frozenset(names), {} if homes is None else homes

    def at_home(part: object) -> Name | None:
        if (name := _name(part)) not in known or name is None:
            return None
        by_name[name] = part
        return name

    return _pickled(made, at_home)


def _pickled(thing: object, persistent: Callable[[object], object]) -> bytes:
    buffer = io.BytesIO()
    writer = type("Writer", (cloudpickle.Pickler,), {"persistent_id": lambda _, part: persistent(part)})
    writer(buffer).dump(thing)
    return buffer.getvalue()


def _loaded(data: bytes, persistent: Callable[[Name], object]) -> Any:
    # A method of a class: that of an instance cannot be set in Python 3.13.0.
    reader = type("Reader", (pickle.Unpickler,), {"persistent_load": lambda _, name: persistent(name)})
    return reader(io.BytesIO(data)).load()


def _unpacked(packed: bytes) -> tuple[list[Name], Any]:
    names, data = pickle.loads(packed)
    return names, pickle.loads(data)


def _name(part: object) -> Name | None:
    """Where a class or function of a user's file or notebook is found; None for all else."""
    if not isinstance(part, type | FunctionType):
        return None
    module, name = str(part.__module__), part.__qualname__
    return (module, name) if (module == "__main__" or module.startswith(USERS)) and "<" not in name else None


def _found(name: Name) -> Any:
    module, path = name
    return reduce(lambda holder, part: getattr(holder, part, None), path.split("."), sys.modules.get(module))
