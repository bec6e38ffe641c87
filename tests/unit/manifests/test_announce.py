"""The two documents of a batch announce."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests import codec
from manifests.errors import ManifestError
from manifests.torrents.announce import Announcement, Neighbours, State

ASKED = Announcement(
    port=6881, numwant=50, hashes=[b"a" * 20, b"b" * 20], states=[State.LEECHING, State.RESTING]
)
ANSWER = Neighbours(
    interval_s=1800,
    peers=[b"", bytes(12)],
    peers6=[bytes(18), b""],
    waiting=[True, False],
    seeds=[0, 2**32 - 1],
)


def test_they_come_back_as_they_went() -> None:
    assert Announcement.decode(ASKED.encode()) == ASKED
    assert Neighbours.decode(ANSWER.encode(), 2) == ANSWER
    nobody = Announcement(port=1, numwant=0, hashes=[], states=[])
    assert Announcement.decode(nobody.encode()) == nobody


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"port": 0}, "port"),
        ({"port": 2**16}, "port"),
        ({"states": b"\4\0"}, "states"),
        ({"hashes": bytes(39)}, "hashes"),
        ({"states": bytes(20_001)}, "states"),
        ({"numwant": 1001}, "numwant"),
    ],
)
def test_an_announcement_that_cannot_be_is_refused(change: dict[str, Any], place: str) -> None:
    fields = {
        "format": 1,
        "port": 1,
        "numwant": 1,
        "hashes": bytes(40),
        "states": bytes(2),
    }
    Announcement.decode(codec.encode(fields))
    with pytest.raises(ManifestError, match=place):
        Announcement.decode(codec.encode(fields | change))


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"peers": [b"", bytes(7)]}, r"peers\[1\]"),
        ({"peers6": [b""]}, "peers6"),
        ({"peers": [1, 2]}, "peers"),
        ({"waiting": b"\0"}, "waiting"),
        ({"seeds": bytes(7)}, "seeds"),
        ({"interval": 2**21}, "interval"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(change: dict[str, Any], place: str) -> None:
    fields = {
        "format": 1,
        "interval": 1,
        "peers": [b"", b""],
        "peers6": [b"", b""],
        "waiting": bytes(2),
        "seeds": bytes(8),
    }
    Neighbours.decode(codec.encode(fields), 2)
    with pytest.raises(ManifestError, match=place):
        Neighbours.decode(codec.encode(fields | change), 2)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (Announcement.decode, lambda given: Neighbours.decode(given, 2)):
        with suppress(ManifestError):
            read(data)
