"""What a descriptor says of torrents: read back, and refused with its place where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from manifests.codec import Fields
from manifests.errors import ManifestError
from manifests.paths import Layout
from manifests.torrents.refs import TorrentSet

ONE: dict[str, Any] = {
    "first": 0,
    "last": 3,
    "part": 0,
    "digest": bytes(32),
    "size": 1000,
    "v1": bytes(20),
    "v2": bytes(32),
}
SET: dict[str, Any] = {"piece": 65536, "hybrid": 1, "private": 0}


def read(*torrents: dict[str, Any], **changes: object) -> TorrentSet:
    return TorrentSet.from_fields(Fields("set", SET | {"torrents": list(torrents)} | changes))


def part(number: int, bucket: int = 4) -> dict[str, Any]:
    return ONE | {"first": bucket, "last": bucket, "part": number}


def test_it_comes_back_as_it_went() -> None:
    found = read(ONE, part(1), part(2), ONE | {"first": 5, "last": 5})
    assert TorrentSet.from_fields(Fields("set", found.to_map())) == found
    labels = [torrent.label(Layout(buckets=10, digits=3)) for torrent in found]
    assert labels == ["000-003", "004.1", "004.2", "005-005"]


def test_v2_only_has_no_v1() -> None:
    only = {key: value for key, value in ONE.items() if key != "v1"}
    assert read(only, hybrid=0).torrents[0].info_hashes.v1 is None
    for wrong, hybrid in ((only, 1), (ONE, 0)):
        with pytest.raises(ManifestError, match=r"set\.torrents\[0\]\.v1"):
            read(wrong, hybrid=hybrid)


@pytest.mark.parametrize(
    ("torrents", "place"),
    [
        ([ONE | {"last": 2, "first": 3}], "first"),
        ([ONE | {"part": 1}], "part"),
        ([ONE, ONE], "come twice"),
        ([part(2), part(1)], "come twice"),
        ([part(0), part(1)], "come twice"),
        ([ONE | {"size": 10**7 + 1}], "size"),
        ([ONE | {"v2": bytes(31)}], "v2"),
    ],
)
def test_what_cannot_be_is_refused(torrents: list[dict[str, Any]], place: str) -> None:
    with pytest.raises(ManifestError, match=place):
        read(*torrents)


@pytest.mark.parametrize("piece", [0, 8192, 100_000, 2**26])
def test_pieces_are_powers_of_two_within_bounds(piece: int) -> None:
    with pytest.raises(ManifestError, match=r"set\.piece"):
        read(ONE, piece=piece)
