"""Logs of the service: one line of JSON each, with its request or job, or plain text for people."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import traceback
from datetime import UTC, datetime

from .records.errors import StoreError

__all__ = ["configure", "request_id"]

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)
"""ID of the request that is being answered."""


def configure(form: str) -> None:
    """Send all logs to standard error.

    Args:
        form: "json" or "text".

    Raises:
        StoreError: the form is neither of these.
    """
    if form not in ("text", "json"):
        raise StoreError(f"--log {form}: expected text or json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in ("dbos", "uvicorn.access", "alembic", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


class _Json(logging.Formatter):
    """One JSON object per line; `extra={"fields": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as JSON."""
        about = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            about["error"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps({name: value for name, value in about.items() if value is not None}, default=str)
