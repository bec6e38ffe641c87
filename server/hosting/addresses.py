"""Who asks: the address of a client, and what of it the limits count as one.

A connection says where it comes from, and so does a proxy of ours in front; nobody else is
believed.  Whoever has one address of an IPv6 network has all 2^64 of it, so limits count its /64
as one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from manifests.errors import ConfigError

_NETWORK_BYTES: Final = 8


def network_of(address: bytes) -> bytes:
    """What limits count as one: an IPv4 address of 4 bytes, the /64 (8 bytes) of an IPv6 one."""
    return address[:_NETWORK_BYTES]


def parse_address(text: str) -> bytes | None:
    """4 or 16 bytes; IPv4 also where it came mapped into IPv6.  None if it is no address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).packed


class Addresses:
    """Tells clients apart; ``proxies`` are addresses whose X-Forwarded-For is believed."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        self._proxies = frozenset(map(_proxy, proxies))

    def is_proxy(self, address: bytes | None) -> bool:
        """Whether this is a proxy of ours, which speaks for many."""
        return address in self._proxies

    def of(self, request: web.BaseRequest) -> bytes | None:
        """The address of a request; None where there is none, as on a socket of Unix."""
        address = parse_address(request.remote or "")
        if self.is_proxy(address) and (given := request.headers.getall("X-Forwarded-For", [])):
            # Some proxies add a line of their own to those of the client.
            return parse_address(given[-1].rpartition(",")[2].strip())
        return address


def _proxy(text: str) -> bytes:
    address = parse_address(text)
    if address is None:
        raise ConfigError(
            f"--trusted-proxy {text[:64]!r}: expected an address, such as 127.0.0.1 or ::1"
        )
    return address
