"""Walkers of JPEG, PNG, GIF, WebP, BMP and SVG; :mod:`server.audit.media` has their rules."""

from __future__ import annotations

import re
import struct
import zlib

from server.audit.media import Frame, Media, Problem

# --------------------------------------------------------------------------- JPEG (ITU T.81)

_JPEG_SEGMENT = struct.Struct(">BBHBHH")
_MARKER = 0xFF
_END_OF_IMAGE = 0xD9
_START_OF_SCAN = 0xDA
# Start of frame: C0 to CF less DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
_MAX_SEGMENTS = 10_000


def walk_jpeg(media: Media) -> Frame:
    """Segments up to the first scan, then the end marker somewhere behind it."""
    offset, width, height = 2, 0, 0
    for _ in range(_MAX_SEGMENTS):
        header = media.at(offset, _JPEG_SEGMENT.size)
        if len(header) < _JPEG_SEGMENT.size:
            return Frame(width, height, Problem.CUT_HEADER)
        fill, marker, length, _depth, rows, columns = _JPEG_SEGMENT.unpack(header)
        if fill != _MARKER or marker == 0:
            return Frame(width, height, Problem.BROKEN)
        if marker == _START_OF_SCAN:
            whole = media.rfind(b"\xff\xd9", offset) >= 0
            return Frame(width, height, Problem.NONE if whole else Problem.NO_END)
        if marker == _END_OF_IMAGE:
            return Frame(width, height, Problem.NO_PICTURE)
        if marker in _START_OF_FRAME:
            width, height = columns, rows
        offset += _jpeg_step(marker, length)
    return Frame(width, height, Problem.BROKEN)


def _jpeg_step(marker: int, length: int) -> int:
    """Bytes to the next marker: one for a fill byte, two for a marker without a length."""
    if marker == _MARKER:
        return 1
    return 2 if marker in _STANDALONE else 2 + max(length, 2)


# --------------------------------------------------------------------------- PNG, by W3C

_PNG_HEADER = struct.Struct(">I4sII5sI")
_PNG_CHUNK = struct.Struct(">I4s")
_SIGNATURE_BYTES = 8
# Length, name and CRC around the data of a chunk.
_CHUNK_FRAME_BYTES = 12
_IHDR_BYTES = 13


def walk_png(media: Media) -> Frame:
    """Chunks from IHDR (whose CRC is checked) to IEND, each inside the file."""
    header = media.at(_SIGNATURE_BYTES, _PNG_HEADER.size)
    if len(header) < _PNG_HEADER.size:
        return Frame(problem=Problem.CUT_HEADER)
    length, name, width, height, _, checksum = _PNG_HEADER.unpack(header)
    if length != _IHDR_BYTES or name != b"IHDR":
        return Frame(problem=Problem.BROKEN)
    if zlib.crc32(header[4:-4]) != checksum:
        return Frame(problem=Problem.CHECKSUM)
    return Frame(width, height, _png_problem(media))


def _png_problem(media: Media) -> Problem:
    """Follow the chunks behind IHDR."""
    offset, pictured = _SIGNATURE_BYTES + _PNG_HEADER.size, False
    while len(header := media.at(offset, _PNG_CHUNK.size)) == _PNG_CHUNK.size:
        length, name = _PNG_CHUNK.unpack(header)
        offset += _CHUNK_FRAME_BYTES + length
        if offset > media.size_bytes:
            return Problem.PAST_END
        if name == b"IEND":
            return Problem.NONE if pictured else Problem.NO_PICTURE
        if not name.isalpha():
            return Problem.BROKEN
        pictured = pictured or name == b"IDAT"
    return Problem.NO_END


# --------------------------------------------------------------------------- GIF (89a)

_GIF_SCREEN = struct.Struct("<HHBBB")
_GIF_START_BYTES = 13
_GIF_PICTURE_BYTES = 10
_FULL_BLOCK = 0xFF
# Sub-blocks are read in pieces of this size, a multiple of a full block (256 bytes).
_BLOCKS_BYTES = 16 * 2**10


def walk_gif(media: Media) -> Frame:
    """Blocks and pictures up to the trailer."""
    screen = media.at(6, _GIF_SCREEN.size)
    if len(screen) < _GIF_SCREEN.size:
        return Frame(problem=Problem.CUT_HEADER)
    width, height, flags, _, _ = _GIF_SCREEN.unpack(screen)
    return Frame(width, height, _gif_problem(media, _GIF_START_BYTES + _colour_table(flags)))


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that follows a descriptor with these flags."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_problem(media: Media, offset: int) -> Problem:
    pictured = False
    while block := media.at(offset, _GIF_PICTURE_BYTES):
        sort = block[:1]
        if sort == b";":
            return Problem.NONE if pictured else Problem.NO_PICTURE
        if sort == b"!":  # Its label, then sub-blocks.
            offset = _skip_sub_blocks(media, offset + 2)
        elif sort == b"," and len(block) == _GIF_PICTURE_BYTES:
            pictured = True  # The descriptor, its colours, the size of a code, sub-blocks.
            data = offset + _GIF_PICTURE_BYTES + _colour_table(block[-1]) + 1
            offset = _skip_sub_blocks(media, data)
        elif sort == b"\x00":  # Some encoders leave zeros between blocks, and viewers skip them.
            offset += len(block) - len(block.lstrip(b"\x00"))
        else:
            return Problem.BROKEN
    return Problem.NO_END


def _skip_sub_blocks(media: Media, offset: int) -> int:
    """The offset behind a chain of sub-blocks, which may be the end of the file."""
    while window := media.at(offset, _BLOCKS_BYTES):
        place = 0
        while place < len(window):
            length = window[place]
            if length == 0:
                return offset + place + 1
            if (
                length == _FULL_BLOCK
            ):  # They come in long runs: count every 256th byte that says so.
                lengths = window[place :: _FULL_BLOCK + 1]
                run = len(lengths) - len(lengths.lstrip(b"\xff"))
                place += run * (_FULL_BLOCK + 1)
            else:
                place += length + 1
        offset += place
    return media.size_bytes


# --------------------------------------------------------------------------- WebP (RFC 9649)

_WEBP_BYTES = 30
# RIFF, length, WEBP, the first chunk's name and length, and the five bytes of a lossless header.
_WEBP_LEAST_BYTES = 25


def walk_webp(media: Media) -> Frame:
    """The RIFF length inside the file, and the pixels of the first chunk."""
    header = media.at(0, _WEBP_BYTES)
    if len(header) < _WEBP_LEAST_BYTES:
        return Frame(problem=Problem.CUT_HEADER)
    width, height = _webp_pixels(header)
    cut = _little(header[4:8]) + 8 > media.size_bytes
    return Frame(width, height, Problem.PAST_END if cut else Problem.NONE)


def _webp_pixels(header: bytes) -> tuple[int, int]:
    name = header[12:16]
    if name == b"VP8X":
        return _little(header[24:27]) + 1, _little(header[27:30]) + 1
    if name == b"VP8L":
        bits = _little(header[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 ":
        return _little(header[26:28]) & 0x3FFF, _little(header[28:30]) & 0x3FFF
    return 0, 0


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


# --------------------------------------------------------------------------- BMP

_BMP_FILE = struct.Struct("<2sIII")
_BMP_OLD = struct.Struct("<IHHHH")
_BMP_NEW = struct.Struct("<IiiHHI")
# Compression methods that leave rows as they are: none, and bit fields.
_BMP_PLAIN = (0, 3)


def walk_bmp(media: Media) -> Frame:
    """Pixels, and for uncompressed ones that their rows are all there."""
    head = media.at(_BMP_FILE.size, _BMP_NEW.size)
    old = _little(head[:4]) == _BMP_OLD.size
    if len(head) < (_BMP_OLD.size if old else _BMP_NEW.size):
        return Frame(problem=Problem.CUT_HEADER)
    start, method = _BMP_FILE.unpack(media.at(0, _BMP_FILE.size))[3], 0
    if old:
        _, width, height, _, depth = _BMP_OLD.unpack_from(head)
    else:
        _, width, height, _, depth, method = _BMP_NEW.unpack(head)
    width, height = max(width, 0), abs(height)
    row_bytes = (width * depth + 31) // 32 * 4
    needed = start + row_bytes * height if method in _BMP_PLAIN else start
    return Frame(width, height, Problem.PAST_END if needed > media.size_bytes else Problem.NONE)


# --------------------------------------------------------------------------- SVG

_SVG_TAIL_BYTES = 4096
_SVG_END = re.compile(rb"</(?:\w+:)?svg\s*>")


def walk_svg(media: Media) -> Frame:
    """The closing tag near the end; how large a drawing is, its viewer decides."""
    tail = media.at(max(0, media.size_bytes - _SVG_TAIL_BYTES), _SVG_TAIL_BYTES)
    return Frame(problem=Problem.NONE if _SVG_END.search(tail) else Problem.NO_END)
