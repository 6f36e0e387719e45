"""A transport for the client that calls an application in this process: no socket, no server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx

__all__ = ["InProcess"]


class InProcess(httpx.BaseTransport):
    """A transport whose requests an ASGI application answers; each answer arrives complete."""

    def __init__(self, app: Any, address: str = "127.0.0.1") -> None:
        """Keep the application; requests seem to come from `address`."""
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Let the application answer a request."""
        request.read()
        return asyncio.run_coroutine_threadsafe(self._answer(request), self._loop).result()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        body = await response.aread()
        headers = [pair for pair in response.headers.raw if pair[0].lower() != b"content-encoding"]  # it is undone
        return httpx.Response(response.status_code, headers=headers, content=body, request=request)

    def close(self) -> None:
        """Stop the event loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
