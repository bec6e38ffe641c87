"""A small published repository, made by the project's own signing and manifests.

Files are random bytes, so that no test passes by reading a neighbour; each layer holds copies.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from manifests.columns import CHUNK_BYTES, Entries
from manifests.digest import digest_bytes
from manifests.manifest import encode
from manifests.model import Descriptor, LayerRef, ManifestRef, Totals
from manifests.paths import Layout
from server.commands.init import init_repository
from server.signing import Settings, Signing

LAYOUT = Layout(buckets=10, digits=4)
NOW = datetime(2022, 1, 1, tzinfo=UTC)
EXTENSIONS = ("jpg", "png")


@dataclass(kw_only=True)
class World:
    """A repository, and the bytes that were put into it by (layer, variant, id)."""

    repo: Path
    signing: Signing
    files: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    releases: list[Descriptor] = field(default_factory=list)

    def path(self, layer: str, variant: str, post_id: int) -> Path:
        """Where a file of a layer lies; even ids are JPEGs, odd ones PNGs."""
        return self.repo / self.url(layer, variant, post_id)[1:]

    def url(self, layer: str, variant: str, post_id: int) -> str:
        """The URL of a loose file."""
        bucket = LAYOUT.bucket_name(LAYOUT.bucket_of(post_id))
        return f"/files/{layer}/{variant}/{bucket}/{post_id}.{EXTENSIONS[post_id % 2]}"

    def pack(self, layer: str, variant: str, bucket: int) -> bytes:
        """The bytes of a bucket's pack."""
        return b"".join(self.files[key] for key in self._keys(layer, variant, bucket))

    def offset(self, layer: str, variant: str, post_id: int) -> int:
        """Where a file begins in the pack of its bucket."""
        keys = self._keys(layer, variant, LAYOUT.bucket_of(post_id))
        return sum(len(self.files[key]) for key in keys if key[2] < post_id)

    def _keys(self, layer: str, variant: str, bucket: int) -> list[tuple[str, str, int]]:
        return sorted(
            key
            for key in self.files
            if key[:2] == (layer, variant) and LAYOUT.bucket_of(key[2]) == bucket
        )

    def publish(self, release: str, sizes: dict[str, dict[int, int]]) -> Descriptor:
        """Sign a release that adds one layer: by variant, the size of each id's file."""
        date = int(NOW.timestamp()) + 86400 * len(self.releases)
        manifests = {v: self._variant(release, v, ids, date) for v, ids in sizes.items()}
        own = LayerRef(name=release, date=date, manifests=manifests)
        base = self.releases[-1] if self.releases else None
        layers = (*(base.layers if base else ()), own)
        descriptor = Descriptor(
            dataset="tiny",
            release=release,
            base=base.release if base else None,
            created=date,
            layout=LAYOUT,
            layers=layers,
            totals=_totals(layers),
        )
        self.signing.publish_targets({f"{release}.msgpack": (descriptor.encode(), {})}, now=NOW)
        self.releases.append(descriptor)
        return descriptor

    def _variant(self, layer: str, variant: str, sizes: dict[int, int], date: int) -> ManifestRef:
        source = random.Random(f"{layer}/{variant}")  # noqa: S311 (test data)
        for post_id, size in sizes.items():
            data = source.randbytes(size)
            self.files[layer, variant, post_id] = data
            path = self.path(layer, variant, post_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, (date, date))
        data, ref = encode(self._entries(layer, variant, list(sizes)), None, LAYOUT.buckets)
        self.put_object(ref.digest.hex, data)
        return ref

    def _entries(self, layer: str, variant: str, unsorted_ids: list[int]) -> Entries:
        ids = sorted(unsorted_ids, key=lambda post_id: (LAYOUT.bucket_of(post_id), post_id))
        held = [self.files[layer, variant, post_id] for post_id in ids]
        chunks = [
            digest_bytes(data[start : start + CHUNK_BYTES])
            for data in held
            if len(data) > CHUNK_BYTES
            for start in range(0, len(data), CHUNK_BYTES)
        ]
        return Entries(
            extensions=EXTENSIONS,
            ids=np.array(ids, np.uint32),
            sizes=np.array([len(data) for data in held], np.uint64),
            exts=np.array(ids, np.uint32).astype(np.uint8) % 2,
            digests=_columns([digest_bytes(data) for data in held]),
            offsets=np.zeros(len(ids), np.uint64),
            layers=np.zeros(len(ids), np.uint16),
            chunks=_columns(chunks),
        )

    def put_object(self, digest: str, data: bytes) -> str:
        """Store an object; its URL."""
        path = self.repo / "objects" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return f"/objects/{digest[:2]}/{digest}"

    def materialise(self, layer: str, variant: str, bucket: int) -> Path:
        """Lay out a pack as a file."""
        path = self.repo / "packs" / layer / variant / LAYOUT.bucket_name(bucket)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.pack(layer, variant, bucket))
        return path


def _columns(digests: list[bytes]) -> np.typing.NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _totals(layers: tuple[LayerRef, ...]) -> dict[str, Totals]:
    names = {variant for layer in layers for variant in layer.manifests}
    refs = {
        name: [layer.manifests[name] for layer in layers if name in layer.manifests]
        for name in names
    }
    return {
        name: Totals(
            files=sum(ref.entries for ref in held), file_bytes=sum(ref.file_bytes for ref in held)
        )
        for name, held in refs.items()
    }


def make_world(folder: Path) -> World:
    """A repository without a release, in ``folder/repo``, its keys beside it."""
    settings = Settings(dataset="tiny", layout=LAYOUT)
    repo = folder / "repo"
    return World(repo=repo, signing=init_repository(repo, settings=settings, now=NOW))
