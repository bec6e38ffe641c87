"""An independent reader of ``multipart/byteranges`` (RFC 9110, 14.6; RFC 2046, 5.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def parts_of(headers: Mapping[str, str], body: bytes) -> list[tuple[int, int, bytes]]:
    """First byte, total size and bytes of each part of a 206, which may be a single one."""
    names = {name.lower(): value for name, value in headers.items()}
    kind = names["content-type"]
    if not kind.startswith("multipart/byteranges"):
        return [_checked(names, body)]
    delimiter = b"\r\n--" + kind.partition("boundary=")[2].encode()
    # The delimiter of the first part needs no line break before it.
    preamble, *parts, end = (b"\r\n" + body).split(delimiter)
    assert preamble.strip() == b""
    assert end.strip() == b"--"
    found = []
    for part in parts:
        head, _, data = part.partition(b"\r\n\r\n")
        lines = [line.partition(":") for line in head.decode().strip().splitlines()]
        found.append(_checked({name.lower(): value.strip() for name, _, value in lines}, data))
    return found


def _checked(headers: Mapping[str, str], data: bytes) -> tuple[int, int, bytes]:
    match = _CONTENT_RANGE.fullmatch(headers["content-range"])
    assert match is not None
    first, last, size = map(int, match.groups())
    assert last - first + 1 == len(data)
    return first, size, data
