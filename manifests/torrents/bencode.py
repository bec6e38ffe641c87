"""Bencoding (BEP 3), canonical both ways.

A value has one encoding: keys of a dictionary ascend as bytes and none comes twice, integers and
lengths have no leading zero, nothing follows the value.  The decoder refuses every other
encoding, so whoever compares two values has compared their bytes.  What it costs is bounded
beforehand: bytes of the document, values in it, how deep they nest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from manifests.errors import ManifestError

Value: TypeAlias = int | bytes | Sequence["Value"] | Mapping[bytes, "Value"]

# Signed 64 bits have 19 digits, and no number of a torrent is larger.
_INTEGER = re.compile(rb"i(0|-?[1-9][0-9]{0,18})e")
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,9}):")


class Encoded(bytes):
    """A value that is encoded already; :func:`encode` copies it as it is."""

    __slots__ = ()


def encode(value: Value) -> bytes:
    """The canonical bytes of integers, bytes, lists and dictionaries; TypeError for others."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: Value, parts: list[bytes]) -> None:
    if isinstance(value, Encoded):
        parts.append(value)
    elif isinstance(value, bytes):
        parts.append(b"%d:%b" % (len(value), value))
    elif isinstance(value, int) and not isinstance(value, bool):
        parts.append(b"i%de" % value)
    elif isinstance(value, dict):
        parts.append(b"d")
        for key in sorted(value):
            parts.append(b"%d:%b" % (len(key), key))
            _encode(value[key], parts)
        parts.append(b"e")
    elif isinstance(value, list | tuple):
        parts.append(b"l")
        for item in value:
            _encode(item, parts)
        parts.append(b"e")
    else:
        message = f"{type(value).__name__} has no bencoding"
        raise TypeError(message)


def decode(
    data: bytes, where: str, *, max_bytes: int, max_values: int, max_depth: int = 64
) -> Value:
    """The value of a document: integers, bytes, lists, dictionaries.

    ManifestError at ``where``, with the offset of the byte, unless ``data`` is canonical and
    within the limits.  ``max_values`` counts every integer, string, list, dictionary and key.
    """
    value, rest = decode_first(
        data, where, max_bytes=max_bytes, max_values=max_values, max_depth=max_depth
    )
    require_end(data, rest, where)
    return value


def decode_first(
    data: bytes, where: str, *, max_bytes: int, max_values: int, max_depth: int = 64
) -> tuple[Value, int]:
    """The value that a document begins with, and how many bytes follow it.

    For who says what is wrong with the value before :func:`require_end` says what is with the end.
    """
    if len(data) > max_bytes:
        raise ManifestError(where, f"{len(data)} bytes, more than the limit of {max_bytes}")
    decoder = _Decoder(data, where, max_values=max_values, max_depth=max_depth)
    return decoder.value(0), decoder.rest


def require_end(data: bytes, rest: int, where: str) -> None:
    """ManifestError unless nothing follows a value."""
    if rest:
        at = len(data) - rest
        raise ManifestError(where, f"not canonical bencoding at byte {at}: {rest} bytes too many")


def head(data: bytes, where: str, before: bytes, *, max_values: int) -> dict[bytes, Value]:
    """What a dictionary begins with: its pairs whose keys come before ``before``.

    The rest is not looked at.  ManifestError as for :func:`decode`.
    """
    return _Decoder(data, where, max_values=max_values, max_depth=64).head(before)


class _Decoder:
    """Reads one value after another from ``data``, and remembers where it is."""

    __slots__ = ("_at", "_data", "_left", "_max_depth", "_max_values", "_where")

    def __init__(self, data: bytes, where: str, *, max_values: int, max_depth: int) -> None:
        self._data = data
        self._where = where
        self._max_values = self._left = max_values
        self._max_depth = max_depth
        self._at = 0

    def value(self, depth: int) -> Value:
        """The value that begins here."""
        lead = self._data[self._at : self._at + 1]
        if lead == b"d" or lead == b"l":  # noqa: PLR1714 (a set is slower, and this is the loop)
            if depth >= self._max_depth:
                raise self._error(f"nested more than {self._max_depth} deep")
            self._spend()
            self._at += 1
            return self._dictionary(depth + 1) if lead == b"d" else self._list(depth + 1)
        if lead == b"i":
            return self._integer()
        if lead.isdigit():
            return self._string()
        found = f"byte {lead[0]:#04x}" if lead else "the end"
        raise self._error(f"expected a value, got {found}")

    def head(self, before: bytes) -> dict[bytes, Value]:
        """The first pairs of the dictionary that begins here."""
        if self._data[self._at : self._at + 1] != b"d":
            raise self._error("expected a dictionary")
        self._at += 1
        items: dict[bytes, Value] = {}
        while not self._ends() and (key := self._string()) < before:
            items[key] = self.value(1)
        return items

    @property
    def rest(self) -> int:
        """Bytes that follow."""
        return len(self._data) - self._at

    def _integer(self) -> int:
        match = _INTEGER.match(self._data, self._at)
        if match is None:
            raise self._error("not a canonical integer of 64 bits")
        self._spend()
        self._at = match.end()
        return int(match[1])

    def _string(self) -> bytes:
        match = _LENGTH.match(self._data, self._at)
        if match is None:
            raise self._error("not a canonical length of a string")
        start, size_bytes = match.end(), int(match[1])
        if size_bytes > len(self._data) - start:
            raise self._error(
                f"a string of {size_bytes} bytes, but {len(self._data) - start} left"
            )
        self._spend()
        self._at = start + size_bytes
        return self._data[start : self._at]

    def _list(self, depth: int) -> list[Value]:
        items: list[Value] = []
        while not self._ends():
            items.append(self.value(depth))
        return items

    def _dictionary(self, depth: int) -> dict[bytes, Value]:
        items: dict[bytes, Value] = {}
        last = None
        while not self._ends():
            key = self._string()
            if last is not None and key <= last:
                raise self._error(f"key {key[:40]!r} does not come after {last[:40]!r}")
            items[key] = self.value(depth)
            last = key
        return items

    def _ends(self) -> bool:
        if self._data[self._at : self._at + 1] != b"e":
            return False
        self._at += 1
        return True

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._error(f"more than {self._max_values} values")

    def _error(self, problem: str) -> ManifestError:
        return ManifestError(self._where, f"not canonical bencoding at byte {self._at}: {problem}")
