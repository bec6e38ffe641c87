"""What a URL asks of a search, read and bounded before anything is done for it."""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import urlencode

import orjson
from msgspec import Struct
from msgspec.structs import asdict, replace
from multidict import MultiMapping

from manifests.errors import ConfigError
from manifests.paths import MAX_ID

# Characters.  A URL may have 8 KiB, of which a query outside ASCII takes up to 12 bytes for each.
MAX_QUERY_LENGTH: Final = 4000
MAX_SEED_LENGTH: Final = 256
MAX_ZONE_LENGTH: Final = 64
# Ids of one answer: 0.9 MB of JSON, and 40 answers for five million posts.
MAX_IDS: Final = 100_000
DEFAULT_IDS: Final = 1000
_DIGITS: Final = re.compile(r"[0-9]{1,10}")
# Part of every entity tag: a new number where the same question comes to have another answer.
_MEANING: Final = 1


class ParameterError(ConfigError):
    """A parameter that is not one, or has a value that it cannot have."""

    def __init__(
        self, parameter: str, message: str, *, status: HTTPStatus = HTTPStatus.BAD_REQUEST
    ) -> None:
        super().__init__(message, hint="docs/reference/search-api.md has all parameters.")
        self.parameter = parameter
        self.status = status


class SearchParameters(Struct, frozen=True, kw_only=True):
    """A search as a URL states it; ``release`` is empty for the newest."""

    q: str
    release: str = ""
    limit: int = DEFAULT_IDS
    after: int | None = None
    count: bool = False
    tz: str = "UTC"
    seed: str = ""

    @classmethod
    def read(cls, query: MultiMapping[str]) -> Self:
        """Read them; ParameterError says which one is wrong.  Their order has no meaning."""
        _refuse_unknown(query)
        after = query.get("after")
        return cls(
            q=_text(query, "q", MAX_QUERY_LENGTH),
            release=query.get("release", ""),
            limit=_number("limit", query.get("limit", str(DEFAULT_IDS)), MAX_IDS),
            after=None if after is None else _number("after", after, MAX_ID),
            count=_flag("count", query.get("count", "0")),
            tz=_text(query, "tz", MAX_ZONE_LENGTH, "UTC"),
            seed=_text(query, "seed", MAX_SEED_LENGTH, ""),
        )

    def next_page(self, release: str, last: int) -> str:
        """The URL of the ids after ``last``, relative to the one that was asked."""
        fields = {"q": self.q, "release": release, "limit": self.limit, "after": last}
        if self.tz != "UTC":
            fields["tz"] = self.tz
        if self.seed:
            fields["seed"] = self.seed
        return "?" + urlencode(fields)

    def entity_tag(self, descriptor: str) -> str:
        """Names the answer by what it depends on; ``descriptor`` is the release's digest."""
        asked = orjson.dumps([_MEANING, descriptor, asdict(replace(self, release=""))])
        return hashlib.sha256(asked).hexdigest()[:32]


_KNOWN: Final = tuple(SearchParameters.__struct_fields__)


def _refuse_unknown(query: MultiMapping[str]) -> None:
    for name in query:
        if name not in _KNOWN:
            message = f"unknown parameter {name[:64]!r}: expected {', '.join(_KNOWN)}"
            raise ParameterError(name[:64], message)
        if len(query.getall(name)) > 1:
            raise ParameterError(name, f"{name} is given more than once")


def _text(query: MultiMapping[str], name: str, most: int, default: str | None = None) -> str:
    text = query.get(name, default)
    if text is None:
        raise ParameterError(name, f"{name} is missing")
    if len(text) > most:
        message = f"{name} has {len(text)} characters, more than {most}"
        raise ParameterError(name, message, status=HTTPStatus.REQUEST_URI_TOO_LONG)
    return text


def _number(name: str, text: str, most: int) -> int:
    number = int(text) if _DIGITS.fullmatch(text) else 0
    if number < 1:
        raise ParameterError(name, f"{name} is {text[:32]!r}: expected a number from 1 to {most}")
    if number > most:
        message = f"{name} is {number}, more than {most}"
        raise ParameterError(name, message, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    return number


def _flag(name: str, text: str) -> bool:
    if text not in {"0", "1"}:
        raise ParameterError(name, f"{name} is {text[:32]!r}: expected 0 or 1")
    return text == "1"
