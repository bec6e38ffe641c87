"""What the files of a layer looked like when they were hashed, where they could change afterwards.

Copies and reflinks under ``files/LAYER`` belong to the repository alone: their size and their
mtime (the layer's date) say enough.  Two kinds of layer share their bytes with the publisher's
tree, where an overwrite in place would change what is served: *hard-linked* ones, and those
published with ``--in-place``, which have no files of their own.  For these, ``publish`` writes
before it signs

    REPO/.publish/served/LAYER/source.json  format, links ("hard" or "in-place"), tree (a path)
    REPO/.publish/served/LAYER/VARIANT.npy  a row of STAT_ROW an entry, by (bucket, id)

and never changes it.  A host sends a file only while size, mtime and inode are those of its row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.errors import StoreError

# One entry: sizes in bytes, mtimes in nanoseconds, extensions in ASCII.
STAT_ROW: Final = np.dtype(
    [
        ("bucket", "<u4"),
        ("id", "<u4"),
        ("ext", "S16"),
        ("size", "<u8"),
        ("mtime_ns", "<i8"),
        ("inode", "<u8"),
    ]
)
IN_PLACE: Final = "in-place"
HARD: Final = "hard"
_FORMAT: Final = 1

StatRows = npt.NDArray[np.void]


class Source(Struct, frozen=True, kw_only=True):
    """Where the files ``VARIANT/BUCKET/ID.EXT`` of a guarded layer lie, and how they got there."""

    folder: Path
    links: str


class _Stats(NamedTuple):
    """The rows of a variant, and where those of each bucket are.

    They lie on the disk row by row: to look for a bucket in them is to read them all.
    """

    rows: StatRows
    bounds: dict[int, slice]

    @classmethod
    def of(cls, rows: StatRows) -> _Stats:
        column = np.ascontiguousarray(rows["bucket"])
        firsts = np.flatnonzero(np.diff(column, prepend=column[:1] + 1))
        bounds = map(slice, firsts.tolist(), [*firsts[1:].tolist(), len(column)])
        return cls(rows, dict(zip(column[firsts].tolist(), bounds, strict=True)))


class ServedRecord:
    """Reads the record of guarded layers; needs no lock and no write access.

    Answers are kept, since a record never changes once its layer is signed.
    """

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        self._folder = repo / ".publish" / "served"
        self._sources: dict[str, Source | None] = {}
        self._stats: dict[tuple[str, str], _Stats] = {}

    def layers(self) -> tuple[str, ...]:
        """Guarded layers by name, also of a release that is not signed yet."""
        try:
            return tuple(sorted(path.name for path in self._folder.iterdir()))
        except FileNotFoundError:
            return ()

    def source(self, layer: str) -> Source | None:
        """Where the files of a guarded layer lie; None for a layer of copies or reflinks.

        StoreError if the record is there but cannot be read.
        """
        if layer not in self._sources:
            self._sources[layer] = self._read_source(layer)
        return self._sources[layer]

    def variants(self, layer: str) -> tuple[str, ...]:
        """The variants that the record of a guarded layer is about."""
        return tuple(sorted(path.stem for path in (self._folder / layer).glob("*.npy")))

    def buckets(self, layer: str, variant: str) -> list[int]:
        """The buckets in which a guarded layer has entries, ascending."""
        return list(self._of(layer, variant).bounds)

    def expected(self, layer: str, variant: str, bucket: int) -> StatRows | None:
        """Rows (STAT_ROW, ascending ids) of one bucket; None for a layer that needs no guard.

        An entry of a guarded layer without a row must be refused like one whose file differs.
        """
        if self.source(layer) is None:
            return None
        stats = self._of(layer, variant)
        return stats.rows[stats.bounds.get(bucket, slice(0))]

    def _of(self, layer: str, variant: str) -> _Stats:
        key = (layer, variant)
        if key not in self._stats:
            self._stats[key] = _Stats.of(self._read_stats(layer, variant))
        return self._stats[key]

    def _read_source(self, layer: str) -> Source | None:
        path = self._folder / layer / "source.json"
        try:
            fields = json.loads(path.read_bytes())
            links = fields["links"]
            known = fields["format"] == _FORMAT and links in {HARD, IN_PLACE}
            tree = Path(fields["tree"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(path, error) from error
        if not known:
            raise _unreadable(path, "an unknown format")
        return Source(
            folder=tree if links == IN_PLACE else self._repo / "files" / layer, links=links
        )

    def _read_stats(self, layer: str, variant: str) -> StatRows:
        path = self._folder / layer / f"{variant}.npy"
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return np.empty(0, STAT_ROW)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        if rows.dtype != STAT_ROW:
            raise _unreadable(path, "an unknown format")
        return np.asarray(rows)


def write_served(
    repo: Path, layer: str, *, links: str, tree: Path, stats: Mapping[str, StatRows]
) -> None:
    """Write the record of a layer that is about to be signed; the caller syncs it to disk."""
    folder = repo / ".publish" / "served" / layer
    folder.mkdir(parents=True, exist_ok=True)
    for variant, rows in stats.items():
        np.save(folder / f"{variant}.npy", rows, allow_pickle=False)
    fields: dict[str, Any] = {"format": _FORMAT, "links": links, "tree": os.fspath(tree)}
    (folder / "source.json").write_text(json.dumps(fields) + "\n")


def _unreadable(path: Path, problem: object) -> StoreError:
    message = f"{path}: not a record of served files: {problem}"
    return StoreError(message, hint="Restore it from a backup; its files cannot be served safely.")
