"""Which files of a torrent the tree holds, by our own records alone.

A file counts if it stands where the torrent has it, its size and mtime are those that were
recorded when its bytes were last checked, and its recorded BLAKE3 is that of the layer's entry.
So nothing is read, a file that a later release replaced or somebody changed is not offered, and
nobody learns of files outside the selection.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from msgspec import Struct

from manifests.columns import Bools, Entries
from manifests.digest import Digest
from syncclient.places import Places
from syncclient.plan import compare
from syncclient.release import BucketView, ReleaseView
from syncclient.state import State
from syncclient.torrents.runs import Run
from syncclient.tree import Listing, list_bucket


class Mark(Struct, frozen=True, kw_only=True):
    """What is remembered of a look at a torrent: how much is here, and a digest of its paths.

    While the folders' mtimes are ``seen``, no file came or went; one may have been written to.
    """

    files: int
    size_bytes: int
    digest: Digest
    seen: tuple[int, ...]


class Held(Struct, frozen=True, kw_only=True):
    """Files of one torrent that are here, as paths VARIANT/BUCKET/ID.EXT; 100 bytes a file."""

    paths: tuple[str, ...]
    mark: Mark


class Holdings:
    """Looks at a tree for one release and selection; blocking, for one thread at a time."""

    def __init__(self, view: ReleaseView, places: Places, state: State) -> None:
        self._view = view
        self._places = places
        self._state = state

    def look(self, run: Run) -> Held:
        """What is here of a torrent now; 5 us a file."""
        paths: list[str] = []
        seen: list[int] = []
        size_bytes = 0
        for bucket in range(run.ref.first_bucket, run.ref.last_bucket + 1):
            listing = self._list(run.variant, bucket)
            seen.append(listing.folder_mtime_ns)
            if len(listing):
                prefix = f"{run.variant}/{self._places.layout.bucket_name(bucket)}/"
                held = self._held(run, bucket, listing)
                paths += [prefix + name for name in held.names()]
                size_bytes += int(held.sizes.sum())
        mark = Mark(
            files=len(paths),
            size_bytes=size_bytes,
            digest=Digest.of("\n".join(paths).encode()),
            seen=tuple(seen),
        )
        return Held(paths=tuple(paths), mark=mark)

    def glance(self, run: Run) -> tuple[int, ...]:
        """The mtimes of a torrent's folders now, as :class:`Mark` has them; 2 us a bucket."""
        return tuple(
            _mtime_of(self._folder(run.variant, bucket))
            for bucket in range(run.ref.first_bucket, run.ref.last_bucket + 1)
        )

    def _folder(self, variant: str, bucket: int) -> Path:
        return Path(self._places.root(variant), *self._places.folder(variant, bucket))

    def _list(self, variant: str, bucket: int) -> Listing:
        root = self._places.root(variant)
        if not root.exists():
            return Listing()
        return list_bucket(str(root), self._places.folder(variant, bucket))

    def _held(self, run: Run, bucket: int, listing: Listing) -> Entries:
        entries = self._view.of_layer(run.variant, run.layer, bucket)
        if not len(entries):
            return entries
        view = BucketView(wanted=entries, absent=np.zeros(len(entries), np.bool_), history=entries)
        record = self._state.load(run.variant, bucket)
        found = compare(view, listing, record)
        held: Bools = found.wanted_at >= 0
        known = found.known[found.wanted_at[held]]
        held[held] = known >= 0
        same = record.digests[known[known >= 0]] == entries.digests[held]
        held[held] = same.all(axis=1)
        return entries.take(np.flatnonzero(held))


def _mtime_of(folder: Path) -> int:
    try:
        return folder.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return -1
