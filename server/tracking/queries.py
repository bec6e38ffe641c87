"""The query strings of announce and scrape (BEP 3, 7, 21, 23, 48), read as bytes."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from manifests.torrents.announce import HASH_BYTES
from server.tracking.swarms import Event, RefusedError

# What fits into a request line.
MAX_SCRAPES: Final = 100
_NUMBER: Final = re.compile(rb"[0-9]{1,19}")
_MAX_PORT: Final = 65535


class Announce(Struct, frozen=True, kw_only=True):
    """One announce; ``left`` is whether the peer lacks anything, ``numwant`` None if unsaid."""

    info_hash: bytes
    port: int
    left: bool
    event: Event
    numwant: int | None


def read_announce(query: str) -> Announce:
    """Read an announce; RefusedError says what is wrong.

    Addresses that a peer gives itself are ignored: they would turn the tracker on others.
    """
    given = _parameters(query)
    hashes = given.get(b"info_hash", [])
    if len(hashes) != 1 or len(hashes[0]) != HASH_BYTES:
        raise RefusedError("expected one info_hash of 20 bytes")
    port = _number(given, b"port")
    if port is None or not 1 <= port <= _MAX_PORT:
        raise RefusedError("expected a port from 1 to 65535")
    name = given.get(b"event", [b""])[0].decode("ascii", "replace")
    try:
        event = Event("" if name == "empty" else name)
    except ValueError:
        raise RefusedError("there is no such event") from None
    left = _number(given, b"left")
    return Announce(
        info_hash=hashes[0],
        port=port,
        left=left is None or left > 0,
        event=event,
        numwant=_number(given, b"numwant"),
    )


def read_scrape(query: str) -> list[bytes]:
    """The hashes of a scrape; RefusedError unless there are 1 to MAX_SCRAPES of 20 bytes."""
    hashes = _parameters(query).get(b"info_hash", [])
    if not hashes or len(hashes) > MAX_SCRAPES:
        raise RefusedError(f"expected 1 to {MAX_SCRAPES} info_hash")
    if any(len(item) != HASH_BYTES for item in hashes):
        raise RefusedError("expected an info_hash of 20 bytes")
    return list(dict.fromkeys(hashes))


def _parameters(query: str) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    # Bytes that are no UTF-8 come as surrogates, if the parser lets them come at all.
    for pair in query.encode("utf-8", "surrogateescape").split(b"&"):
        name, _, value = pair.partition(b"=")
        found.setdefault(unquote_to_bytes(name), []).append(unquote_to_bytes(value))
    return found


def _number(given: dict[bytes, list[bytes]], name: bytes) -> int | None:
    if name not in given:
        return None
    text = given[name][0]
    if _NUMBER.fullmatch(text) is None:
        # Old clients say -1 for "as you like".
        if name == b"numwant" and text.startswith(b"-"):
            return None
        raise RefusedError(f"{name.decode()} is not a number")
    return int(text)
