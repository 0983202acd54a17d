"""Holds a port for processes that all listen on it, and for nobody else."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from headrace.platform.errors import OperatorError

RETRY_S = 0.1


class PortHeldError(OperatorError):
    """The port cannot be had; the message names the address."""

    # The process that holds it may be about to end.
    retriable = True


class PortReservation:
    """A port that this process holds and does not listen on.

    Processes of the same user that set SO_REUSEPORT can listen on it beside each other. One that does not, and another
    reservation, are refused, from the moment this one is made and also while nobody listens.

    Args:
        host: address, or a name for one.
        port: port; 0 takes a free one.

    Raises:
        PortHeldError: somebody listens on it, it is reserved, or the address is not of this machine.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
                0
            ]
            self._sockets = [_bound(family, address, socket.SO_REUSEADDR)]
        except OSError as error:
            raise PortHeldError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        first = self._sockets[0]
        # Only now: with it, the first bind would have been let in beside another reservation.
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.port = int(first.getsockname()[1])
        try:
            # A bound socket that does not listen lets others bind that set SO_REUSEADDR, unless one of the bound ones
            # has not set it. It is refused where connections of a former process linger; then the first one must do.
            self._sockets.append(_bound(family, (address[0], self.port, *address[2:]), socket.SO_REUSEPORT))
        except OSError:
            return

    def close(self) -> None:
        """Give the port back."""
        for one in self._sockets:
            one.close()


async def reserve(host: str, port: int, *, patience_s: float) -> PortReservation:
    """Reserve a port that processes of an earlier start may still be about to give back.

    Raises:
        PortHeldError: it was not free in time.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return PortReservation(host, port)
        except PortHeldError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(RETRY_S)


def _bound(family: int, address: tuple[Any, ...], option: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made
