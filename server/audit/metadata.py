"""Finding, opening and reading files of metadata, as a stream and in bounded memory.

A path may be a file, which is read whatever its name, or a folder, of which only the files that
hold posts are read (tags, aliases, notes, artists and pools lie beside them).  What is inside is
found by its first bytes, not its name: plain lines of JSON, gzip, xz or zstd of them, or a tar of
any of these.

A line that is no post never ends the run: it comes out as a :class:`BadRow` that says where and
why.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import zstandard

from manifests.errors import ConfigError
from manifests.rows import PostRow, RowError, RowFault, parse_row
from server.walk import printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# The longest rows list some thousands of favourites: 0.1 MB.  Longer than this is no row.
MAX_LINE_BYTES = 16 * 2**20
_ZSTD_WINDOW_BYTES = 2**27
# A frame can grow 43,000-fold: what one read may become is held in memory.
_ZSTD_READ_BYTES = 4 * 2**10
_UNPACKED_BYTES = 256 * 2**10
# tar.gz of .json.gz is the deepest that makes sense; a file can also be made to contain itself.
_MAX_DEPTH = 4
_UTF8_MARK = b"\xef\xbb\xbf"
_TAR_MAGIC_OFFSET = 257
_PEEK_BYTES = 512
_PACKED = r"(?:\.(?:gz|xz|zst))?"
# posts.json, posts000000000011.json, 201705.json, 2017000000000000 and packed forms of them.
_POSTS_NAME = re.compile(rf"(?:posts[-_]?\d*\.jsonl?|(?:19|20)\d{{2}}\d*(?:\.jsonl?)?){_PACKED}")
_TAR_NAME = re.compile(r"(?:metadata|posts|20\d{2}).*\.(?:tar(?:\.(?:gz|xz|zst))?|t[gx]z)")
_BROKEN_ARCHIVE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zstandard.ZstdError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A line of metadata that gave no post; ``line`` is counted from 1, 0 is the file itself."""

    file: str
    line: int
    fault: RowFault
    problem: str


def find_metadata(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The files of posts that ``paths`` (files and folders) mean, in the order they are read.

    Folders are sorted by path, so a file of 2021 comes after those of ``2021-old``: where both
    tell of a post, the later wins.  Raises ConfigError for a path that does not exist or a folder
    without posts.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found.update(dict.fromkeys(_posts_below(path)))
        elif path.is_file():
            found[path] = None
        else:
            raise ConfigError(f"{path}: no such file or folder of metadata")
    return tuple(found)


def _posts_below(folder: Path) -> list[Path]:
    files = [
        Path(parent) / name
        for parent, _, names in os.walk(folder)
        for name in names
        if _POSTS_NAME.fullmatch(name) or _TAR_NAME.fullmatch(name)
    ]
    if not files:
        raise ConfigError(
            f"{folder}: no file of posts in this folder",
            hint="Expected posts*.json, YEAR*.json, packed forms or a tar of them.",
        )
    return sorted(file for file in files if file.is_file())


def iter_rows(paths: Sequence[Path]) -> Iterator[PostRow | BadRow]:
    """Every line of the files of posts below ``paths``, as a post or as the reason why not.

    Needs the memory of one line, however long the files are.  Raises ConfigError as
    :func:`find_metadata` does; a file that cannot be read (any further) is a bad row too.
    """
    for path in find_metadata(paths):
        yield from read_rows(path)


def read_rows(path: Path) -> Iterator[PostRow | BadRow]:
    """Every line of one file of posts (see :func:`iter_rows`)."""
    try:
        with path.open("rb") as raw:
            yield from _rows(raw, printable(str(path)))
    except _BROKEN_ARCHIVE as error:
        problem = f"cannot be read any further: {error}"
        yield BadRow(file=printable(str(path)), line=0, fault=RowFault.FILE, problem=problem)


def _rows(stream: io.BufferedReader, name: str, depth: int = 0) -> Iterator[PostRow | BadRow]:
    """Unpack until there are lines; a tar holds files of the same sorts."""
    head = stream.peek(_PEEK_BYTES)
    unpack = next((unpack for magic, unpack in _PACKINGS if head.startswith(magic)), None)
    if unpack is not None and depth < _MAX_DEPTH:
        yield from _rows(io.BufferedReader(unpack(stream), _UNPACKED_BYTES), name, depth + 1)
    elif head[_TAR_MAGIC_OFFSET:].startswith(b"ustar") and depth < _MAX_DEPTH:
        yield from _tar_rows(stream, name, depth + 1)
    else:
        yield from _line_rows(stream, name)


def _tar_rows(stream: io.BufferedReader, name: str, depth: int) -> Iterator[PostRow | BadRow]:
    found = False
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        while (member := archive.next()) is not None:
            # The archive remembers every member it saw: a list that would grow for ever.
            archive.members.clear()  # type: ignore[attr-defined]
            inner = archive.extractfile(member) if member.isfile() else None
            if inner is not None and _POSTS_NAME.fullmatch(Path(member.name).name):
                found = True
                yield from _rows(
                    io.BufferedReader(cast("io.RawIOBase", inner)),
                    printable(f"{name}:{member.name}"),
                    depth,
                )
    if not found:
        problem = "no file of posts in this archive"
        yield BadRow(file=name, line=0, fault=RowFault.FILE, problem=problem)


def _line_rows(stream: io.BufferedReader, name: str) -> Iterator[PostRow | BadRow]:
    for number, line in enumerate(_lines(stream), 1):
        try:
            if line is None:
                problem = f"longer than {MAX_LINE_BYTES:,} bytes"
                yield BadRow(file=name, line=number, fault=RowFault.TOO_LONG, problem=problem)
            elif line and not line.isspace():
                yield parse_row(line)
        except RowError as error:
            yield BadRow(file=name, line=number, fault=error.fault, problem=str(error))


def _lines(stream: io.BufferedReader) -> Iterator[bytes | None]:
    """Lines with their ends; None for one that is too long to hold."""
    mark = _UTF8_MARK
    while line := stream.readline(MAX_LINE_BYTES + 1):
        whole = len(line) <= MAX_LINE_BYTES
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1)
        yield line.removeprefix(mark) if whole else None
        mark = b""


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
