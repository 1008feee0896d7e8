"""loudly: the whole wheel of machine learning in production, where nothing fails in silence.

General layout (each floor imports only from floors below it; `lint-imports` proves it):

    cli                      what you type
    app                      the user's one object
    loop                     policy (pure) -> plan -> explain | apply; replay
    data validate labels features train evaluate register serve deliver monitor     the stages
    store  shift  metrics    instruments
    stats                    mathematics on arrays
    config  plugins          names -> objects
    core                     the nouns and every seam; standard library only
    errors

Outside the floors: adapters (the only door to heavy libraries), testing (shipped), web (pages), demo.
"""

from __future__ import annotations

from loudly.core.late import late

_app = late("loudly.app.app")

__version__ = "0.1.0"
__all__ = ["App", "__version__"]


def __getattr__(name: str) -> object:  # type checkers read __init__.pyi
    if name == "App":
        return _app.App
    raise AttributeError(f"module 'loudly' has no attribute {name!r}")
