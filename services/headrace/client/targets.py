"""Addresses of gateways. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_TARGET = "127.0.0.1:15051"

_SCHEME = re.compile(r"^(dns|ipv4|ipv6|unix|unix-abstract|xds|passthrough):")


@dataclass(frozen=True)
class Target:
    """Where to connect.

    Attributes:
        uri: as gRPC names it.
        several: whether it may stand for several gateways.
        loopback: whether it never leaves this machine.
        authority: name of the server where it does not follow from the URI; empty where it does.
    """

    uri: str
    several: bool
    loopback: bool
    authority: str = ""


def parse_target(target: str | Sequence[str]) -> Target:
    """The addresses that a user names: "host:port", a gRPC URI, or several "ip:port" (also one text with commas).

    Raises:
        ValueError: it is not an address; says what is allowed.
    """
    addresses = [one.strip() for one in (target.split(",") if isinstance(target, str) else target)]
    text = ",".join(addresses)
    scheme = _SCHEME.match(text)
    if scheme:
        if scheme[1] in {"ipv4", "ipv6"}:
            return _numeric([one.removeprefix(f"{scheme[1]}:") for one in addresses])
        if scheme[1] in {"unix", "unix-abstract"}:
            return Target(text, several=False, loopback=True)
        host = text.rsplit("/", 1)[-1].removeprefix(f"{scheme[1]}:")
        return Target(text, several=True, loopback=_is_loopback(host))
    for one in addresses:
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.%]+\]|[^:/\s\[\]]+):\d{1,5}", one):
            raise ValueError(f"{one!r} is not an address: write host:port, or a gRPC URI such as dns:///host:port")
    if len(addresses) == 1:
        return Target(text, several=False, loopback=_is_loopback(text))
    return _numeric(addresses)


def _numeric(addresses: Sequence[str]) -> Target:
    versions = set()
    for one in addresses:
        try:
            versions.add(ipaddress.ip_address(one.rpartition(":")[0].strip("[]")).version)
        except ValueError:
            raise ValueError(
                f"{one!r} is not ip:port; several addresses are numbers, or one name with all of them: dns:///host:port"
            ) from None
    if len(versions) != 1:
        raise ValueError(f"{', '.join(addresses)}: IPv4 and IPv6 addresses do not go together")
    return Target(
        f"ipv{versions.pop()}:{','.join(addresses)}",
        several=len(addresses) > 1,
        loopback=all(map(_is_loopback, addresses)),
        # Without it the whole list is taken for the server's name.
        authority=addresses[0],
    )


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
