"""Torrents of our layout: info dictionary, the .torrent around it, both hashes, magnet link.

The layout (BEP 3, 47, 52), byte for byte what libtorrent makes of the same files:

- ``name`` is the variant and every path is BUCKET, ID.EXT.  So the folder that holds a tree's
  variants is the torrent's save path, and a stock client seeds the files that somebody uses.
- Files come in the byte order of their paths, which within a bucket is not the order of ids.
- A hybrid lists them twice: as ``file tree`` with the root of each, and as ``files`` with a pad
  file after each whose size is no multiple of the piece size, also after the last; but a torrent
  of a single file has no pad, and so the SHA-1 of its last piece is that of the bytes alone.
- A torrent of v2 only has neither ``files`` nor ``pieces``, and no pads.
- ``private`` is written only where it is on.  Nothing else is in the info dictionary, so the same
  entries give the same info-hash on every machine.
"""

from __future__ import annotations

import hashlib
from typing import Final, TypeAlias
from urllib.parse import quote, urlencode

import numpy as np
from msgspec import Struct

from manifests.columns import Entries
from manifests.errors import ManifestError
from manifests.paths import Layout, check_variant
from manifests.torrents.bencode import Encoded, Value, encode, head
from manifests.torrents.grouping import Group
from manifests.torrents.pieces import PieceColumns, layer_counts
from manifests.torrents.terms import V2_BYTES, InfoHashes

META_VERSION = 2
# The header of a multihash: SHA-256, 32 bytes.
_MULTIHASH = "1220"
_MAX_TRACKERS: Final = 1000
# Tiers of announce URLs (BEP 12).
Trackers: TypeAlias = tuple[tuple[str, ...], ...]


class Contents(Struct, frozen=True, kw_only=True, eq=False):
    """What the info-hashes depend on.

    ``paths`` are BUCKET/ID.EXT in byte order, ``hashes`` the columns of those files.
    """

    variant: str
    paths: tuple[str, ...]
    hashes: PieceColumns
    private: bool = False


class Outer(Struct, frozen=True, kw_only=True):
    """What stands around the info dictionary, and may differ from one mirror to the next.

    ``web_seeds`` are URLs below which
    ``VARIANT/BUCKET/ID.EXT`` is found (BEP 19); each ends in a slash and never changes its files.
    """

    trackers: Trackers = ()
    web_seeds: tuple[str, ...] = ()
    comment: str = ""
    created_s: int | None = None


class Torrent(Struct, frozen=True, kw_only=True):
    """A .torrent, ready to be stored, and what it is called."""

    data: bytes
    info_hashes: InfoHashes


def contents_of(  # noqa: PLR0913 (a torrent has many sides)
    entries: Entries,
    hashes: PieceColumns,
    group: Group,
    *,
    layout: Layout,
    variant: str,
    private: bool = False,
) -> Contents:
    """The contents of one group of the entries of a layer and variant.

    ``hashes`` has the group's files in the order of the entries.  ManifestError if their sizes are
    not those of the entries: one of the two was not made from the file that the other speaks of.
    """
    sizes = entries.sizes[group.start : group.stop]
    if len(hashes) != len(sizes) or (hashes.sizes != sizes).any():
        raise ManifestError("torrent", "its hashes are not those of the entries")
    ids, exts = entries.ids[group.start : group.stop], entries.exts[group.start : group.stop]
    buckets = (ids % np.uint32(layout.buckets)).tolist()
    folders = {bucket: layout.bucket_name(bucket) for bucket in set(buckets)}
    paths = [
        f"{folders[bucket]}/{post_id}.{entries.extensions[ext]}"
        for bucket, post_id, ext in zip(buckets, ids.tolist(), exts.tolist(), strict=True)
    ]
    order = sorted(range(len(paths)), key=paths.__getitem__)
    return Contents(
        variant=check_variant(variant),
        paths=tuple(paths[row] for row in order),
        hashes=hashes.take(np.array(order, np.int64)).alone(),
        private=private,
    )


def make_torrent(contents: Contents, outer: Outer) -> Torrent:
    """The .torrent of these contents; the same values give the same bytes."""
    info = encode_info(contents)
    document: dict[bytes, Value] = {b"info": Encoded(info)}
    document[b"piece layers"] = _layers_value(contents.hashes)
    tiers: list[Value] = [[url.encode() for url in tier] for tier in outer.trackers]
    if tiers:
        document[b"announce"] = outer.trackers[0][0].encode()
        document[b"announce-list"] = tiers
    if outer.web_seeds:
        document[b"url-list"] = [url.encode() for url in outer.web_seeds]
    if outer.comment:
        document[b"comment"] = outer.comment.encode()
    if outer.created_s is not None:
        document[b"creation date"] = outer.created_s
    hashes = hash_info(info, hybrid=contents.hashes.hybrid)
    return Torrent(data=encode(document), info_hashes=hashes)


def hash_info(info: bytes, *, hybrid: bool) -> InfoHashes:
    """Both names of a torrent, from the bytes of its info dictionary."""
    sha1 = hashlib.sha1(info, usedforsecurity=False).digest() if hybrid else None
    return InfoHashes(v1=sha1, v2=hashlib.sha256(info).digest())


def info_value(contents: Contents) -> dict[bytes, Value]:
    """The info dictionary, not yet encoded."""
    files = _files_value(contents) if contents.hashes.hybrid else []
    return _info(contents, _tree_value(contents), files)


def encode_info(contents: Contents) -> bytes:
    """The bytes of :func:`info_value`, in a fifth of the time of :func:`encode`."""
    files = _encoded_files(contents) if contents.hashes.hybrid else Encoded()
    return encode(_info(contents, _encoded_tree(contents), files))


def _info(contents: Contents, tree: Value, files: Value) -> dict[bytes, Value]:
    hashes = contents.hashes
    info: dict[bytes, Value] = {
        b"file tree": tree,
        b"meta version": META_VERSION,
        b"name": contents.variant.encode(),
        b"piece length": hashes.piece_bytes,
    }
    if hashes.hybrid:
        info[b"files"] = files
        info[b"pieces"] = hashes.pieces.tobytes()
    if contents.private:
        info[b"private"] = 1
    return info


def _files_value(contents: Contents) -> list[Value]:
    files: list[Value] = []
    piece_bytes = contents.hashes.piece_bytes if len(contents.paths) > 1 else 1
    for path, size in zip(contents.paths, contents.hashes.sizes.tolist(), strict=True):
        files.append({b"length": size, b"path": path.encode().split(b"/")})
        if pad := -size % piece_bytes:
            files.append({b"attr": b"p", b"length": pad, b"path": [b".pad", b"%d" % pad]})
    return files


def _tree_value(contents: Contents) -> dict[bytes, Value]:
    tree: dict[bytes, dict[bytes, Value]] = {}
    roots = contents.hashes.roots.tobytes()
    for row, size in enumerate(contents.hashes.sizes.tolist()):
        bucket, name = contents.paths[row].encode().split(b"/")
        file: dict[bytes, Value] = {b"length": size}
        if size:
            file[b"pieces root"] = roots[row * V2_BYTES : (row + 1) * V2_BYTES]
        tree.setdefault(bucket, {})[name] = {b"": file}
    return dict(tree)


def _encoded_files(contents: Contents) -> Encoded:
    """The bytes of :func:`_files_value`."""
    parts = [b"l"]
    piece_bytes = contents.hashes.piece_bytes if len(contents.paths) > 1 else 1
    for path, size in zip(contents.paths, contents.hashes.sizes.tolist(), strict=True):
        bucket, name = path.encode().split(b"/")
        parts.append(
            b"d6:lengthi%de4:pathl%d:%b%d:%bee" % (size, len(bucket), bucket, len(name), name)
        )
        if pad := -size % piece_bytes:
            digits = b"%d" % pad
            parts.append(
                b"d4:attr1:p6:lengthi%be4:pathl4:.pad%d:%bee" % (digits, len(digits), digits)
            )
    return Encoded(b"".join((*parts, b"e")))


def _encoded_tree(contents: Contents) -> Encoded:
    """The bytes of :func:`_tree_value`; paths in byte order are keys in their order."""
    parts, last = [b"d"], b""
    roots = contents.hashes.roots.tobytes()
    for row, size in enumerate(contents.hashes.sizes.tolist()):
        bucket, name = contents.paths[row].encode().split(b"/")
        if bucket != last:
            parts.append(b"%b%d:%bd" % (b"e" if last else b"", len(bucket), bucket))
            last = bucket
        root = b"11:pieces root32:" + roots[row * V2_BYTES : (row + 1) * V2_BYTES] if size else b""
        parts.append(b"%d:%bd0:d6:lengthi%de%bee" % (len(name), name, size, root))
    parts.append(b"ee" if last else b"e")
    return Encoded(b"".join(parts))


def _layers_value(hashes: PieceColumns) -> dict[bytes, Value]:
    """The piece layer of each root that has one; files of the same contents share it."""
    counts = layer_counts(hashes.sizes, hashes.piece_bytes)
    rows = np.flatnonzero(counts)
    ends = np.cumsum(counts)
    return {
        hashes.roots[row].tobytes(): hashes.layers[ends[row] - counts[row] : ends[row]].tobytes()
        for row in rows
    }


def trackers_of(data: bytes) -> Trackers:
    """The tiers of trackers that a .torrent of ours names (BEP 12)."""
    found = head(data, "torrent", b"b", max_values=_MAX_TRACKERS)
    tiers = found.get(b"announce-list", [[found[b"announce"]]] if b"announce" in found else [])
    return tuple(
        tuple(url.decode() for url in tier if isinstance(url, bytes))
        for tier in (tiers if isinstance(tiers, list) else [])
        if isinstance(tier, list)
    )


def magnet(hashes: InfoHashes, *, name: str, trackers: Trackers = ()) -> str:
    """A link that finds the torrent through trackers or the DHT (BEP 9); every tracker once."""
    topics = [f"urn:btmh:{_MULTIHASH}{hashes.v2.hex()}"]
    if hashes.v1 is not None:
        topics.insert(0, f"urn:btih:{hashes.v1.hex()}")
    urls = dict.fromkeys(url for tier in trackers for url in tier)
    named = urlencode([("dn", name), *(("tr", url) for url in urls)], quote_via=quote, safe="")
    return "magnet:?" + "&".join([*(f"xt={topic}" for topic in topics), named])
