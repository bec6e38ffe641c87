"""The entries of an earlier release, bucket by bucket, from the manifests in the repository.

Runs in worker processes: each checks the header of a manifest against the descriptor once, and
then reads only the frames of the buckets that it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from msgspec import Struct

from manifests.columns import U32, Entries, empty
from manifests.digest import Digest
from manifests.errors import ManifestError, StoreError
from manifests.layers import LayerPart, compose
from manifests.manifest import Header, decode_header, decode_removed, decode_rows
from manifests.model import MAX_LAYERS, Descriptor, ManifestRef


class LayerFile(Struct, frozen=True, kw_only=True):
    """One manifest of the base: its object and what the descriptor says of it."""

    path: str
    ref: ManifestRef


def manifests_of(release: Descriptor | None, variant: str) -> tuple[ManifestRef, ...]:
    """The manifests of a variant that a release has, oldest first."""
    layers = release.layers if release is not None else ()
    refs = (layer.manifests.get(variant) for layer in layers)
    return tuple(ref for ref in refs if ref is not None)


def manifests_digest(release: Descriptor | None, variant: str) -> bytes:
    """Names all that a release holds of a variant, by its manifests: 32 bytes.

    Releases between which nothing of the variant changed have it in common.
    """
    refs = manifests_of(release, variant)
    return Digest.of(b"".join(ref.digest.raw for ref in refs)).raw


def lineage_buckets(lineage: tuple[LayerFile, ...]) -> frozenset[int]:
    """The buckets in which any layer has an entry; StoreError as :func:`bucket_entries`."""
    found: set[int] = set()
    for file in lineage:
        with _naming(file):
            found.update(_index(file).header.row_bucket.tolist())
    return frozenset(found)


def bucket_entries(lineage: tuple[LayerFile, ...], bucket: int, buckets: int) -> Entries:
    """What a release holds in one bucket of a variant; ``lineage`` are its layers, oldest first.

    Raises StoreError, which names the object, if one is missing or damaged.
    """
    if not lineage:
        return empty()
    parts = [_part(file, number, bucket, buckets) for number, file in enumerate(lineage)]
    return compose(parts, buckets)


def _part(file: LayerFile, number: int, bucket: int, buckets: int) -> LayerPart:
    with _naming(file), Path(file.path).open("rb") as opened:
        index = _index(file)
        rows = index.header.rows_of_bucket(bucket)
        bounds = index.header.row_start[rows.start : rows.stop + 1].tolist()
        opened.seek(bounds[0])
        data = memoryview(opened.read(bounds[-1] - bounds[0]))
        frames = [data[at - bounds[0] : end - bounds[0]] for at, end in pairwise(bounds)]
        entries = decode_rows(index.header, rows, frames, number)
    first, last = np.searchsorted(index.removed % np.uint32(buckets), [bucket, bucket + 1])
    return LayerPart(entries=entries, removed_ids=index.removed[first:last])


@contextmanager
def _naming(file: LayerFile) -> Iterator[None]:
    """Make of what is wrong with a manifest a StoreError that names it."""
    try:
        yield
    except (OSError, ManifestError) as error:
        raise StoreError(
            f"{file.path}: {error}",
            hint="Restore this object from a backup or a mirror, or publish with --base none.",
        ) from error


class _Index(Struct, frozen=True, kw_only=True, eq=False):
    header: Header
    removed: U32


@lru_cache(maxsize=MAX_LAYERS)
def _index(file: LayerFile) -> _Index:
    with Path(file.path).open("rb") as opened:
        header = decode_header(opened.read(file.ref.header_bytes), file.ref)
        opened.seek(header.removed_start)
        removed = decode_removed(header, opened.read(header.removed_length))
    return _Index(header=header, removed=removed.ids)
