"""What is known of a host and of what goes over the wire, however it is asked."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from manifests.errors import ExitCode, TransferError
from manifests.version import VERSION

# Bytes ``start <= n < stop`` of a resource.
Span = tuple[int, int]

# What hosts are told of us.
USER_AGENT: Final = f"bucketsync/{VERSION}"
# nginx 1.22 refuses a Range header over about 8 KB.
_RANGE_HEADER_CHARS: Final = 3800
MAX_RANGES: Final = 128
# The longest that a busy host may make us wait at a time.
_MAX_RETRY_AFTER_S: Final = 300.0


class HttpOptions(Struct, frozen=True, kw_only=True):
    """How to talk to hosts; plain values, so that worker processes can be given them."""

    timeout_s: float = 30.0
    connections: int = 4
    bwlimit: int = 0
    min_rate: int = 1000
    allow_redirect: tuple[str, ...] = ()


class Traffic(Struct):
    """What went over the wire, headers not counted."""

    received_bytes: int = 0
    requests: int = 0

    def take(self) -> Traffic:
        """What came since the last call, counted once however many batches shared the source."""
        taken = Traffic(self.received_bytes, self.requests)
        self.received_bytes = self.requests = 0
        return taken


class RedirectError(TransferError):
    """The host sends us to another one, which the user did not allow; asking again is no use."""

    exit_code = ExitCode.REFUSED


def address(url: str, path: str) -> str:
    """The address of a resource below the URL of a host."""
    return f"{url.rstrip('/')}/{quote(path)}"


def retry_after_s(text: str | None) -> float | None:
    """Seconds from a Retry-After header, a number or a date; at most five minutes."""
    if text is None:
        return None
    if text.strip().isdigit():
        return min(float(text), _MAX_RETRY_AFTER_S)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
    return min(max(when - time.time(), 0.0), _MAX_RETRY_AFTER_S)


def joined(spans: Iterable[Span]) -> list[Span]:
    """The ranges that ascending spans make up: those that adjoin are one."""
    ranges: list[Span] = []
    for start, stop in spans:
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return ranges


def range_header(ranges: Sequence[Span]) -> str:
    """The value of a Range header that asks for some ranges."""
    return "bytes=" + ",".join([f"{start}-{stop - 1}" for start, stop in ranges])


def fitting(spans: Iterable[Span], most_ranges: int = MAX_RANGES) -> int:
    """How many of the spans one Range header can name, joined; at least one, if there is one."""
    chars, ranges, count, end = len("bytes="), 0, 0, -1
    for start, stop in spans:
        if start == end:
            chars += len(f"{stop}") - len(f"{end}")
        else:
            ranges += 1
            chars += len(f"{start}-{stop},")
        if count and (ranges > most_ranges or chars > _RANGE_HEADER_CHARS):
            break
        count, end = count + 1, stop
    return count
