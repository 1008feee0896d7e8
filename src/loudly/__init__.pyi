from loudly.app.app import App as App

__version__: str
__all__ = ["App", "__version__"]
