"""The entries of an earlier release, bucket by bucket, from the manifests in the repository.

Runs in worker processes: each opens a manifest once, checks its header against the descriptor, and
reads of it only the frames of the buckets that it is asked for.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from manifests.columns import U32, Entries, empty
from manifests.errors import ManifestError, StoreError
from manifests.layers import LayerPart, compose
from manifests.manifest import Header, decode_header, decode_removed, decode_rows
from manifests.model import ManifestRef


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFile:
    """One manifest of the base: its object and what the descriptor says of it."""

    path: str
    ref: ManifestRef


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Open:
    header: Header
    data: mmap.mmap
    removed: U32


def lineage_buckets(lineage: tuple[LayerFile, ...]) -> frozenset[int]:
    """The buckets in which any layer has an entry; StoreError as :func:`bucket_entries`."""
    found: set[int] = set()
    for file in lineage:
        try:
            found.update(np.unique(_open(file).header.row_bucket).tolist())
        except (OSError, ValueError, ManifestError) as error:
            raise _damaged(file, error) from error
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
    try:
        manifest = _open(file)
        rows = manifest.header.rows_of_bucket(bucket)
        bounds = manifest.header.row_start
        view = memoryview(manifest.data)
        frames = [view[bounds[row] : bounds[row + 1]] for row in rows]
        entries = decode_rows(manifest.header, rows, frames, number)
    except (OSError, ValueError, ManifestError) as error:
        raise _damaged(file, error) from error
    first, last = np.searchsorted(manifest.removed % np.uint32(buckets), [bucket, bucket + 1])
    return LayerPart(entries=entries, removed_ids=manifest.removed[first:last])


@lru_cache(maxsize=256)
def _open(file: LayerFile) -> _Open:
    with Path(file.path).open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    header = decode_header(data[: file.ref.header_bytes], file.ref)
    if header.size_bytes > len(data):
        raise ManifestError("manifest", f"expected {header.size_bytes} bytes, got {len(data)}")
    tail = data[header.removed_start : header.size_bytes]
    return _Open(header=header, data=data, removed=decode_removed(header, tail).ids)


def _damaged(file: LayerFile, error: Exception) -> StoreError:
    message = f"{file.path}: {error}"
    return StoreError(
        message, hint="Restore this object from a backup or a mirror, or publish with --base none."
    )
