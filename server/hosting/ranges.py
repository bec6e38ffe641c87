"""Which bytes a request gets: conditions, ranges and multipart framing (RFC 9110), as pure values.

Rules:

* A condition that fails answers 304 or 412 without a body; then ``Range`` counts, for GET alone,
  and only if ``If-Range`` names what is served now (strong comparison).
* Another unit than ``bytes`` is ignored, as the standard demands.  A set of byte ranges that is
  malformed, longer than ``MAX_RANGES`` or overlaps itself more than once is refused with 416
  (RFC 9110, 14.2 lets a server ignore or reject it): ignoring it would answer a wish for few bytes
  with gigabytes.  So no answer is longer than twice the representation and its part headers.
* Ranges come back in the order they were asked for, and are not joined.

Nothing here reads a file or knows of sockets.
"""

from __future__ import annotations

import functools
import re
import secrets
from collections.abc import Mapping
from email.utils import formatdate, mktime_tz, parsedate_tz
from http import HTTPStatus
from typing import Final, NamedTuple

# A client that joins neighbours needs few parts; no request may cost thousands of part headers.
MAX_RANGES: Final = 512
MAX_OVERLAPS: Final = 1
# Of the whole header line; the HTTP parser refuses longer ones with 400.
MAX_RANGE_HEADER_BYTES: Final = 16 * 2**10
# Longer numbers, which nobody means, would cost time to read.
_SPEC: Final = re.compile(r"([0-9]{1,99})-([0-9]{0,99})|-([0-9]{1,99})")
_ETAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


@functools.lru_cache(maxsize=256)
def http_date(seconds: int) -> str:
    """Unix seconds as HTTP writes them: those of now, and of a few layers, again and again."""
    return formatdate(seconds, usegmt=True)


def boundary_for(headers: Mapping[str, str]) -> str:
    """What separates the parts of an answer, where there may be several.

    No file can hold it, since nobody knows it before.
    """
    return secrets.token_hex(16) if "," in headers.get("Range", "") else ""


class RangeRefusedError(Exception):
    """No byte of the representation can be sent for this ``Range``; the answer is 416."""


class ByteRange(NamedTuple):
    """The bytes ``start <= byte < stop``; never empty."""

    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def content_range(self, size_bytes: int) -> str:
        """The value of ``Content-Range`` for a representation of ``size_bytes``."""
        return f"bytes {self.start}-{self.stop - 1}/{size_bytes}"


class Representation(NamedTuple):
    """What is served under a URL now, apart from the bytes themselves.

    ``etag`` is strong and unquoted.  ``modified`` (Unix seconds) is None where bytes might change
    twice within a second, so that nobody relies on it.
    """

    size_bytes: int
    etag: str
    modified: int | None
    content_type: str
    cache_control: str

    def headers(self) -> dict[str, str]:
        """The headers that every answer about this representation has."""
        found = {
            "ETag": f'"{self.etag}"',
            "Cache-Control": self.cache_control,
            "Accept-Ranges": "bytes",
        }
        if self.modified is not None:
            found["Last-Modified"] = http_date(self.modified)
        return found


class Reply(NamedTuple):
    """A status, its headers, and the body as literal bytes and ranges of the representation."""

    status: HTTPStatus
    headers: Mapping[str, str]
    body: tuple[bytes | ByteRange, ...] = ()
    body_bytes: int = 0


def plan_reply(
    method: str, headers: Mapping[str, str], shown: Representation, boundary: str
) -> Reply:
    """The answer to a GET or HEAD with these request headers, whose names match in any case.

    ``boundary`` separates parts and must not occur in the bytes served: a long random text.  A
    HEAD is answered like a GET without ``Range``, since ranges are defined for GET alone
    (RFC 9110, 14.2); its body is planned, and left to the caller not to send.
    """
    known = shown.headers()
    if (status := failed_condition(headers, shown)) is not None:
        return _empty(status, known)
    ranges: tuple[ByteRange, ...] | None = None
    if method == "GET" and "Range" in headers and _range_applies(headers.get("If-Range"), shown):
        try:
            ranges = parse_ranges(headers["Range"], shown.size_bytes)
        except RangeRefusedError:
            refusal = {**known, "Content-Range": f"bytes */{shown.size_bytes}"}
            return _empty(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, refusal)
    if ranges is None:
        return _whole(known, shown)
    if len(ranges) == 1:
        return _single(known, shown, ranges[0])
    return _several(known, shown, ranges, boundary)


def _empty(status: HTTPStatus, known: Mapping[str, str]) -> Reply:
    """An answer without a body; 304 states no length, which would be that of a 200."""
    length = {} if status is HTTPStatus.NOT_MODIFIED else {"Content-Length": "0"}
    return Reply(status=status, headers={**known, **length})


def _whole(known: Mapping[str, str], shown: Representation) -> Reply:
    body = (ByteRange(0, shown.size_bytes),) if shown.size_bytes else ()
    return Reply(
        status=HTTPStatus.OK,
        headers=_with_body(known, shown.content_type, shown.size_bytes),
        body=body,
        body_bytes=shown.size_bytes,
    )


def _single(known: Mapping[str, str], shown: Representation, wanted: ByteRange) -> Reply:
    return Reply(
        status=HTTPStatus.PARTIAL_CONTENT,
        headers={
            **_with_body(known, shown.content_type, wanted.size_bytes),
            "Content-Range": wanted.content_range(shown.size_bytes),
        },
        body=(wanted,),
        body_bytes=wanted.size_bytes,
    )


def _several(
    known: Mapping[str, str], shown: Representation, ranges: tuple[ByteRange, ...], boundary: str
) -> Reply:
    before = f"--{boundary}\r\nContent-Type: {shown.content_type}\r\nContent-Range: "
    body: list[bytes | ByteRange] = []
    size = 0
    for wanted in ranges:
        head = f"{before}{wanted.content_range(shown.size_bytes)}\r\n\r\n".encode()
        body += (head, wanted)
        size += len(head) + wanted.stop - wanted.start
        before = f"\r\n--{boundary}\r\nContent-Type: {shown.content_type}\r\nContent-Range: "
    body.append(f"\r\n--{boundary}--\r\n".encode())
    size += len(body[-1])
    kind = f"multipart/byteranges; boundary={boundary}"
    return Reply(
        status=HTTPStatus.PARTIAL_CONTENT,
        headers=_with_body(known, kind, size),
        body=tuple(body),
        body_bytes=size,
    )


def _with_body(known: Mapping[str, str], content_type: str, size_bytes: int) -> dict[str, str]:
    return {**known, "Content-Type": content_type, "Content-Length": str(size_bytes)}


# --------------------------------------------------------------------------- ranges


def parse_ranges(header: str, size_bytes: int) -> tuple[ByteRange, ...] | None:
    """The satisfiable ranges of a ``Range`` header, in its order; None where it is to be ignored.

    RangeRefusedError if no range is satisfiable, and for sets that this server rejects.
    """
    unit, equals, specs = header.partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    # Empty elements of a list are to be skipped (RFC 9110, 5.6.1.2).
    texts = [text for item in specs.split(",") if (text := item.strip(" \t"))]
    if len(texts) > MAX_RANGES:
        raise RangeRefusedError
    found = [wanted for text in texts if (wanted := _parse_spec(text, size_bytes)) is not None]
    if not found or _overlaps(found) > MAX_OVERLAPS:
        raise RangeRefusedError
    return tuple(found)


def _parse_spec(text: str, size_bytes: int) -> ByteRange | None:
    """One range, cut to what is there; None if nothing of it is."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise RangeRefusedError
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(size_bytes - int(suffix), 0), size_bytes
    else:
        start = int(first)
        stop = min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            raise RangeRefusedError
    return ByteRange(start, stop) if start < stop else None


def _overlaps(ranges: list[ByteRange]) -> int:
    """How many ranges begin within what those before them, by start, cover."""
    covered = count = 0
    for start, stop in sorted(ranges):
        count += start < covered
        covered = max(covered, stop)
    return count


# --------------------------------------------------------------------------- conditions


def failed_condition(headers: Mapping[str, str], shown: Representation) -> HTTPStatus | None:
    """412 or 304 if a condition of a GET or HEAD fails, in the order of RFC 9110, 13.2.2."""
    if (wanted := headers.get("If-Match")) is not None:
        if not _names(wanted, shown.etag, strong=True):
            return HTTPStatus.PRECONDITION_FAILED
    elif _seconds(headers.get("If-Unmodified-Since")) < (shown.modified or 0):
        return HTTPStatus.PRECONDITION_FAILED
    if (known := headers.get("If-None-Match")) is not None:
        return HTTPStatus.NOT_MODIFIED if _names(known, shown.etag, strong=False) else None
    since = headers.get("If-Modified-Since")
    if shown.modified is not None and since is not None and shown.modified <= _seconds(since, -1):
        return HTTPStatus.NOT_MODIFIED
    return None


def _range_applies(if_range: str | None, shown: Representation) -> bool:
    """Whether ``If-Range`` is absent or names the very bytes that are served now."""
    if if_range is None:
        return True
    match = _ETAG.fullmatch(if_range.strip())
    if match is not None:
        return match[1] is None and match[2] == shown.etag
    return shown.modified is not None and _seconds(if_range, -1) == shown.modified


def _names(header: str, etag: str, *, strong: bool) -> bool:
    if header.strip() == "*":
        return True
    return any(value == etag and not (weak and strong) for weak, value in _ETAG.findall(header))


def _seconds(date: str | None, unreadable: float = float("inf")) -> float:
    """Unix seconds of an HTTP date (in any of its three forms); ``unreadable`` if it is none."""
    parsed = parsedate_tz(date) if date else None
    if parsed is None:
        return unreadable
    try:
        return mktime_tz((*parsed[:9], parsed[9] or 0))
    except (ValueError, OverflowError):
        return unreadable
