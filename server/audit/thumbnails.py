"""Small pictures of files that something is wrong with, for the report of an audit.

The files are the ones not to be trusted: only a few formats are tried, sizes are checked before a
pixel is decoded, whatever a decoder raises is caught, and what it cannot decode is shown by its
first bytes.  A cut-off picture is decoded as far as it goes: that shows best what is wrong.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from syncclient.tree import open_regular

_BOX_PIXELS = 200
_MAX_PIXELS = 50_000_000
_MAX_FILE_BYTES = 64 * 2**20
_MAX_THUMBNAIL_BYTES = 24 * 2**10
_FIRST_BYTES = 48
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF")


class Thumbnail(Struct, frozen=True, kw_only=True):
    """A picture as a ``data:`` URI, empty if none was made, and the first bytes of the file."""

    uri: str
    first_bytes: bytes


def can_draw() -> bool:
    """Pillow is installed."""
    return importlib.util.find_spec("PIL") is not None


def thumbnail(path: Path) -> Thumbnail | None:
    """A small picture of a file; None if the file cannot be read."""
    try:
        fd = open_regular(path)
    except OSError:
        return None
    with open(fd, "rb") as file:  # noqa: PTH123 (an open descriptor, not a path)
        try:
            first_bytes = file.read(_FIRST_BYTES)
            if not can_draw() or os.fstat(fd).st_size > _MAX_FILE_BYTES:
                return Thumbnail(uri="", first_bytes=first_bytes)
            file.seek(0)
            return Thumbnail(uri=_data_uri(_drawn(file)), first_bytes=first_bytes)
        except OSError:
            return None


def _data_uri(jpeg: bytes) -> str:
    if not 0 < len(jpeg) <= _MAX_THUMBNAIL_BYTES:
        return ""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _drawn(file: io.BufferedReader) -> bytes:
    """The picture as a small JPEG on white; no bytes if it cannot be decoded."""
    from PIL import Image  # noqa: PLC0415 (optional)

    try:
        with _as_far_as_it_goes(), Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                return b""
            image.thumbnail((_BOX_PIXELS, _BOX_PIXELS))
            layer = image.convert("RGBA")
            white = Image.new("RGBA", layer.size, "white")
            flat = Image.alpha_composite(white, layer).convert("RGB")
            drawn = io.BytesIO()
            flat.save(drawn, "JPEG", quality=75)
            return drawn.getvalue()
    except Exception:  # noqa: BLE001 (decoders raise whatever the hostile bytes lead them to)
        return b""


@contextmanager
def _as_far_as_it_goes() -> Iterator[None]:
    """Let Pillow fill what is missing with grey, and treat its warnings (bombs) as errors."""
    from PIL import ImageFile  # noqa: PLC0415 (optional)

    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
