"""Releases made of bytes in memory: what a publisher signs, and what each tree must then hold.

Unlike :mod:`tests.support.world` an edition here is a whole tree (files come, change and go, and
there are assets), so that a test can compare a folder with it, byte by byte.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from manifests import manifest
from manifests.columns import CHUNK_BYTES, Entries
from manifests.digest import Digest, digest_bytes
from manifests.model import Asset, Descriptor, LayerRef, ManifestRef, Totals
from manifests.notices import TARGET_NAME, Absence, Notices
from manifests.paths import Layout, asset_path
from server.commands.init import init_repository
from server.signing import Settings, Signing

LAYOUT = Layout(buckets=10, digits=4)
DATASET = "tiny"
# Long past, so that no mtime that a layer gives its files looks like one of now.
FIRST_DATE = 1_600_000_000
DAY_S = 86400

# (variant, id) to (extension, bytes).
Files = Mapping[tuple[str, int], tuple[str, bytes]]


def random_files(
    ids: Iterable[int], *, variant: str = "original", size_bytes: int = 1000, seed: str = ""
) -> dict[tuple[str, int], tuple[str, bytes]]:
    """Files of random bytes, of about the same size, no two alike; odd ids are PNGs."""
    source = random.Random(f"{seed}/{variant}")  # noqa: S311 (test data)
    return {
        (variant, number): (
            "png" if number % 2 else "jpg",
            source.randbytes(size_bytes + source.randrange(size_bytes // 10 + 1)),
        )
        for number in ids
    }


@dataclass(frozen=True, kw_only=True)
class Edition:
    """One release as a whole tree."""

    name: str
    files: Files
    assets: Mapping[str, bytes]

    def tree(
        self, variants: Iterable[str] | None = None, ids: Iterable[int] | None = None
    ) -> dict[str, bytes]:
        """Every path of a clone and its bytes; of a selection, which takes no assets along.

        Assets come with whole variants only.
        """
        wanted = None if ids is None else set(ids)
        found = {
            LAYOUT.entry_path(variant, number, extension).text: data
            for (variant, number), (extension, data) in self.files.items()
            if (variants is None or variant in variants) and (wanted is None or number in wanted)
        }
        return found | (dict(self.assets) if ids is None else {})


@dataclass(kw_only=True)
class Publisher:
    """A repository, its keys, and its editions by name, oldest first."""

    repo: Path
    signing: Signing
    now: datetime
    editions: dict[str, Edition] = field(default_factory=dict)
    descriptors: list[Descriptor] = field(default_factory=list)

    @property
    def newest(self) -> Edition:
        """The edition published last."""
        return self.editions[self.descriptors[-1].release]

    def publish(
        self,
        name: str,
        files: Files,
        assets: Mapping[str, bytes] | None = None,
        *,
        store: bool = True,
    ) -> Edition:
        """Sign a release whose base is the one before; ``store`` writes the files of its layer."""
        edition = Edition(name=name, files=dict(files), assets=dict(assets or {}))
        before = self.newest.files if self.editions else {}
        date = FIRST_DATE + DAY_S * len(self.descriptors)
        variants = sorted({variant for variant, _ in [*files, *before]})
        own = LayerRef(
            name=name,
            date=date,
            manifests={v: self._manifest(v, files, before) for v in variants},
        )
        past = self.descriptors[-1] if self.descriptors else None
        descriptor = Descriptor(
            dataset=DATASET,
            release=name,
            base=past.release if past else None,
            created=date,
            layout=LAYOUT,
            layers=(*(past.layers if past else ()), own),
            totals={v: _totals(v, files) for v in sorted({variant for variant, _ in files})},
            assets=tuple(self._asset(path, data) for path, data in sorted(edition.assets.items())),
        )
        if store:
            self._store_files(own, files, before)
        self._sign(f"{name}.msgpack", descriptor.encode(), _custom(descriptor))
        self.descriptors.append(descriptor)
        self.editions[name] = edition
        return edition

    def withdraw(self, layer: str, variant: str, ids: Iterable[int]) -> None:
        """Say that entries of a layer are unavailable, and take their bytes away."""
        absence = Absence(
            layer=layer, variant=variant, ids=np.array(sorted(ids), np.uint32), reason="lost"
        )
        for number in absence.ids.tolist():
            for path in self.repo.glob(f"files/{layer}/{variant}/*/{number}.*"):
                path.unlink()
        self._sign(TARGET_NAME, Notices(absences=(absence,)).encode(), {})

    def _sign(self, target: str, data: bytes, custom: Mapping[str, object]) -> None:
        self.signing.publish_targets({target: (data, custom)}, now=self.now)

    def _asset(self, path: str, data: bytes) -> Asset:
        self._put_object(data)
        return Asset(path=asset_path(path), size_bytes=len(data), digest=Digest.of(data))

    def _manifest(self, variant: str, files: Files, before: Files) -> ManifestRef:
        put = {
            number: value
            for (of, number), value in files.items()
            if of == variant and before.get((of, number)) != value
        }
        gone = [n for of, n in before if of == variant and (of, n) not in files]
        data, ref = manifest.encode(entries_of(put), _removed(gone), LAYOUT.buckets)
        self._put_object(data)
        return ref

    def _store_files(self, layer: LayerRef, files: Files, before: Files) -> None:
        for (variant, number), (extension, data) in files.items():
            if before.get((variant, number)) != (extension, data):
                name = LAYOUT.entry_path(variant, number, extension).text
                path = self.repo / "files" / layer.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                os.utime(path, (layer.date, layer.date))

    def _put_object(self, data: bytes) -> None:
        digest = Digest.of(data)
        path = self.repo / "objects" / digest.hex[:2] / digest.hex
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def make_publisher(folder: Path) -> Publisher:
    """A repository without a release in ``folder/repo``, its keys beside it."""
    repo, now = folder / "repo", datetime.now(UTC)
    settings = Settings(dataset=DATASET, layout=LAYOUT)
    return Publisher(repo=repo, now=now, signing=init_repository(repo, settings=settings, now=now))


def in_order(ids: Iterable[int]) -> list[int]:
    """Ids by bucket and id, as a manifest has them."""
    return sorted(ids, key=lambda number: (LAYOUT.bucket_of(number), number))


def entries_of(files: Mapping[int, tuple[str, bytes]]) -> Entries:
    """The columns of some files of one variant."""
    ids = in_order(files)
    extensions = tuple(sorted({extension for extension, _ in files.values()}))
    held = [files[number][1] for number in ids]
    chunks = [
        digest_bytes(data[start : start + CHUNK_BYTES])
        for data in held
        if len(data) > CHUNK_BYTES
        for start in range(0, len(data), CHUNK_BYTES)
    ]
    return Entries(
        extensions=extensions,
        ids=np.array(ids, np.uint32),
        sizes=np.array([len(data) for data in held], np.uint64),
        exts=np.array([extensions.index(files[number][0]) for number in ids], np.uint8),
        digests=_columns([digest_bytes(data) for data in held]),
        offsets=np.zeros(len(ids), np.uint64),
        layers=np.zeros(len(ids), np.uint16),
        chunks=_columns(chunks),
    )


def _columns(digests: list[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), 32)


def _removed(gone: list[int]) -> manifest.Removed | None:
    if not gone:
        return None
    return manifest.Removed(
        ids=np.array(in_order(gone), np.uint32),
        codes=np.zeros(len(gone), np.uint8),
        reasons=("withdrawn",),
    )


def _totals(variant: str, files: Files) -> Totals:
    sizes = [len(data) for (of, _), (_, data) in files.items() if of == variant]
    return Totals(files=len(sizes), file_bytes=sum(sizes))


def _custom(descriptor: Descriptor) -> dict[str, object]:
    return {
        "release": descriptor.release,
        "base": descriptor.base,
        "created": descriptor.created,
        "variants": {
            name: {"files": total.files, "bytes": total.file_bytes}
            for name, total in descriptor.totals.items()
        },
    }
