"""Who may come in, and who has to go again: the bounds of connections, and their clocks.

Rules:

* There are so many at once, and so many of one address (the /64 of an IPv6 one).  Proxies of ours
  speak for many: they are counted in total alone.
* The head of a request has a size, and a time from its first byte to its last.
* A client that is owed bytes takes some every second, on an average over a minute.
* Where almost all connections are taken, those that do nothing go first.
* Whoever is turned away hears why, as long as not too many have to be told.

A request costs nothing of this but a comparison where its bytes arrive: what a client has taken
is counted by the kernel, and a look at all guests once a second does the rest.  What a request is
and how it is answered, the gate does not know (:mod:`server.hosting.connections`).
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol, cast

from msgspec import Struct

from server.hosting.addresses import Addresses, network_of, parse_address
from server.hosting.metrics import Metrics

# Between two looks at all guests: 1,000 of them take some 0.3 ms.
LOOK_S: Final = 1.0
# For the kernel's counters, which are two system calls for each.
_COUNTERS_PER_WINDOW: Final = 6
# What is left of a request that was turned away is read and thrown away for so long: to close at
# once would reset the connection, and the client would not see the answer.
_LINGER_S: Final = 5.0
_RETRY_AFTER_S: Final = 2
# From here on connections that do nothing make room.
_CROWDED: Final = 0.9
# struct tcp_info of Linux: bytes that the other side acknowledged, since 4.1 (2015).
_TCP_INFO_BYTES: Final = 128
_BYTES_ACKED: Final = struct.Struct("=120xQ")
# struct linger: on, for no time, which makes close(2) reset the connection.
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_CAN_COUNT: Final = sys.platform == "linux"


class ConnectionLimits(Struct, frozen=True, kw_only=True):
    """Bounds, each with its reason in docs/reference/limits.md."""

    total: int = 1000
    address: int = 250
    turned_away: int = 64
    head_bytes: int = 32 * 2**10
    head_s: float = 20.0
    idle_s: float = 30.0
    crowded_s: float = 2.0
    min_bytes_s: int = 1024
    window_s: float = 60.0


class Refused(StrEnum):
    """Why somebody was refused: the label in the metrics."""

    TOTAL = "connections"
    ADDRESS = "address_connections"
    ABRUPT = "connections_untold"
    HEAD_TIME = "head_time"
    HEAD_BYTES = "head_bytes"
    SLOW = "slow_reader"
    CROWDED = "idle_when_crowded"


_ANSWERS: Final[Mapping[Refused, HTTPStatus]] = {
    Refused.TOTAL: HTTPStatus.SERVICE_UNAVAILABLE,
    Refused.ADDRESS: HTTPStatus.TOO_MANY_REQUESTS,
    Refused.HEAD_TIME: HTTPStatus.REQUEST_TIMEOUT,
    Refused.HEAD_BYTES: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
}
_COME_AGAIN: Final = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)


def _last_answer(status: HTTPStatus) -> bytes:
    """An answer without a body, after which the connection ends."""
    again = f"Retry-After: {_RETRY_AFTER_S}\r\n" if status in _COME_AGAIN else ""
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{again}"
        "Server: bucketsync\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode()


def _say_and_linger(transport: asyncio.Transport, status: HTTPStatus) -> asyncio.TimerHandle:
    """Answer, send nothing more, and end the connection once the client had time to read."""
    transport.write(_last_answer(status))
    with suppress(OSError, RuntimeError):
        transport.write_eof()
    return asyncio.get_running_loop().call_later(_LINGER_S, transport.abort)


class _Mark(NamedTuple):
    """What a client had taken at some time."""

    at_s: float
    taken_bytes: int


class Serving(Protocol):
    """Who answers the requests of a guest."""

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""

    @property
    def requests(self) -> int:
        """How many there were so far."""


class Guest:
    """A connection that was let in: what it is waited for, since when, and how it is ended.

    ``head_bytes`` are those of a head that has begun and is not whole.  Whoever answers its
    requests enters itself as ``serving``.
    """

    serving: Serving

    __slots__ = (
        "_gate",
        "_head_since_s",
        "_linger",
        "_mark",
        "_seen",
        "head_bytes",
        "limits",
        "metrics",
        "network",
        "serving",
        "wire",
    )

    def __init__(self, gate: Gate, wire: asyncio.Transport, network: bytes) -> None:
        self.wire = wire
        self.network = network
        self.head_bytes = 0
        self.limits = gate.limits
        self.metrics = gate.metrics
        self._gate = gate
        self._head_since_s = 0.0
        self._linger: asyncio.TimerHandle | None = None
        self._mark: _Mark | None = None
        # Requests so far, and when there was one more.
        self._seen = (0, 0.0)

    def leave(self) -> None:
        """Make room for another one."""
        if self._linger is not None:
            self._linger.cancel()
        self._gate.left(self)

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to go."""
        return self._linger is not None

    def wait_for_head(self, size_bytes: int) -> None:
        """So much of a head is here, and not all: its clock runs from the first byte on."""
        if not self.head_bytes:
            self._head_since_s = asyncio.get_running_loop().time()
        self.head_bytes = size_bytes
        if size_bytes > self.limits.head_bytes:
            self.refuse(Refused.HEAD_BYTES)

    def refuse(self, why: Refused) -> None:
        """End it, with a word if none is being said."""
        self.metrics.refuse(why)
        if self.serving.is_idle and why in _ANSWERS:
            self._linger = _say_and_linger(self.wire, _ANSWERS[why])
        else:
            self._reset()

    def _reset(self) -> None:
        """End it at once: what was sent and not taken is not kept for the client either."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.wire.abort()

    def look(self, now_s: float, *, crowded: bool) -> None:
        """End it if its request takes too long, or if it does nothing where others wait."""
        if self.is_leaving:
            return
        limits = self.limits
        requests = self.serving.requests
        if self._seen[0] != requests or not self._seen[1] or not self.serving.is_idle:
            self._seen = (requests, now_s)
        if self.head_bytes:
            patience_s = limits.crowded_s if crowded else limits.head_s
            if now_s - self._head_since_s > patience_s:
                self.refuse(Refused.HEAD_TIME)
        elif crowded and now_s - self._seen[1] > limits.crowded_s and not self._owed_bytes():
            self.metrics.refuse(Refused.CROWDED)
            self.wire.close()

    def look_at_pace(self, now_s: float) -> None:
        """End it if its client takes what it asked for too slowly."""
        limits = self.limits
        if not self._owed_bytes():
            self._mark = None
            return
        taken_bytes = self._taken_bytes()
        if self._mark is None:
            self._mark = _Mark(now_s, taken_bytes)
            return
        past_s = now_s - self._mark.at_s
        if past_s < limits.window_s:
            return
        if taken_bytes - self._mark.taken_bytes < past_s * limits.min_bytes_s:
            self.metrics.refuse(Refused.SLOW)
            self._reset()
        else:
            self._mark = _Mark(now_s, taken_bytes)

    def _owed_bytes(self) -> int:
        """Bytes that were sent and have not arrived; 0 where the system does not count."""
        if not _CAN_COUNT:
            return 0
        found = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(found, sys.byteorder) + self.wire.get_write_buffer_size()

    def _taken_bytes(self) -> int:
        found = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        return int(_BYTES_ACKED.unpack(found)[0])

    @property
    def _socket(self) -> socket.socket:
        return cast("socket.socket", self.wire.get_extra_info("socket"))


class Gate:
    """Lets connections in, and looks after those that are in."""

    def __init__(self, limits: ConnectionLimits, addresses: Addresses, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self._addresses = addresses
        self._open: set[Guest] = set()
        self._by_network: dict[bytes, int] = {}
        self._turned_away = 0

    def door(self, make: Callable[[Guest], asyncio.Protocol]) -> asyncio.Protocol:
        """What a new connection comes to; ``make`` is who serves it, if it may come in."""
        return _Door(self, make)

    def refusal(self, network: bytes) -> Refused | None:
        """Why there is no room for one more of a network; empty stands for a proxy."""
        if len(self._open) >= self.limits.total:
            return Refused.TOTAL
        if network and self._by_network.get(network, 0) >= self.limits.address:
            return Refused.ADDRESS
        return None

    def network(self, transport: asyncio.BaseTransport) -> bytes:
        """Whose connection it is; empty for a proxy of ours, which is nobody's."""
        peer = transport.get_extra_info("peername")
        address = parse_address(peer[0]) if isinstance(peer, tuple) else None
        return b"" if self._addresses.is_proxy(address) else network_of(address or b"")

    def joined(self, guest: Guest) -> None:
        """One more."""
        self._open.add(guest)
        self._by_network[guest.network] = self._by_network.get(guest.network, 0) + 1
        self.metrics.connections = len(self._open)

    def left(self, guest: Guest) -> None:
        """One less."""
        self._open.remove(guest)
        self._by_network[guest.network] -= 1
        if not self._by_network[guest.network]:
            del self._by_network[guest.network]
        self.metrics.connections = len(self._open)

    def may_tell(self) -> bool:
        """Whether one more of those that are turned away can be told why."""
        if self._turned_away >= self.limits.turned_away:
            return False
        self._turned_away += 1
        return True

    def told(self) -> None:
        """One that was turned away is gone."""
        self._turned_away -= 1

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look after all connections until the end of the context."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        loop, limits = asyncio.get_running_loop(), self.limits
        next_pace_s = 0.0
        while True:
            await asyncio.sleep(min(LOOK_S, limits.window_s / _COUNTERS_PER_WINDOW))
            now_s = loop.time()
            crowded = len(self._open) >= _CROWDED * limits.total
            for guest in tuple(self._open):
                guest.look(now_s, crowded=crowded)
            if now_s >= next_pace_s:
                next_pace_s = now_s + limits.window_s / _COUNTERS_PER_WINDOW
                for guest in tuple(self._open):
                    # A socket that is broken is not asked about; its end is on the way.
                    with suppress(OSError):
                        guest.look_at_pace(now_s)


class _Door(asyncio.Protocol):
    """Where a connection is let in, or told why not once it has asked for something."""

    def __init__(self, gate: Gate, make: Callable[[Guest], asyncio.Protocol]) -> None:
        self._gate = gate
        self._make = make
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        network = self._gate.network(transport)
        why = self._gate.refusal(network)
        if why is not None:
            self._turn_away(why)
            return
        guest = Guest(self._gate, self._transport, network)
        connection = self._make(guest)
        self._gate.joined(guest)
        self._transport.set_protocol(connection)
        connection.connection_made(transport)

    def _turn_away(self, why: Refused) -> None:
        self._gate.metrics.refuse(why)
        if not self._gate.may_tell():
            self._gate.metrics.refuse(Refused.ABRUPT)
            self._transport.abort()
            return
        self._answer: HTTPStatus | None = _ANSWERS[why]
        loop = asyncio.get_running_loop()
        self._end = loop.call_later(_LINGER_S, self._transport.abort)

    def data_received(self, _: bytes) -> None:
        if self._end is not None and self._answer is not None:
            self._end.cancel()
            self._end = _say_and_linger(self._transport, self._answer)
            self._answer = None

    def connection_lost(self, _: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
            self._gate.told()
