"""Heads of requests that are plain: what this host's own client sends, and no more than that.

Rules, each so that nobody can read the same bytes as other requests than we do (RFC 9112, 11.2):

* GET or HEAD, HTTP/1.1, a path; each header once, known by name, on one line, printable ASCII.
* No header that says anything of a body, of another protocol or of the end of the connection.
* Lines end in CRLF, and neither of the two is anywhere else.

What is not plain is no error: aiohttp reads it, and says what is wrong with it.  Nothing here
knows of sockets.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# A longer one is left to aiohttp, which has bounds of its own.
MAX_PLAIN_HEAD_BYTES: Final = 8000
END: Final = b"\r\n\r\n"
_LINE: Final = rb"[A-Za-z][A-Za-z-]*: ?[!-~][ -~]*\r\n"
_HEAD: Final = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.1\r\n((?:%b)+)\r\n" % _LINE)
# Part of a path, of the version, or of a line that follows whole ones.
_REST: Final = rb"[!-~]*(?: [HTP/1.]{0,8}\r?)?|[!-~]* HTTP/1\.1\r\n(?:%b)*(?:[A-Za-z][ -~]*)?\r?"
_BEGINNING: Final = re.compile(rb"(?:GET|HEAD) /(?:%b)" % (_REST % _LINE))
_STARTS: Final = (b"GET /", b"HEAD /")
_NAMES: Final = {
    *("Host", "User-Agent", "Connection", "Cache-Control", "Pragma", "Referer"),
    *("Accept", "Accept-Encoding", "Accept-Language"),
    *("Range", "If-Range", "If-Match", "If-None-Match"),
    *("If-Modified-Since", "If-Unmodified-Since"),
    # Of a proxy in front.
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-Ip"),
}


class Head(NamedTuple):
    """A plain request; names of headers are written Like-This."""

    method: str
    path: str
    headers: dict[str, str]


def parse_head(data: bytes) -> Head | None:
    """The request of a head, which ends in END; None if it is not plain."""
    match = _HEAD.fullmatch(data)
    if match is None or len(data) > MAX_PLAIN_HEAD_BYTES:
        return None
    headers, count = {}, 0
    for line in match[3].decode("ascii").splitlines():
        name, _, value = line.partition(":")
        headers[name.title()] = value.strip(" ")
        count += 1
    if len(headers) != count or "Host" not in headers or not _NAMES.issuperset(headers):
        return None
    if headers.get("Connection", "keep-alive").lower() != "keep-alive":
        return None
    return Head(match[1].decode("ascii"), match[2].decode("ascii"), headers)


def may_become_plain(data: bytes) -> bool:
    """Whether the beginning of a head, without its END, can be that of a plain one."""
    if len(data) > MAX_PLAIN_HEAD_BYTES:
        return False
    return any(start.startswith(data) for start in _STARTS) or bool(_BEGINNING.fullmatch(data))
