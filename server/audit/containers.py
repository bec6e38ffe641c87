"""Walkers of ZIP, MP4, AVIF, WebM and SWF; :mod:`server.audit.media` has their rules."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from server.audit.media import Frame, Media, Problem

# --------------------------------------------------------------------------- ZIP (APPNOTE 4.3)

_ZIP_END = struct.Struct("<4sHHHHIIH")
_ZIP_COMMENT_BYTES = 65535
_ZIP_LOCATOR_BYTES = 20
_ZIP_SEE_64 = 0xFFFFFFFF


def walk_zip(media: Media) -> Frame:
    """The end record, and the list of files before it, where it says."""
    furthest = max(0, media.size_bytes - _ZIP_END.size - _ZIP_COMMENT_BYTES)
    end = media.rfind(b"PK\x05\x06", furthest)
    record = media.at(end, _ZIP_END.size) if end >= 0 else b""
    if len(record) < _ZIP_END.size:
        return Frame(problem=Problem.NO_END)
    _, _, _, _, count, size, start, _ = _ZIP_END.unpack(record)
    if _ZIP_SEE_64 in (size, start):
        whole = media.at(max(0, end - _ZIP_LOCATOR_BYTES), 4) == b"PK\x06\x07"
    else:
        whole = start + size <= end and (not count or media.at(start, 4) == b"PK\x01\x02")
    return Frame(problem=Problem.NONE if whole else Problem.NO_DIRECTORY)


# ----------------------------------------------------------------- MP4 and AVIF (ISO 14496-12)

_BOX_BYTES = 8
_LONG_BOX_BYTES = 16
_AVIF_HEAD_BYTES = 16 * 2**10
_EXTENT_BYTES = 16


class _CutBoxError(Exception):
    """A box reaches past the end of what holds it."""


def _boxes(media: Media, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the content of each box; a last few stray bytes are passed over."""
    while start + _BOX_BYTES <= end:
        header = media.at(start, _LONG_BOX_BYTES)
        length, name, frame = _big(header[:4]), header[4:8], _BOX_BYTES
        if length == 1:
            length, frame = _big(header[8:]), _LONG_BOX_BYTES
        elif length == 0:
            length = end - start
        if not frame <= length <= end - start:
            raise _CutBoxError
        yield name, start + frame, start + length
        start += length


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _larger(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    return max(one, other, key=lambda pixels: pixels[0] * pixels[1])


def walk_mp4(media: Media) -> Frame:
    """Every top box inside the file, an index (moov) and something it can point to."""
    found: dict[bytes, tuple[int, int]] = {}
    pixels = (0, 0)
    try:
        for name, start, end in _boxes(media, 0, media.size_bytes):
            found.setdefault(name, (start, end))
        if b"moov" in found:
            pixels = _track_pixels(media, *found[b"moov"])
    except _CutBoxError:
        return Frame(*pixels, Problem.PAST_END)
    if b"moov" not in found:
        return Frame(*pixels, Problem.NO_INDEX)
    pictured = b"mdat" in found or b"moof" in found
    return Frame(*pixels, Problem.NONE if pictured else Problem.NO_PICTURE)


def _track_pixels(media: Media, start: int, end: int) -> tuple[int, int]:
    """Width and height of the largest track; its header ends with both, in 16.16 fixed point."""
    largest = (0, 0)
    for name, track, track_end in _boxes(media, start, end):
        if name != b"trak":
            continue
        for inner, _, inner_end in _boxes(media, track, track_end):
            if inner == b"tkhd":
                pixels = media.at(inner_end - 8, 8)
                largest = _larger(largest, (_big(pixels[:4]) >> 16, _big(pixels[4:]) >> 16))
    return largest


def walk_avif(media: Media) -> Frame:
    """Every top box inside the file; the largest stated extent (ispe)."""
    head = media.at(0, _AVIF_HEAD_BYTES)
    pixels, place = (0, 0), head.find(b"ispe")
    while 0 <= place <= len(head) - _EXTENT_BYTES:
        pixels = _larger(
            pixels, (_big(head[place + 8 : place + 12]), _big(head[place + 12 :][:4]))
        )
        place = head.find(b"ispe", place + 4)
    try:
        names = {name for name, _, _ in _boxes(media, 0, media.size_bytes)}
    except _CutBoxError:
        return Frame(*pixels, Problem.PAST_END)
    pictured = b"meta" in names and (b"mdat" in names or b"idat" in head)
    return Frame(*pixels, Problem.NONE if pictured else Problem.NO_PICTURE)


# --------------------------------------------------------------------------- WebM (RFC 8794, 9559)

_SEGMENT = b"\x18\x53\x80\x67"


def walk_webm(media: Media) -> Frame:
    """The one segment, inside the file if it states its length."""
    size, length = _variable(media.at(4, 8))
    start = 4 + length + max(size, 0)
    header = media.at(start, 12)
    if not length or len(header) <= len(_SEGMENT):
        return Frame(problem=Problem.CUT_HEADER)
    if not header.startswith(_SEGMENT):
        return Frame(problem=Problem.BROKEN)
    size, length = _variable(header[4:])
    cut = start + len(_SEGMENT) + length + max(size, 0) > media.size_bytes
    return Frame(problem=Problem.PAST_END if cut else Problem.NONE)


def _variable(data: bytes) -> tuple[int, int]:
    """A size and how many bytes state it; -1 for a size that is not known, (-1, 0) for none."""
    if not data or not data[0]:
        return -1, 0
    length = 9 - data[0].bit_length()
    unknown = (1 << 7 * length) - 1
    size = _big(data[:length]) & unknown
    return (-1 if size == unknown else size), length


# --------------------------------------------------------------------------- SWF


def walk_swf(media: Media) -> Frame:
    """The length that an uncompressed film states (signature, version, length)."""
    header = media.at(0, 8)
    if len(header) < 8:  # noqa: PLR2004 (as asked for)
        return Frame(problem=Problem.CUT_HEADER)
    cut = header[:1] == b"F" and int.from_bytes(header[4:], "little") > media.size_bytes
    return Frame(problem=Problem.PAST_END if cut else Problem.NONE)
