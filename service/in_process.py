"""An application in this process as the transport of a client: no socket, no server."""

from __future__ import annotations

from typing import Any

import httpx
from anyio.from_thread import start_blocking_portal

__all__ = ["InProcess"]


class InProcess(httpx.BaseTransport):
    """A transport whose requests an ASGI application answers, each answer whole."""

    def __init__(self, app: Any, address: str = "127.0.0.1") -> None:
        """Of an application; `address` is where requests seem to come from."""
        self._inner = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1))
        self._context = start_blocking_portal()
        self._portal = self._context.__enter__()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Have a request answered."""
        request.read()
        return self._portal.call(self._answer, request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        body = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=body, request=request)

    def close(self) -> None:
        """Stop the event loop."""
        self._context.__exit__(None, None, None)
