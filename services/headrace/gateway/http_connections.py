"""The HTTP listener: as many connections as are allowed, and no more."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aiohttp import web

FEW = 64
_BODY = b'{"code": 14, "message": "too many connections here"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


class _Refused(asyncio.Protocol):
    """Says that there are too many, and hangs up."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(_FULL)
        transport.close()


class BoundedSite(web.BaseSite):
    """Listens on an address.

    Args:
        runner: of the application.
        host: address.
        port: port; 0 takes a free one.
        connections: most connections at a time.
        ssl_context: for TLS; None for none.
        reuse_port: whether other processes listen on the same port.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        connections: int,
        ssl_context: ssl.SSLContext | None,
        reuse_port: bool,
    ) -> None:
        super().__init__(runner, ssl_context=ssl_context)
        self._host = host
        self._port = port
        self._most = connections
        self._reuse_port = reuse_port
        self._opened: dict[asyncio.BaseProtocol, float] = {}

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"{'http' if self._ssl_context is None else 'https'}://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        await super().start()
        self._server = await asyncio.get_running_loop().create_server(
            self._connection,
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            reuse_port=self._reuse_port or None,
        )

    def _connection(self) -> asyncio.BaseProtocol:
        server: Any = self._runner.server
        if len(server.connections) >= self._most:
            return _Refused()
        protocol: asyncio.BaseProtocol = server()
        if len(self._opened) > 2 * len(server.connections) + FEW:
            # Those that have ended; now and then, so that it costs each connection next to nothing.
            still = set(server.connections)
            self._opened = {one: at for one, at in self._opened.items() if one in still}
        self._opened[protocol] = asyncio.get_running_loop().time()
        return protocol

    def age_s(self, protocol: asyncio.BaseProtocol) -> float:
        """How long a connection has been open, in seconds."""
        now = asyncio.get_running_loop().time()
        return now - self._opened.get(protocol, now)
