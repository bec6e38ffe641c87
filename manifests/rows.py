"""Rows of metadata: one line of JSON about one post, as any Danbooru export wrote it.

Three serialisations are in the world, often side by side in one folder:

* 2017 to 2020: numbers are strings, and null is written as ``"0"`` or as a date in 1970;
* 2021 (table export): numbers are strings, and keys whose value is null are left out;
* the site's own API and its later dumps: numbers are numbers, nulls are there.

So one decoder a field accepts all three, and a missing key is a null.  Which fields are read is a
table; whoever needs more of a row adds a line to it and a field to :class:`PostRow`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from manifests.errors import ManifestError
from manifests.paths import MAX_ID, check_extension

_MAX_PIXELS = 2**32 - 1
_MAX_BYTES = 2**63 - 1
# Longer strings of digits are no number that any field could hold (and slow to convert).
_MAX_DIGITS = 19
_MD5 = re.compile(r"[0-9a-f]{32}")
_MAX_RATING = 16


class RowFault(StrEnum):
    """Why a line is no post; the last two are found by whoever reads the lines."""

    JSON = "json"
    NO_ID = "no-id"
    FIELD = "field"
    TOO_LONG = "too-long"
    FILE = "file"


class RowError(ManifestError):
    """A line that is no usable post: ``fault`` is its sort, ``where`` the field.

    ``RowFault.NO_ID`` is not damage: exports hide the id of banned and gold-only posts.
    """

    def __init__(self, fault: RowFault, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class PostRow:
    """What metadata says about one post.

    0 and "" mean *not stated*.  ``file_size`` (bytes) and ``md5`` are of the file that was
    uploaded; a release may have optimised it since.
    """

    id: int
    md5: str
    file_ext: str
    file_size: int
    image_width: int
    image_height: int
    rating: str
    is_deleted: bool
    is_banned: bool


def _number(value: object, limit: int) -> int:
    """A count from a JSON number, a string of digits, or null (0)."""
    if value is None:
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value) if len(value) <= _MAX_DIGITS else limit + 1
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
        message = f"expected a number from 0 to {limit}, got {_shown(value)}"
        raise ValueError(message)
    return value


def _post_id(value: object) -> int:
    number = _number(value, MAX_ID)
    if number == 0:
        message = f"expected 1 to {MAX_ID}, got 0"
        raise ValueError(message)
    return number


def _pixels(value: object) -> int:
    return _number(value, _MAX_PIXELS)


def _bytes(value: object) -> int:
    return _number(value, _MAX_BYTES)


def _flag(value: object) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if value in ("true", "false"):
        return value == "true"
    message = f"expected true or false, got {_shown(value)}"
    raise ValueError(message)


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        message = f"expected text, got {_shown(value)}"
        raise ValueError(message)  # noqa: TRY004 (one exception for every bad field)
    return value


def _md5(value: object) -> str:
    text = _text(value)
    if text and _MD5.fullmatch(text) is None:
        message = f"expected 32 hexadecimal digits, got {_shown(text)}"
        raise ValueError(message)
    return text


def _rating(value: object) -> str:
    text = _text(value)
    if len(text) > _MAX_RATING:
        message = f"expected a word, got {_shown(text)}"
        raise ValueError(message)
    return text


def _extension(value: object) -> str:
    text = _text(value)
    try:
        return check_extension(text) if text else ""
    except ManifestError as error:
        raise ValueError(error.problem) from error


_FIELDS: tuple[tuple[str, Callable[[object], object]], ...] = (
    ("id", _post_id),
    ("md5", _md5),
    ("file_ext", _extension),
    ("file_size", _bytes),
    ("image_width", _pixels),
    ("image_height", _pixels),
    ("rating", _rating),
    ("is_deleted", _flag),
    ("is_banned", _flag),
)


def parse_row(line: bytes) -> PostRow:
    """One post from one line of JSON, of either generation.

    Trusts nothing: any bytes give a row or a :class:`RowError` that names the field and why.  The
    caller bounds the length of ``line``.
    """
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RowError(RowFault.JSON, "row", f"no JSON: {error}") from error
    if not isinstance(row, dict):
        raise RowError(RowFault.JSON, "row", f"expected an object, got {_shown(row)}")
    if row.get("id") is None:
        raise RowError(RowFault.NO_ID, "id", "the row has no id (a hidden post)")
    return PostRow(**_decoded(row))


def _decoded(row: dict[str, object]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, decode in _FIELDS:
        try:
            values[name] = decode(row.get(name))
        except ValueError as error:
            raise RowError(RowFault.FIELD, name, str(error)) from error
    return values


def _shown(value: object) -> str:
    """The beginning of a value, for a message."""
    return repr(value)[:60]
