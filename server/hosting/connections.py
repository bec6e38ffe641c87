"""Connections to a host: whose turn it is with what came on one, ours or aiohttp's.

Who may have a connection, and how long it may take, is the gate's to say
(:mod:`server.hosting.gate`).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD

from server.hosting.direct import Delivery, Direct, End
from server.hosting.gate import Guest
from server.hosting.plain import END, Head, may_become_plain, parse_head
from server.hosting.ranges import MAX_RANGE_HEADER_BYTES

# The rest of a body that was refused is read and thrown away for so long.
_REST_S: Final = 2.0
# Requests that came before their turn; there may be as many more as a socket gives at once.
MAX_AHEAD_BYTES: Final = 64 * 2**10
# The longest line of a request; the parser's own bound, told here to know its errors apart.
MAX_LINE_BYTES: Final = 8190


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
        "_guest",
        "_is_given",
        "_is_lent",
        "_over",
    )

    def __init__(
        self,
        server: web.Server,
        guest: Guest,
        direct: Direct | None,
        **settings: Any,  # noqa: ANN401 (aiohttp's)
    ) -> None:
        self._is_lent = False
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=guest.limits.idle_s,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_RANGE_HEADER_BYTES,
            lingering_time=_REST_S,
            # Nothing that is posted comes compressed.
            auto_decompress=False,
            **settings,
        )
        self._guest = guest
        guest.serving = self
        self._direct = direct
        # What came and was not begun with.
        self._ahead = b""
        self._is_given = direct is None
        self._delivery: Delivery | None = None
        # Of a delivery that the end of the server waits for.
        self._over: asyncio.Future[None] | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room for another one."""
        self._guest.leave()
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
        while self._ahead and not (self._delivery or self._is_lent or self._is_ending):
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
            self._guest.head_bytes = 0
            if len(self._ahead) <= MAX_AHEAD_BYTES:
                self._guest.wire.resume_reading()
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
            self._delivery = self._direct.deliver(head, self._guest.wire, done)
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
        self._is_given = True
        data, self._ahead = self._ahead, b""
        self._guest.wire.resume_reading()
        # Some of a head may have been here for a while, and its clock goes on.
        self._give(data, counted_bytes=self._guest.head_bytes)

    def _keep(self) -> None:
        """Look after what has come and not had its turn."""
        if not self._ahead:
            return
        if not self._ahead:
            return
        if END in self._ahead:
            self._guest.head_bytes = 0
            if len(self._ahead) > MAX_AHEAD_BYTES:
                self._guest.wire.pause_reading()
        else:
            self._guest.wait_for_head(len(self._ahead))

    @property
    def _is_ending(self) -> bool:
        return self._close or self._force_close or self._guest.is_leaving

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

    def _give(self, data: bytes, counted_bytes: int = 0) -> None:
        """Have aiohttp read what came, of which so much was counted as part of a head before."""
        # Asked first: the same bytes may be the last ones of a body.
        before, reads_head = self._request_count, self._reads_head
        super().data_received(data)
        if self._request_count != before:
            self._guest.head_bytes = 0
        elif reads_head:
            self._guest.wait_for_head(self._guest.head_bytes + len(data) - counted_bytes)

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        waiter = self._aiohttp_waits
        return self._delivery is None and waiter is not None and not waiter.done()

    @property
    def requests(self) -> int:
        """How many there were so far."""
        return self._request_count

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
            self._guest.metrics.count("malformed", status, 0.0)
        response = super().handle_error(request, status, exc, message)
        response.headers["Server"] = "bucketsync"
        return response


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
