"""Connections to a host: who gets one, and who loses it again.

Rules:

* There are so many at once, and so many of one address (the /64 of an IPv6 one).  Proxies of ours
  speak for many: they are counted in total alone.
* The head of a request has a size, and a time from its first byte to its last.
* A client that is owed bytes takes some every second, on an average over a minute.
* Where almost all connections are taken, those that do nothing go first.
* Whoever is turned away hears why, as long as not too many have to be told.

A request costs nothing of this but a comparison where its bytes arrive: what a client has taken
is counted by the kernel, and a look at all connections once a second does the rest.
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
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from server.hosting.addresses import Addresses, network_of, parse_address
from server.hosting.direct import Delivery, Direct, End
from server.hosting.metrics import Metrics
from server.hosting.plain import END, Head, may_become_plain, parse_head
from server.hosting.ranges import MAX_RANGE_HEADER_BYTES

# Between two looks at all connections: 1,000 of them take some 0.3 ms.
LOOK_S: Final = 1.0
# For the kernel's counters, which are two system calls for each.
_COUNTERS_PER_WINDOW: Final = 6
# What is left of a request that was turned away is read and thrown away for so long: to close at
# once would reset the connection, and the client would not see the answer.
_LINGER_S: Final = 5.0
_REST_S: Final = 2.0
_RETRY_AFTER_S: Final = 2
# From here on connections that do nothing make room.
_CROWDED: Final = 0.9
# struct tcp_info of Linux: bytes that the other side acknowledged, since 4.1 (2015).
_TCP_INFO_BYTES: Final = 128
_BYTES_ACKED: Final = struct.Struct("=120xQ")
# struct linger: on, for no time, which makes close(2) reset the connection.
_NO_LINGER: Final = struct.pack("ii", 1, 0)
_CAN_COUNT: Final = sys.platform == "linux"
# Requests that came before their turn; there may be as many more as a socket gives at once.
MAX_AHEAD_BYTES: Final = 64 * 2**10
# The longest line of a request; the parser's own bound, told here to know its errors apart.
MAX_LINE_BYTES: Final = 8190


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
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


class Connection(web.RequestHandler):
    """One connection that is served: by ``direct`` what is plain, by aiohttp what is not.

    Bytes are kept here until the answer before is sent, and then

    * a plain request (:mod:`server.hosting.plain`) is answered by ``direct``,
    * or lent to aiohttp, which gets its head and no byte more: it has no body, so aiohttp stands
      between two requests again when it has answered;
    * anything else is given to aiohttp, and with it all that will ever come.

    So no byte is read in two ways, and nobody but aiohttp has to know where a body ends.

    What aiohttp is at is told by ``_waiter``, ``_request_count``, ``_messages`` and
    ``_current_request`` of its own class; tests/faults/test_server_connections.py and
    test_server_plain.py hold them to it.
    """

    __slots__ = (
        "_ahead",
        "_aiohttp_waits",
        "_delivery",
        "_direct",
        "_gate",
        "_is_given",
        "_is_lent",
        "_linger",
        "_mark",
        "_over",
        "_seen",
        "head_bytes",
        "head_since_s",
        "wire",
    )

    def __init__(
        self,
        server: web.Server,
        gate: Gate,
        direct: Direct | None,
        **settings: Any,  # noqa: ANN401 (aiohttp's)
    ) -> None:
        self._is_lent = False
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self._gate = gate
        self._direct = direct
        # What came and was not begun with.
        self._ahead = b""
        self._is_given = direct is None
        self._delivery: Delivery | None = None
        # Of a delivery that the end of the server waits for.
        self._over: asyncio.Future[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._mark: _Mark | None = None
        # Requests so far, and when there was one more.
        self._seen = (0, 0.0)
        self.head_bytes = 0
        self.head_since_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        self.wire = cast("asyncio.Transport", transport)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another one."""
        if self._linger is not None:
            self._linger.cancel()
        self._gate.left(self)
        self._ahead = b""
        if self._delivery is not None:
            self._delivery.lose()
        super().connection_lost(exc)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 (aiohttp's)
        """Let an answer come to its end, for so many seconds, and end the connection."""
        if self._delivery is not None:
            self._over = self._loop.create_future()
            await asyncio.wait([self._over], timeout=timeout)
        if self._delivery is not None:
            self._delivery.lose()
        await super().shutdown(timeout)

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests, and count those of a head that is not whole yet."""
        if self._is_ending:
            return
        if self._is_given:
            self._give(data)
            return
        self._ahead += data
        self._begin()

    # ----------------------------------------------------------------- requests, one by one

    def _begin(self) -> None:
        """Begin with the next request, if it is there and nothing else is under way."""
        while not (self._delivery or self._is_lent or self._is_ending):
            end = self._ahead.find(END) + len(END)
            if end < len(END):
                if not may_become_plain(self._ahead):
                    self._give_all()
                    return
                break
            data = self._ahead[:end]
            head = parse_head(data)
            if head is None:
                self._give_all()
                return
            self._ahead = self._ahead[end:]
            self.head_bytes = 0
            if len(self._ahead) <= MAX_AHEAD_BYTES:
                self.wire.resume_reading()
            self._answer(data, head)
        self._keep()

    def _answer(self, data: bytes, head: Head) -> None:
        """Have a plain request answered."""

        def done(end: End) -> None:
            self._delivery = None
            if self._over is not None:
                self._over.set_result(None)
            if end is End.UNSENT and not self._is_ending:
                self._request_count -= 1
                self._lend(data)
            elif end is End.WHOLE:
                self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
                self._begin()

        if self._direct is not None:
            self._delivery = self._direct.deliver(head, self.wire, done)
        if self._delivery is None:
            self._lend(data)
        else:
            self._request_count += 1

    def _lend(self, data: bytes) -> None:
        """Give one plain request to aiohttp, or all if aiohttp sees more in it than that."""
        self._is_lent = True
        before = self._request_count
        super().data_received(data)
        if self._request_count == before + 1 and not self._upgraded:
            message, body = self._messages[-1]
            if body is EMPTY_PAYLOAD and isinstance(message, RawRequestMessage):
                return
        self._is_lent = False
        self._give_all()

    def _give_all(self) -> None:
        # Some of a head may be here for a while.
        since_s = self.head_since_s if self.head_bytes else self._loop.time()
        self._is_given, self.head_bytes = True, 0
        data, self._ahead = self._ahead, b""
        self.wire.resume_reading()
        self._give(data)
        if self.head_bytes:
            self.head_since_s = since_s

    def _keep(self) -> None:
        """Look after what has come and not had its turn."""
        if not self._ahead:
            return
        if END in self._ahead:
            self.head_bytes = 0
            if len(self._ahead) > MAX_AHEAD_BYTES:
                self.wire.pause_reading()
            return
        if not self.head_bytes:
            self.head_since_s = self._loop.time()
        self.head_bytes = len(self._ahead)
        if self.head_bytes > self._gate.limits.head_bytes:
            self.refuse(Refused.HEAD_BYTES)

    @property
    def _is_ending(self) -> bool:
        return self._close or self._force_close or self._linger is not None

    @property
    def _waiter(self) -> asyncio.Future[None] | None:
        """What aiohttp waits with for a request."""
        return self._aiohttp_waits

    @_waiter.setter
    def _waiter(self, waiter: asyncio.Future[None] | None) -> None:
        self._aiohttp_waits = waiter
        if waiter is not None and self._is_lent:
            self._is_lent = False
            self._loop.call_soon(self._begin)

    def _process_keepalive(self) -> None:
        """Called by aiohttp when nothing may have happened for too long."""
        if self._delivery is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = self._loop.call_later(
                self._keepalive_timeout, self._process_keepalive
            )

    def _give(self, data: bytes) -> None:
        """Have aiohttp read what came."""
        # Asked first: the same bytes may be the last ones of a body.
        before, reads_head = self._request_count, self._reads_head
        super().data_received(data)
        if self._request_count != before:
            self.head_bytes = 0
        elif reads_head:
            if not self.head_bytes:
                self.head_since_s = self._loop.time()
            self.head_bytes += len(data)
            if self.head_bytes > self._gate.limits.head_bytes:
                self.refuse(Refused.HEAD_BYTES)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        waiter = self._aiohttp_waits
        return self._delivery is None and waiter is not None and not waiter.done()

    @property
    def _reads_head(self) -> bool:
        """Whether what comes is part of a head: no body is being read."""
        if self.is_idle:
            return True
        request = self._current_request
        return request is not None and request.content.is_eof()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, or too much of it; it never came to a route."""
        if isinstance(exc, HttpProcessingError):
            status = _status_of(exc, status)
            self._gate.metrics.count("malformed", status, 0.0)
        response = super().handle_error(request, status, exc, message)
        response.headers["Server"] = "bucketsync"
        return response

    def refuse(self, why: Refused) -> None:
        """End it, with a word if none is being said."""
        self._gate.metrics.refuse(why)
        if self.is_idle and why in _ANSWERS:
            self._linger = _say_and_linger(self.wire, _ANSWERS[why])
        else:
            self._reset()

    def _reset(self) -> None:
        """End it at once: what was sent and not taken is not kept for the client either."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.wire.abort()

    def look(self, now_s: float, limits: ConnectionLimits, *, crowded: bool) -> None:
        """End it if its request takes too long, or if it does nothing where others wait."""
        if self._linger is not None:
            return
        if self._seen[0] != self._request_count or not self._seen[1] or not self.is_idle:
            self._seen = (self._request_count, now_s)
        if self.head_bytes:
            patience_s = limits.crowded_s if crowded else limits.head_s
            if now_s - self.head_since_s > patience_s:
                self.refuse(Refused.HEAD_TIME)
        elif crowded and now_s - self._seen[1] > limits.crowded_s and not self._owed_bytes():
            self._gate.metrics.refuse(Refused.CROWDED)
            self.wire.close()

    def look_at_pace(self, now_s: float, limits: ConnectionLimits) -> None:
        """End it if its client takes what it asked for too slowly."""
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
            self._gate.metrics.refuse(Refused.SLOW)
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


def _status_of(error: HttpProcessingError, status: int) -> int:
    """414 and 431 for what is too long; aiohttp says 400 for everything."""
    if isinstance(error, LineTooLong):
        is_line = error.args[1] == MAX_LINE_BYTES
        return int(
            HTTPStatus.REQUEST_URI_TOO_LONG
            if is_line
            else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        )
    if error.message == "Too many headers received":
        return int(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return status


class Gate:
    """Lets connections in, and looks after those that are."""

    def __init__(self, limits: ConnectionLimits, addresses: Addresses, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self._addresses = addresses
        self._open: dict[Connection, bytes] = {}
        self._by_network: dict[bytes, int] = {}
        self._turned_away = 0

    def settings(self) -> dict[str, Any]:
        """What aiohttp's part of a connection is to keep to."""
        return {
            "keepalive_timeout": self.limits.idle_s,
            "max_line_size": MAX_LINE_BYTES,
            "max_field_size": MAX_RANGE_HEADER_BYTES,
            # For the rest of a body that was refused.
            "lingering_time": _REST_S,
            # Nothing that is posted comes compressed.
            "auto_decompress": False,
        }

    def door(self, make: Callable[[], Connection]) -> asyncio.Protocol:
        """What a new connection comes to."""
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

    def joined(self, connection: Connection, network: bytes) -> None:
        """One more."""
        self._open[connection] = network
        self._by_network[network] = self._by_network.get(network, 0) + 1
        self.metrics.connections = len(self._open)

    def left(self, connection: Connection) -> None:
        """One less."""
        network = self._open.pop(connection, None)
        if network is None:
            return
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
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
            for connection in tuple(self._open):
                connection.look(now_s, limits, crowded=crowded)
            if now_s >= next_pace_s:
                next_pace_s = now_s + limits.window_s / _COUNTERS_PER_WINDOW
                for connection in tuple(self._open):
                    # A socket that is broken is not asked about; its end is on the way.
                    with suppress(OSError):
                        connection.look_at_pace(now_s, limits)


class _Door(asyncio.Protocol):
    """Where a connection is let in, or told why not once it has asked for something."""

    def __init__(self, gate: Gate, make: Callable[[], Connection]) -> None:
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
        connection = self._make()
        self._gate.joined(connection, network)
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
