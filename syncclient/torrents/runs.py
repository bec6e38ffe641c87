"""The torrents of a release, and their metainfo in the client's cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.model import Descriptor
from manifests.torrents.refs import TorrentRef
from manifests.torrents.terms import MAX_METAINFO_BYTES
from syncclient.cachedobject import cache_path, object_path
from syncclient.documents import write_durably
from syncclient.hosts import Hosts
from syncclient.parcels import Parcel


class Run(Struct, frozen=True, kw_only=True):
    """One torrent of a release: its layer (a number) and variant, and how the release names it."""

    layer: int
    variant: str
    ref: TorrentRef

    @property
    def key(self) -> bytes:
        """The SHA-256 of its info dictionary."""
        return self.ref.info_hashes.v2

    def may_hold(self, parcel: Parcel) -> bool:
        """Whether it has files of the parcel's bucket."""
        return (
            parcel.layer == self.layer
            and parcel.work.variant == self.variant
            and self.ref.first_bucket <= parcel.work.bucket <= self.ref.last_bucket
        )


def runs_of(descriptor: Descriptor, variants: Iterable[str]) -> list[Run]:
    """All torrents of a release, in the order of its layers."""
    return [
        Run(layer=number, variant=variant, ref=ref)
        for number, layer in enumerate(descriptor.layers)
        for variant in variants
        if variant in layer.torrents
        for ref in layer.torrents[variant]
    ]


async def metainfo_bytes(ref: TorrentRef, hosts: Hosts, cache: Path) -> bytes:
    """A .torrent from the cache or a host, checked against its BLAKE3."""
    path = cache_path(cache, ref.digest)

    def held() -> bytes | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        return data if Digest.of(data) == ref.digest else None

    data = await asyncio.to_thread(held)
    if data is None:

        def check(data: bytes) -> bytes:
            if Digest.of(data) != ref.digest:
                raise ManifestError("torrent", "not the bytes that the descriptor names")
            return data

        data = await hosts.document(object_path(ref.digest), MAX_METAINFO_BYTES, check)
        await write_durably(path, data)
    return data
