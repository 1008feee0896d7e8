"""uvicorn: finishes requests that are under way when it is told to stop."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

GRACE_SECONDS = 30


def run(app: FastAPI, host: str, port: int) -> None:
    """Serves the application until SIGINT or SIGTERM; requests under way are finished first."""
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS)
    uvicorn.Server(config).run()
