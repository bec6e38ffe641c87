"""Canonical msgpack, and reading it field by field with located errors.

Canonical: map keys are text in byte order, integers in their shortest form, binary as ``bin``, no
floats, no extension types.  So a value has exactly one encoding, equal values have equal digests,
and a decoder refuses every other encoding.  Unknown keys of a map are ignored: a later version may
add keys, and changes the ``format`` number when an old reader would go wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgpack

from manifests.digest import DIGEST_BYTES, Digest
from manifests.errors import ManifestError

FORMAT = 1
_MAX_U64 = 2**64 - 1
# A byte of msgpack can become a Python object of 64 bytes.  The largest document allowed, a
# descriptor of 64,000 manifests and 100,000 assets, has 1.1 million items, and no list is longer.
_MAX_ITEMS = 1_250_000
_MAX_LENGTH = 100_000
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")


def encode(value: Mapping[str, Any]) -> bytes:
    """The canonical bytes of a map of text, integers, booleans, nil, bytes, lists and maps."""
    return bytes(msgpack.packb(_ordered(value), use_bin_type=True))


def _ordered(value: Any) -> Any:  # noqa: ANN401 (a document of any shape)
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value, key=str.encode)}
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    if value is not None and not isinstance(value, str | int | bytes):
        message = f"{type(value).__name__} has no canonical form"
        raise TypeError(message)
    return value


def _budget() -> Callable[[Any], Any]:
    """A hook that is shown each map and list as it is read, and stops it all at _MAX_ITEMS."""
    spent = 0

    def spend(container: Any) -> Any:  # noqa: ANN401 (a map or a list)
        nonlocal spent
        spent += 1 + len(container)
        if spent > _MAX_ITEMS:
            message = f"more than {_MAX_ITEMS} items"
            raise ValueError(message)
        return container

    return spend


def decode(data: bytes, where: str, *, max_bytes: int) -> Fields:
    """Read a document; ManifestError unless ``data`` is canonical and of our ``format``."""
    if len(data) > max_bytes:
        raise ManifestError(where, f"{len(data)} bytes, more than the limit of {max_bytes}")
    try:
        spend = _budget()
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            object_hook=spend,
            list_hook=spend,
            max_array_len=_MAX_LENGTH,
            max_map_len=_MAX_LENGTH,
        )
        canonical = isinstance(value, dict) and encode(value) == data
    except (ValueError, TypeError, RecursionError) as error:
        raise ManifestError(where, f"not a canonical msgpack map ({error})") from error
    if not canonical:
        raise ManifestError(where, "not a canonical msgpack map")
    fields = Fields(where, value)
    version = fields.uint("format")
    if version != FORMAT:
        raise ManifestError(
            f"{where}.format",
            f"expected {FORMAT}, got {version}",
            hint="This release needs another version of bucketsync; upgrade it.",
        )
    return fields


class Fields:
    """One map of a document; every accessor checks the type and bound of what it returns."""

    __slots__ = ("_value", "where")

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ManifestError(where, f"expected a map, got {type(value).__name__}")
        self.where = where
        self._value: dict[str, Any] = value

    def keys(self) -> list[str]:
        """The keys, all text."""
        for key in self._value:
            if not isinstance(key, str):
                raise ManifestError(self.where, f"key {key!r} is not text")
        return list(self._value)

    def place(self, key: str) -> str:
        """Where the value of ``key`` stands, for an error."""
        if _PLAIN_KEY.fullmatch(key) is None:
            return f"{self.where}[{key[:80]!r}]"
        return f"{self.where}.{key}"

    def _get(self, key: str, kind: type, what: str) -> Any:  # noqa: ANN401 (checked here)
        if key not in self._value:
            raise ManifestError(self.place(key), f"missing, expected {what}")
        value = self._value[key]
        if not isinstance(value, kind) or isinstance(value, bool):  # to Python a bool is an int
            raise ManifestError(self.place(key), f"expected {what}, got {type(value).__name__}")
        return value

    def has(self, key: str) -> bool:
        """Whether ``key`` is there and not nil."""
        return self._value.get(key) is not None

    def uint(self, key: str, maximum: int = _MAX_U64) -> int:
        """An integer from 0 to ``maximum``."""
        value: int = self._get(key, int, "an integer")
        if not 0 <= value <= maximum:
            raise ManifestError(self.place(key), f"expected 0 to {maximum}, got {value}")
        return value

    def text(self, key: str, max_chars: int = 1024) -> str:
        """Text of at most ``max_chars`` characters."""
        value: str = self._get(key, str, "text")
        if len(value) > max_chars:
            raise ManifestError(self.place(key), f"longer than {max_chars} characters")
        return value

    def blob(self, key: str, size_bytes: int) -> bytes:
        """Exactly ``size_bytes`` bytes."""
        value: bytes = self._get(key, bytes, "bytes")
        if len(value) != size_bytes:
            raise ManifestError(self.place(key), f"expected {size_bytes} bytes, got {len(value)}")
        return value

    def blob_up_to(self, key: str, max_bytes: int) -> bytes:
        """At most ``max_bytes`` bytes."""
        value: bytes = self._get(key, bytes, "bytes")
        if len(value) > max_bytes:
            raise ManifestError(self.place(key), f"more than {max_bytes} bytes")
        return value

    def blobs(self, key: str, count: int) -> list[bytes]:
        """A list of exactly ``count`` items, all bytes."""
        values = self._list(key, count)
        if len(values) != count or not all(isinstance(value, bytes) for value in values):
            raise ManifestError(self.place(key), f"expected {count} items of bytes")
        return values

    def digest(self, key: str) -> Digest:
        """A BLAKE3 digest."""
        return Digest(self.blob(key, DIGEST_BYTES))

    def map(self, key: str) -> Fields:
        """A nested map."""
        return Fields(self.place(key), self._get(key, dict, "a map"))

    def texts(self, key: str, max_items: int, max_chars: int = 1024) -> list[str]:
        """A list of at most ``max_items`` texts of at most ``max_chars`` characters."""
        values = self._list(key, max_items)
        for index, value in enumerate(values):
            if not isinstance(value, str) or len(value) > max_chars:
                problem = f"expected text of at most {max_chars} characters"
                raise ManifestError(f"{self.place(key)}[{index}]", problem)
        return values

    def maps(self, key: str, max_items: int) -> Iterator[Fields]:
        """Each map of a list of at most ``max_items``."""
        for index, value in enumerate(self._list(key, max_items)):
            yield Fields(f"{self.place(key)}[{index}]", value)

    def _list(self, key: str, max_items: int) -> list[Any]:
        values: list[Any] = self._get(key, list, "a list")
        if len(values) > max_items:
            raise ManifestError(self.place(key), f"more than {max_items} items")
        return values
