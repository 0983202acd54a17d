"""Ports that several processes share."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from headrace.gateway.port_reservation import PortHeldError, PortReservation, reserve

HOST = "127.0.0.1"


def listener(port: int, *options: int) -> socket.socket:
    made = socket.socket()
    try:
        for option in options:
            made.setsockopt(socket.SOL_SOCKET, option, 1)
        made.bind((HOST, port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def test_those_that_share_it_listen_beside_each_other() -> None:
    with closing(PortReservation(HOST, 0)) as held:
        shared = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
        with (
            closing(listener(held.port, *shared)),
            closing(listener(held.port, *shared)),
            closing(socket.create_connection((HOST, held.port), timeout=5)),
        ):
            pass


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,)])
def test_nobody_else_may_listen(options: tuple[int, ...]) -> None:
    with closing(PortReservation(HOST, 0)) as held, pytest.raises(OSError, match="in use"):
        listener(held.port, *options)


def test_a_second_reservation_is_refused() -> None:
    with (
        closing(PortReservation(HOST, 0)) as held,
        pytest.raises(PortHeldError, match=f"{HOST}:{held.port}: Address already in use"),
    ):
        PortReservation(HOST, held.port)


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEADDR, socket.SO_REUSEPORT)])
def test_a_port_that_somebody_listens_on_is_refused(options: tuple[int, ...]) -> None:
    with closing(listener(0, *options)) as foreign, pytest.raises(PortHeldError):
        PortReservation(HOST, foreign.getsockname()[1])


async def test_waits_for_a_port_that_is_given_back() -> None:
    foreign = listener(0)
    port = foreign.getsockname()[1]
    with pytest.raises(PortHeldError):
        await reserve(HOST, port, patience_s=0)
    foreign.close()
    (await reserve(HOST, port, patience_s=5)).close()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(PortHeldError, match=r"192\.0\.2\.1"):
        PortReservation("192.0.2.1", 0)
