"""The torrents of a layer's variant, as the descriptor names them.

All of a variant's torrents share what the publisher chose: piece size, hybrid or v2 only, private.
Each is an object (the ``.torrent`` as published) with its run of buckets and its info-hashes, so
that a client fetches only those whose files it wants, and can join a swarm before it has any.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from msgspec import Struct

from manifests.codec import Fields
from manifests.digest import Digest
from manifests.errors import ConfigError, ManifestError
from manifests.paths import Layout
from manifests.torrents.terms import (
    MAX_METAINFO_BYTES,
    V1_BYTES,
    V2_BYTES,
    InfoHashes,
    check_piece_bytes,
    run_label,
)

# A descriptor may have 32 MiB, and a torrent takes about 190 bytes of it.
MAX_TORRENTS = 100_000
_MAX_PIECE = 2**32


class TorrentRef(Struct, frozen=True, kw_only=True):
    """One torrent: its buckets, its object, its names.

    ``part`` counts from 1 the parts of a bucket that was cut by id; 0 for whole buckets.
    """

    first_bucket: int
    last_bucket: int
    part: int
    digest: Digest
    size_bytes: int
    info_hashes: InfoHashes

    def label(self, layout: Layout) -> str:
        """What tells it from the others of its layer and variant."""
        return run_label(layout, self.first_bucket, self.last_bucket, self.part)

    def to_map(self) -> dict[str, Any]:
        """The map that stands in the descriptor."""
        v1 = {} if self.info_hashes.v1 is None else {"v1": self.info_hashes.v1}
        return v1 | {
            "first": self.first_bucket,
            "last": self.last_bucket,
            "part": self.part,
            "digest": self.digest.raw,
            "size": self.size_bytes,
            "v2": self.info_hashes.v2,
        }

    @classmethod
    def from_fields(cls, fields: Fields, *, hybrid: bool) -> TorrentRef:
        """Read it back; ManifestError where it has other hashes than its set says."""
        if fields.has("v1") != hybrid:
            raise ManifestError(fields.place("v1"), "does not agree with `hybrid`")
        last = fields.uint("last", 2**32 - 1)
        first = fields.uint("first", last)
        part = fields.uint("part", 2**32 - 1)
        if part and first != last:
            raise ManifestError(fields.place("part"), "several buckets cannot be a part of one")
        return cls(
            first_bucket=first,
            last_bucket=last,
            part=part,
            digest=fields.digest("digest"),
            size_bytes=fields.uint("size", MAX_METAINFO_BYTES),
            info_hashes=InfoHashes(
                v1=fields.blob("v1", V1_BYTES) if hybrid else None,
                v2=fields.blob("v2", V2_BYTES),
            ),
        )


class TorrentSet(Struct, frozen=True, kw_only=True):
    """The torrents of one layer and variant, in the order of their buckets and parts."""

    piece_bytes: int
    hybrid: bool
    private: bool
    torrents: tuple[TorrentRef, ...]

    def __iter__(self) -> Iterator[TorrentRef]:
        """Each torrent."""
        return iter(self.torrents)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.torrents)

    def to_map(self) -> dict[str, Any]:
        """The map that stands in the descriptor."""
        return {
            "piece": self.piece_bytes,
            "hybrid": int(self.hybrid),
            "private": int(self.private),
            "torrents": [torrent.to_map() for torrent in self.torrents],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> TorrentSet:
        """Read it back; ManifestError unless the torrents ascend and each bucket is in one run."""
        hybrid = bool(fields.uint("hybrid", 1))
        try:
            piece_bytes = check_piece_bytes(fields.uint("piece", _MAX_PIECE))
        except ConfigError as error:
            raise ManifestError(fields.place("piece"), error.message) from error
        torrents = tuple(
            TorrentRef.from_fields(item, hybrid=hybrid)
            for item in fields.maps("torrents", MAX_TORRENTS)
        )
        for before, after in pairwise(torrents):
            same_bucket = after.first_bucket == before.last_bucket
            follows = same_bucket and 0 < before.part < after.part
            if not (after.first_bucket > before.last_bucket or follows):
                raise ManifestError(
                    fields.place("torrents"),
                    f"buckets {after.first_bucket} to {after.last_bucket} come twice",
                )
        return cls(
            piece_bytes=piece_bytes,
            hybrid=hybrid,
            private=bool(fields.uint("private", 1)),
            torrents=torrents,
        )
