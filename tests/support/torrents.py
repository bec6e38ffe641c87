"""Torrents for tests: of files in memory by us, and of the same files on disk by libtorrent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manifests.columns import Entries
from manifests.paths import Layout
from manifests.torrents.grouping import Group
from manifests.torrents.metainfo import Contents, contents_of
from manifests.torrents.pieces import FileHashes, PieceColumns, hash_pieces

KIB = 2**10
LAYOUT = Layout(buckets=3, digits=4)
VARIANT = "original"
# Some bytes without a pattern of 16 KiB, so that no two blocks of a file are alike.
NOISE = bytes(np.random.default_rng(52).integers(0, 256, 2**21, np.uint8))


def sized_entries(files: Mapping[int, tuple[str, int]], layout: Layout = LAYOUT) -> Entries:
    """Entries of ``{id: (extension, size)}`` by (bucket, id), with digests of nothing."""
    ids = sorted(files, key=lambda post_id: (layout.bucket_of(post_id), post_id))
    table = sorted({files[post_id][0] for post_id in ids})
    return Entries(
        extensions=tuple(table),
        ids=np.array(ids, np.uint32),
        sizes=np.array([files[post_id][1] for post_id in ids], np.uint64),
        exts=np.array([table.index(files[post_id][0]) for post_id in ids], np.uint8),
        digests=np.zeros((len(ids), 32), np.uint8),
        offsets=np.zeros(len(ids), np.uint64),
        layers=np.zeros(len(ids), np.uint16),
        chunks=np.zeros((0, 32), np.uint8),
    )


def bucket_entries(
    counts: Sequence[int],
    layout: Layout,
    size_bytes: int,
    others: Mapping[int, int] | None = None,
) -> Entries:
    """As many entries in each bucket as ``counts`` says, of one size but for some rows."""
    ids = [
        bucket + layout.buckets * slot
        for bucket, count in enumerate(counts)
        for slot in range(1, count + 1)
    ]
    sizes = np.full(len(ids), size_bytes, np.uint64)
    for row, other_bytes in (others or {}).items():
        sizes[row : row + 1] = other_bytes
    rows = zip(ids, sizes.tolist(), strict=True)
    return sized_entries({post_id: ("jpg", size) for post_id, size in rows}, layout)


def entries_of_files(files: Mapping[int, tuple[str, bytes]], layout: Layout = LAYOUT) -> Entries:
    """Entries of ``{id: (extension, bytes)}``."""
    return sized_entries({key: (ext, len(data)) for key, (ext, data) in files.items()}, layout)


def hash_file(data: bytes, piece_bytes: int, *, hybrid: bool = True) -> FileHashes:
    """The hashes of a file that comes in one portion."""
    return hash_pieces(data, piece_bytes, hybrid=hybrid)


def whole(entries: Entries, layout: Layout = LAYOUT) -> Group:
    """All entries as one group."""
    buckets = entries.ids % np.uint32(layout.buckets)
    return Group(
        start=0,
        stop=len(entries),
        first_bucket=int(buckets.min()),
        last_bucket=int(buckets.max()),
    )


def contents_of_files(
    files: Mapping[int, tuple[str, bytes]],
    piece_bytes: int,
    *,
    hybrid: bool = True,
    private: bool = False,
    layout: Layout = LAYOUT,
) -> Contents:
    """What a torrent of all these files holds."""
    entries = entries_of_files(files, layout)
    hashed = [
        hash_file(files[post_id][1], piece_bytes, hybrid=hybrid)
        for post_id in entries.ids.tolist()
    ]
    return contents_of(
        entries,
        PieceColumns.joined(hashed, piece_bytes, hybrid=hybrid),
        whole(entries, layout),
        layout=layout,
        variant=VARIANT,
        private=private,
    )


def path_of(post_id: int, extension: str, layout: Layout = LAYOUT) -> str:
    """VARIANT/BUCKET/ID.EXT."""
    return layout.entry_path(VARIANT, post_id, extension).text


def libtorrent_makes(  # noqa: PLR0913 (a torrent has many sides)
    lt: Any,  # noqa: ANN401 (the module, which may be missing)
    folder: Path,
    files: Mapping[int, tuple[str, bytes]],
    piece_bytes: int,
    *,
    hybrid: bool = True,
    private: bool = False,
    layout: Layout = LAYOUT,
) -> dict[bytes, Any]:
    """The .torrent, as a dictionary, that libtorrent makes of files which it finds in a folder."""
    sizes = {}
    for post_id, (extension, data) in files.items():
        path = path_of(post_id, extension, layout)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        sizes[path] = len(data)
    flags = 0 if hybrid else lt.create_torrent.v2_only
    # Named, because the creator of 2.0 keeps a bare reference to it.
    listed = _file_list(lt, sizes)
    creator = lt.create_torrent(listed, piece_bytes, flags)
    creator.set_priv(private)
    lt.set_piece_hashes(creator, str(folder))
    made: dict[bytes, Any] = creator.generate()
    return made


def _file_list(lt: Any, sizes: Mapping[str, int]) -> Any:  # noqa: ANN401 (objects of libtorrent)
    """What each line of libtorrent makes a torrent of: 2.1 a list of entries, 2.0 a storage."""
    if hasattr(lt, "create_file_entry"):
        return [lt.create_file_entry(path, size) for path, size in sizes.items()]
    storage = lt.file_storage()
    for path, size in sizes.items():
        storage.add_file(path, size)
    return storage
