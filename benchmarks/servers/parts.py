"""To come."""


def run() -> None:
    """To come."""
