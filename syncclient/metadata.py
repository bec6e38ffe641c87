"""Finding, opening and reading files of metadata, as a stream and in bounded memory.

A path may be a file, which is read whatever its name, or a folder, of which the files of posts and
of the tables beside them are read (not notes, artists and so on).  What a file is about is told by
its name; how it is packed, by its first bytes: plain lines of JSON, gzip, xz or zstd of them, or a
tar of any of these.

Out come blocks of whole lines, for the readers in ``manifests.metadata``, which may run elsewhere.
A file that is cut off, damaged or no text never ends the run: its last block says so.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, cast

import zstandard
from msgspec import Struct

from manifests.errors import ConfigError
from manifests.metadata.faults import BadRow, RowFault
from manifests.metadata.lines import MAX_LINE_BYTES
from syncclient.tree import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A thousand posts or so: enough to decode by the column, little enough for any cache and worker.
BLOCK_BYTES = 2 * 2**20
_ZSTD_WINDOW_BYTES = 2**27
# A frame can grow 43,000-fold: what one read may become is held in memory.
_ZSTD_READ_BYTES = 4 * 2**10
_UNPACKED_BYTES = 256 * 2**10
# tar.gz of .json.gz is the deepest that makes sense; a file can also be made to contain itself.
_MAX_DEPTH = 4
_UTF8_MARK = b"\xef\xbb\xbf"
_TAR_MAGIC_OFFSET = 257
_PEEK_BYTES = 512
# Neither text nor what stands in JSON between values.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x80-\xff]")
_PACKED = r"(?:\.(?:gz|xz|zst))?"
# posts.json, tags000000000011.json, pools_of_2021.json and packed forms of them.
_TABLE_NAME = re.compile(
    rf"(posts|tags|tag_aliases|tag_implications|pools)(?:[-_.\d].*)?\.jsonl?{_PACKED}"
)
# Posts of the years before 2021: 201705.json, 2017000000000000.
_YEAR_NAME = re.compile(rf"(?:19|20)\d{{2}}\d*(?:\.jsonl?)?{_PACKED}")
_TAR_NAME = re.compile(
    r"(?:metadata|posts|tags|tag_aliases|tag_implications|pools|20\d{2}).*"
    r"\.(?:tar(?:\.(?:gz|xz|zst))?|t[gx]z)"
)
_BROKEN_ARCHIVE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zstandard.ZstdError,
)


class Kind(StrEnum):
    """What the rows of a file are about."""

    POSTS = "posts"
    TAGS = "tags"
    TAG_ALIASES = "tag_aliases"
    TAG_IMPLICATIONS = "tag_implications"
    POOLS = "pools"


ALL_KINDS = frozenset(Kind)


class Block(Struct, frozen=True, kw_only=True):
    """Some whole lines of a file, ``data``, the first of them line ``first_line`` (from 1).

    ``file`` is for people, ``archive:member`` for a file in a tar.  ``faults`` are about the file,
    not its lines; ``data`` may then be empty.  Apart from a line that is longer than
    MAX_LINE_BYTES, and so no row, every byte of a line is there.
    """

    kind: Kind
    file: str
    first_line: int
    data: bytes
    faults: tuple[BadRow, ...] = ()


# --------------------------------------------------------------------------- finding


def kind_of(name: str) -> Kind | None:
    """What a file of this name holds; None for one that is not of a kind we read."""
    if (table := _TABLE_NAME.fullmatch(name)) is not None:
        return Kind(table[1])
    return None if _YEAR_NAME.fullmatch(name) is None else Kind.POSTS


def find_metadata(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files that ``paths`` (files and folders) mean, in the order they are read.

    Folders are sorted by path, so a file of 2021 comes after those of ``2021-old``: where both
    tell of a post, the later wins.  Raises ConfigError for a path that does not exist or a folder
    without posts.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_files_below(path)))
        elif path.exists():
            found[path] = None
        else:
            raise ConfigError(f"{path}: no such file or folder of metadata")
    return tuple(found)


def unnamed_metadata(tree: Path, apart: Collection[str]) -> Path | None:
    """A file of posts, by its name, at the top of ``tree`` or in a folder there not ``apart``.

    For who was given no metadata: it may have been meant, and lie where nobody looks.
    """
    tops = sorted(path for path in tree.iterdir() if path.name not in apart)
    beside = (file for path in tops if path.is_dir() for file in sorted(path.iterdir()))
    return next((path for path in (*tops, *beside) if _holds_posts(path)), None)


def _holds_posts(path: Path) -> bool:
    named = kind_of(path.name) is Kind.POSTS or _TAR_NAME.fullmatch(path.name) is not None
    return named and path.is_file()


def _files_below(folder: Path) -> list[Path]:
    below = [Path(parent) / name for parent, _, names in os.walk(folder) for name in names]
    archives = {file for file in below if _TAR_NAME.fullmatch(file.name)}
    kinds = {file: kind for file in below if (kind := kind_of(file.name)) is not None}
    if not archives and Kind.POSTS not in kinds.values():
        raise ConfigError(
            f"{folder}: no file of posts in this folder",
            hint="Expected posts*.json, YEAR*.json, packed forms or a tar of them.",
        )
    return sorted(file for file in archives | kinds.keys() if file.is_file())


# --------------------------------------------------------------------------- reading


def read_blocks(paths: Iterable[Path], kinds: Collection[Kind] = ALL_KINDS) -> Iterator[Block]:
    """All lines of some kinds that ``paths`` hold, as :func:`find_metadata` orders the files.

    Needs the memory of one block and of the longest line, however long the files are.  Raises
    ConfigError as :func:`find_metadata` does, and nothing for what is in the files.
    """
    for path in find_metadata(paths):
        kind = kind_of(path.name) or Kind.POSTS
        if kind in kinds:
            yield from _read_file(path, kind, kinds)


def _read_file(path: Path, kind: Kind, kinds: Collection[Kind]) -> Iterator[Block]:
    name = printable(str(path))
    try:
        with path.open("rb") as raw:
            yield from _unpacked(raw, name, kind, kinds)
    except _BROKEN_ARCHIVE as error:
        yield _broken(kind, name, f"cannot be read any further: {error}")


def _broken(kind: Kind, file: str, problem: str) -> Block:
    fault = BadRow(file=file, line=0, fault=RowFault.FILE, problem=problem)
    return Block(kind=kind, file=file, first_line=1, data=b"", faults=(fault,))


def _unpacked(
    stream: io.BufferedReader, name: str, kind: Kind, kinds: Collection[Kind], depth: int = 0
) -> Iterator[Block]:
    """Unpack until there are lines; a tar holds files of the same sorts."""
    head = stream.peek(_PEEK_BYTES)[:_PEEK_BYTES]
    unpack = next((unpack for magic, unpack in _PACKINGS if head.startswith(magic)), None)
    if unpack is not None and depth < _MAX_DEPTH:
        inner: io.BufferedReader = io.BufferedReader(unpack(stream), _UNPACKED_BYTES)
        yield from _unpacked(inner, name, kind, kinds, depth + 1)
    elif head[_TAR_MAGIC_OFFSET:].startswith(b"ustar") and depth < _MAX_DEPTH:
        yield from _members(stream, name, kind, kinds, depth + 1)
    elif not _is_text(head):
        yield _broken(kind, name, "neither lines of JSON nor packed in a way that is known")
    else:
        yield from _whole_lines(stream, name, kind)


def _is_text(head: bytes) -> bool:
    """Whether this may be the beginning of lines of JSON, though perhaps of bad ones."""
    start = head.removeprefix(_UTF8_MARK).lstrip()
    return start.startswith(b"{") or _BINARY.search(start) is None


def _members(
    stream: io.BufferedReader, name: str, kind: Kind, kinds: Collection[Kind], depth: int
) -> Iterator[Block]:
    found = False
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        while (member := archive.next()) is not None:
            # The archive remembers every member it saw: a list that would grow for ever.
            archive.members.clear()  # type: ignore[attr-defined]
            own = kind_of(Path(member.name).name) if member.isfile() else None
            found = found or own is not None
            inner = archive.extractfile(member) if own in kinds else None
            if own is not None and inner is not None:
                reader: io.BufferedReader = io.BufferedReader(cast("io.RawIOBase", inner))
                where = printable(f"{name}:{member.name}")
                yield from _unpacked(reader, where, own, kinds, depth)
    if not found:
        yield _broken(kind, name, "no file of posts or tags in this archive")


def _whole_lines(stream: io.BufferedReader, name: str, kind: Kind) -> Iterator[Block]:
    """Blocks of lines; what came before an error is handed out first."""
    held, line, error = bytearray(), 1, None
    while True:
        try:
            part = stream.read1(_UNPACKED_BYTES)
        except _BROKEN_ARCHIVE as broken:
            part, error = b"", broken
            # Half a line.
            del held[held.rfind(b"\n") + 1 :]
        held += part
        if line == 1 and held.startswith(_UTF8_MARK):
            del held[: len(_UTF8_MARK)]
        end = held.rfind(b"\n") + 1 if part else len(held)
        if end and (len(held) >= BLOCK_BYTES or not part):
            yield Block(kind=kind, file=name, first_line=line, data=bytes(held[:end]))
            line += held.count(b"\n", 0, end)
            del held[:end]
        elif not end:
            # Enough to see that it is too long.
            del held[MAX_LINE_BYTES + 1 :]
        if error is not None:
            raise error
        if not part:
            return


# --------------------------------------------------------------------------- unpacking


class _ZstdStream(io.RawIOBase):
    """Zstd frames, one after another; EOFError where the last is cut off.

    The library's own reader ends silently in the middle of a frame, as if that were all.
    """

    def __init__(self, source: io.BufferedReader) -> None:
        self._source = source
        self._frame = _zstd_frame()
        self._packed = source.read(_ZSTD_READ_BYTES)
        self._held = b""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        while not self._held:
            if not self._packed:
                if not self._frame.eof:
                    raise EOFError("the last zstd frame is cut off")
                return 0
            if self._frame.eof:
                self._frame = _zstd_frame()
            self._held = self._frame.decompress(self._packed)
            self._packed = self._frame.unused_data or self._source.read(_ZSTD_READ_BYTES)
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._held))
        view[:count] = self._held[:count]
        self._held = self._held[count:]
        return count


def _zstd_frame() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()


_PACKINGS: tuple[tuple[bytes, Callable[[io.BufferedReader], io.RawIOBase]], ...] = (
    (b"\x1f\x8b", lambda stream: cast("io.RawIOBase", gzip.GzipFile(fileobj=stream, mode="rb"))),
    (b"\xfd7zXZ\x00", lambda stream: cast("io.RawIOBase", lzma.LZMAFile(stream))),  # noqa: SIM115
    (b"\x28\xb5\x2f\xfd", _ZstdStream),
)
