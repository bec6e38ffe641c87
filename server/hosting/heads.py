"""Heads of answers: what each of them says, and one in bytes where aiohttp does not send it."""

from __future__ import annotations

import time
from typing import Final

from aiohttp import HttpVersion, web
from aiohttp.abc import AbstractStreamWriter

from server.hosting.ranges import Reply, http_date

# Nothing that a dataset holds, such as an SVG or an HTML page, may run scripts in a host's name.
SAFETY: Final = {
    "Server": "bucketsync",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
}

_SAFETY_LINES: Final = "\r\n".join(f"{name}: {value}" for name, value in SAFETY.items())


def head_of(reply: Reply, version: HttpVersion, keep_alive: bool) -> bytes:  # noqa: FBT001
    """The head of an answer, up to where its body begins; no header of a reply has line ends."""
    lines = [f"HTTP/{version.major}.{version.minor} {reply.status.value} {reply.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if not keep_alive:
        lines.append("Connection: close")
    elif version.minor == 0:
        lines.append("Connection: keep-alive")
    lines.append(f"Date: {http_date(int(time.time()))}\r\n{_SAFETY_LINES}\r\n\r\n")
    return "\r\n".join(lines).encode("latin-1")


class SentResponse(web.StreamResponse):
    """An answer whose head and body were sent by others; aiohttp has nothing left to do for it.

    Where it is not whole, the connection cannot go on.
    """

    def __init__(self, request: web.Request, reply: Reply, *, is_whole: bool) -> None:
        super().__init__(status=reply.status, headers=reply.headers)
        self._goes_on = is_whole and request.keep_alive

    @property
    def keep_alive(self) -> bool:
        """Whether another request may come on this connection."""
        return self._goes_on

    async def prepare(self, _: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing: the head was sent."""
        return None

    async def write_eof(self, _: bytes = b"") -> None:
        """Nothing: the body was sent."""
