"""Reading a .torrent of our layout, and refusing every other with its place and reason.

One rule replaces most checks.  The values that a torrent is free to choose are read and checked
one by one: variant, piece size, paths, sizes, roots, piece layers, v1 hashes, private.  From these
the info dictionary is made anew; the torrent is ours only if that is what it holds, and the error
names the first difference.  So a hybrid's two lists of files cannot disagree, nothing is in there
that we did not put there, and the info-hashes are those that the values have.

Work and memory are bounded beforehand: 10,000,000 bytes, 250,000 values, 5,000 files.  Keys
outside the info dictionary that we do not write (``nodes``, ``httpseeds`` …) are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import numpy as np
from msgspec import Struct

from manifests.columns import U64
from manifests.errors import ConfigError, ManifestError
from manifests.model import MAX_FILE_BYTES
from manifests.paths import check_variant, parse_entry_name
from manifests.torrents.bencode import Value, decode_first, encode, require_end
from manifests.torrents.grouping import MAX_FILES
from manifests.torrents.metainfo import META_VERSION, Contents, Outer, hash_info, info_value
from manifests.torrents.pieces import (
    PieceColumns,
    hash_rows,
    layer_counts,
    piece_counts,
    root_of_layer,
)
from manifests.torrents.terms import (
    MAX_METAINFO_BYTES,
    V1_BYTES,
    V2_BYTES,
    InfoHashes,
    check_piece_bytes,
)

# 31 for each of 5,000 files, folders and piece layers beside.
_MAX_VALUES = 250_000
_MAX_BUCKET_DIGITS = 9
_PATH_PARTS = 2
_MAX_URLS = 1_000

_Kind = TypeVar("_Kind", int, bytes, list, dict)  # type: ignore[type-arg]
_Table = Mapping[bytes, Value]
_Path = tuple[bytes, ...]
_NAMES = {int: "an integer", bytes: "a string", list: "a list", dict: "a dictionary"}


class ReadTorrent(Struct, frozen=True, kw_only=True):
    """A .torrent that was read and checked."""

    contents: Contents
    outer: Outer
    info_hashes: InfoHashes


def read_torrent(data: bytes, where: str = "torrent") -> ReadTorrent:
    """Read a .torrent; ManifestError at the place inside it unless it is of our layout."""
    document, rest = decode_first(
        data, where, max_bytes=MAX_METAINFO_BYTES, max_values=_MAX_VALUES
    )
    if not isinstance(document, dict):
        raise ManifestError(where, f"expected a dictionary, got {_kind(document)}")
    info = _get(document, b"info", dict, where)
    contents = _contents(info, document, where)
    if difference := _difference(info_value(contents), info, _place(where, b"info")):
        raise difference
    require_end(data, rest, where)
    hashes = hash_info(encode(info), hybrid=contents.hashes.hybrid)
    return ReadTorrent(contents=contents, outer=_outer(document, where), info_hashes=hashes)


# --------------------------------------------------------------------------- values


def _kind(value: object) -> str:
    return _NAMES.get(type(value), "nothing")


def _place(where: str, key: bytes) -> str:
    text = key[:40].decode("ascii", "backslashreplace")
    return f"{where}.{text}" if text.isidentifier() else f"{where}[{text!r}]"


def _get(table: _Table, key: bytes, kind: type[_Kind], where: str) -> _Kind:
    value = table.get(key)
    if not isinstance(value, kind):
        problem = "missing, expected" if value is None else f"got {_kind(value)}, expected"
        raise ManifestError(_place(where, key), f"{problem} {_NAMES[kind]}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, bytes):
        raise ManifestError(where, f"expected a string, got {_kind(value)}")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ManifestError(where, "expected UTF-8") from error


# --------------------------------------------------------------------------- info


def _contents(info: _Table, document: _Table, where: str) -> Contents:
    place = _place(where, b"info")
    variant = _text(_get(info, b"name", bytes, place), _place(place, b"name"))
    piece_bytes = _piece_bytes(info, place)
    _require_v2(info, piece_bytes, place)
    paths, sizes, roots = _files(_get(info, b"file tree", dict, place), place)
    pieces = _get(info, b"pieces", bytes, place) if b"pieces" in info else None
    _require_pieces(pieces, sizes, piece_bytes, place)
    layers = _layers(document, sizes, roots, piece_bytes, where)
    hashes = PieceColumns(
        piece_bytes=piece_bytes,
        hybrid=pieces is not None,
        sizes=sizes,
        roots=hash_rows(b"".join(roots), V2_BYTES),
        pieces=hash_rows(pieces or b"", V1_BYTES),
        tails=hash_rows(b"", V1_BYTES),
        layers=hash_rows(layers, V2_BYTES),
    )
    try:
        texts = _entry_paths(paths, _place(place, b"file tree"))
    except ManifestError:
        # What is wrong with it is said first.
        if hashes.hybrid:
            files = sorted(zip(paths, sizes.tolist(), strict=True))
            _require_same_files(info, files, piece_bytes, place)
        raise
    return Contents(
        variant=check_variant(variant, _place(place, b"name")),
        paths=texts,
        hashes=hashes,
        private=b"private" in info,
    )


def _piece_bytes(info: _Table, place: str) -> int:
    try:
        return check_piece_bytes(_get(info, b"piece length", int, place))
    except ConfigError as error:
        problem = f"{error.message}, only a power of two from 16 KiB to 32 MiB"
        raise ManifestError(_place(place, b"piece length"), problem) from error


def _require_v2(info: _Table, piece_bytes: int, place: str) -> None:
    """ManifestError unless it is of v2; what is wrong with one of v1 is said first."""
    version = info.get(b"meta version")
    if version == META_VERSION:
        return
    if version is None:
        _check_v1(info, piece_bytes, place)
    problem = "a torrent of v1 only" if version is None else f"of version {version!r:.40}"
    raise ManifestError(_place(place, b"meta version"), f"{problem}, and ours have v2 hashes")


def _check_v1(info: _Table, piece_bytes: int, place: str) -> None:
    """What BEP 3 asks of sizes, names and pieces of a torrent that is refused in any case."""
    size_bytes = 0
    names: set[_Path] = set()
    for path, file, at in _v1_files(info, place):
        # A symbolic link (BEP 47) has no size.
        size_bytes += 0 if b"symlink path" in file else _size(file, at)
        if path in names:
            raise ManifestError(_place(at, b"path"), "an earlier file has the same")
        names.add(path)
    if not size_bytes:
        raise ManifestError(place, "no file with a byte in it")
    pieces = _get(info, b"pieces", bytes, place)
    count = -(-size_bytes // piece_bytes)
    if len(pieces) != count * V1_BYTES:
        problem = f"{len(pieces)} bytes, expected {V1_BYTES} for each of {count} pieces"
        raise ManifestError(_place(place, b"pieces"), problem)


def _v1_files(info: _Table, place: str) -> Iterator[tuple[_Path, _Table, str]]:
    """Each file of the list of v1: its path, its dictionary, and the place of that."""
    if b"files" not in info:
        yield (_get(info, b"name", bytes, place),), info, place
        return
    files = _get(info, b"files", list, place)
    if not files:
        raise ManifestError(_place(place, b"files"), "no file in it")
    for number, file in enumerate(files):
        at = f"{_place(place, b'files')}[{number}]"
        if not isinstance(file, dict):
            raise ManifestError(at, f"expected a dictionary, got {_kind(file)}")
        path = _get(file, b"path", list, at)
        if not path or not all(isinstance(part, bytes) for part in path):
            raise ManifestError(_place(at, b"path"), "expected names, at least one")
        yield tuple(path), file, at


def _require_same_files(
    info: _Table, files: list[tuple[_Path, int]], piece_bytes: int, place: str
) -> None:
    """ManifestError unless the list of v1 has these files (path and size, sorted), and pads."""
    listed, offset = list[tuple[_Path, int]](), 0
    for path, file, at in _v1_files(info, place):
        size = _size(file, at)
        if file.get(b"attr") != b"p":
            listed.append((path, size))
            if size and offset % piece_bytes:
                raise ManifestError(at, "does not begin with a piece")
        offset += size
    if sorted(listed) != files:
        raise ManifestError(_place(place, b"files"), "not the files that the file tree has")


def _size(file: _Table, place: str) -> int:
    size = _get(file, b"length", int, place)
    if not 0 <= size <= MAX_FILE_BYTES:
        problem = f"expected 0 to {MAX_FILE_BYTES}, got {size}"
        raise ManifestError(_place(place, b"length"), problem)
    return size


def _files(tree: _Table, place: str) -> tuple[list[_Path], U64, list[bytes]]:
    """Path, size and root of each file of a tree of any shape."""
    place = _place(place, b"file tree")
    paths: list[_Path] = []
    sizes: list[int] = []
    roots: list[bytes] = []
    for path, file, at in _leaves(tree, (), place):
        if len(paths) == MAX_FILES:
            raise ManifestError(place, f"more than {MAX_FILES} files")
        size = _size(file, at)
        if extra := file.keys() - {b"length", b"pieces root"}:
            raise ManifestError(_place(at, min(extra)), "a file of ours has no such key")
        paths.append(path)
        sizes.append(size)
        roots.append(_root(file, at) if size else bytes(V2_BYTES))
    if not any(sizes):
        raise ManifestError(place, "no file with a byte in it")
    return paths, np.array(sizes, np.uint64), roots


def _leaves(tree: _Table, path: _Path, place: str) -> Iterator[tuple[_Path, _Table, str]]:
    """Each file below a folder: its path, its dictionary, and the place of that."""
    for name in tree:
        at = _place(place, name)
        node = _get(tree, name, dict, place)
        if not name:
            raise ManifestError(place, "a folder with the properties of a file")
        if node.keys() == {b""}:
            yield (*path, name), _get(node, b"", dict, at), at
        elif node:
            yield from _leaves(node, (*path, name), at)
        else:
            raise ManifestError(at, "an empty folder")


def _entry_paths(paths: list[_Path], place: str) -> tuple[str, ...]:
    """The paths as text, if each is BUCKET, ID.EXT and all names of buckets are equally long."""
    texts = []
    digits = len(paths[0][0])
    for path in paths:
        bucket, name = path if len(path) == _PATH_PARTS else (b"", b"")
        text = name.decode("latin-1")
        in_bucket = bucket.isdigit() and len(bucket) == digits <= _MAX_BUCKET_DIGITS
        if not in_bucket or parse_entry_name(text) is None:
            at = _place(place, b"/".join(path))
            raise ManifestError(at, "of another layout: paths of ours are BUCKET, ID.EXT")
        texts.append(f"{bucket.decode()}/{text}")
    return tuple(texts)


def _root(file: _Table, place: str) -> bytes:
    root = _get(file, b"pieces root", bytes, place)
    if len(root) != V2_BYTES or not any(root):
        raise ManifestError(_place(place, b"pieces root"), "not a root hash of 32 bytes")
    return root


def _require_pieces(pieces: bytes | None, sizes: U64, piece_bytes: int, place: str) -> None:
    if pieces is None:
        return
    expected = int(piece_counts(sizes, piece_bytes).sum()) * V1_BYTES
    if len(pieces) != expected:
        problem = f"expected {expected} bytes for these sizes, got {len(pieces)}"
        raise ManifestError(_place(place, b"pieces"), problem)


# --------------------------------------------------------------------------- piece layers


def _layers(
    document: _Table, sizes: U64, roots: list[bytes], piece_bytes: int, where: str
) -> bytes:
    """The layers of all files, one after another, each checked against its root.

    Files of the same contents share a layer, so the sum is checked before it is made.
    """
    place = _place(where, b"piece layers")
    table = _get(document, b"piece layers", dict, where)
    counts = layer_counts(sizes, piece_bytes)
    if int(counts.sum()) * V2_BYTES > MAX_METAINFO_BYTES:
        raise ManifestError(place, f"{counts.sum()} hashes, more than a torrent can have")
    checked: dict[bytes, bytes] = {}
    layers = []
    for root, count in zip(roots, counts.tolist(), strict=True):
        if not count:
            continue
        if root not in checked:
            checked[root] = _layer(table, root, piece_bytes, place)
        if len(checked[root]) != count * V2_BYTES:
            problem = f"expected {count * V2_BYTES} bytes, got {len(checked[root])}"
            raise ManifestError(f"{place}[{root.hex()}]", problem)
        layers.append(checked[root])
    if unknown := table.keys() - checked.keys():
        raise ManifestError(f"{place}[{min(unknown).hex()[:80]}]", "no file has this root")
    return b"".join(layers)


def _layer(table: _Table, root: bytes, piece_bytes: int, place: str) -> bytes:
    place = f"{place}[{root.hex()}]"
    layer = table.get(root)
    if not isinstance(layer, bytes):
        raise ManifestError(place, "missing, and its file is larger than a piece")
    if not layer or len(layer) % V2_BYTES:
        raise ManifestError(place, f"{len(layer)} bytes are no row of hashes")
    if root_of_layer(layer, piece_bytes) != root:
        raise ManifestError(place, "its hashes do not give the root of the file")
    return layer


# --------------------------------------------------------------------------- differences


def _difference(expected: Value, got: Value, place: str) -> ManifestError | None:
    """The first place where a value is not what it must be, as an error."""
    if expected == got:
        return None
    if isinstance(expected, dict) and isinstance(got, dict):
        return _dictionary_difference(expected, got, place)
    if isinstance(expected, list) and isinstance(got, list):
        for index, (left, right) in enumerate(zip(expected, got, strict=False)):
            if found := _difference(left, right, f"{place}[{index}]"):
                return found
        problem = f"expected {len(expected)} items, got {len(got)}"
        return ManifestError(place, problem)
    return ManifestError(place, f"expected {_shown(expected)}, got {_shown(got)}")


def _dictionary_difference(expected: _Table, got: _Table, place: str) -> ManifestError | None:
    for key, value in expected.items():
        if key not in got:
            return ManifestError(_place(place, key), f"missing, expected {_shown(value)}")
        if found := _difference(value, got[key], _place(place, key)):
            return found
    extra = min(got.keys() - expected.keys())
    return ManifestError(_place(place, extra), "no torrent of ours has this key")


def _shown(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    return repr(value[:40]) if isinstance(value, bytes) else _kind(value)


# --------------------------------------------------------------------------- outer


def _outer(document: _Table, where: str) -> Outer:
    comment = created_s = None
    if b"comment" in document:
        comment = _text(document[b"comment"], _place(where, b"comment"))
    if b"creation date" in document:
        created_s = _get(document, b"creation date", int, where)
    return Outer(
        trackers=_trackers(document, where),
        web_seeds=_urls(document.get(b"url-list", []), _place(where, b"url-list")),
        comment=comment or "",
        created_s=created_s,
    )


def _trackers(document: _Table, where: str) -> tuple[tuple[str, ...], ...]:
    place = _place(where, b"announce-list")
    if b"announce-list" in document:
        tiers = _get(document, b"announce-list", list, where)[:_MAX_URLS]
        return tuple(_urls(tier, f"{place}[{row}]") for row, tier in enumerate(tiers))
    if b"announce" in document:
        return (_urls([document[b"announce"]], _place(where, b"announce")),)
    return ()


def _urls(value: object, place: str) -> tuple[str, ...]:
    """Texts of a list; a single text stands for a list of one."""
    items = [value] if isinstance(value, bytes) else value
    if not isinstance(items, list):
        raise ManifestError(place, f"expected a list, got {_kind(value)}")
    if len(items) > _MAX_URLS:
        raise ManifestError(place, f"more than {_MAX_URLS} URLs")
    return tuple(_text(item, f"{place}[{row}]") for row, item in enumerate(items))
