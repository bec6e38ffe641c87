"""Small real media files, made by Pillow, by zipfile, or by hand from their specification."""

from __future__ import annotations

import io
import struct
import zipfile

from PIL import Image


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """A picture with something in it, so that no encoder makes it trivial."""
    red = Image.linear_gradient("L").resize((width, height))
    green = Image.radial_gradient("L").resize((width, height))
    return Image.merge("RGB", (red, green, red.rotate(90).resize((width, height))))


def encoded(kind: str, width: int = 40, height: int = 30, **options: object) -> bytes:
    """A picture as Pillow's format ``kind``."""
    data = io.BytesIO()
    picture(width, height).save(data, kind, **options)
    return data.getvalue()


def animation(frames: int = 3) -> bytes:
    """An animated GIF."""
    data = io.BytesIO()
    first, *others = (picture().rotate(20 * turn) for turn in range(frames))
    first.save(data, "GIF", save_all=True, append_images=others)
    return data.getvalue()


def ugoira() -> bytes:
    """A ZIP of frames, as Danbooru keeps animations."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number in range(3):
            archive.writestr(f"{number:06d}.jpg", encoded("JPEG"))
    return data.getvalue()


def box(name: bytes, *content: bytes) -> bytes:
    """A box of ISO media."""
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + name + data


def film(width: int = 64, height: int = 48) -> bytes:
    """An MP4 with a sound track and a picture track."""
    sound = box(b"trak", box(b"tkhd", bytes(84)))
    pixels = struct.pack(">II", width << 16, height << 16)
    track = box(b"trak", box(b"tkhd", bytes(76) + pixels), box(b"mdia", bytes(20)))
    index = box(b"moov", box(b"mvhd", bytes(100)), sound, track)
    return box(b"ftyp", b"isom", bytes(4)) + box(b"mdat", bytes(300)) + index


def webm(*, sized: bool = True) -> bytes:
    """A WebM: its header, and one segment that states its length or not."""
    content = bytes(200)
    size = struct.pack(">Q", 1 << 56 | len(content)) if sized else b"\x01" + b"\xff" * 7
    return b"\x1aE\xdf\xa3\x84webm" + b"\x18\x53\x80\x67" + size + content


def avif(width: int = 40, height: int = 30) -> bytes:
    """An AVIF by its boxes; its picture data is none."""
    extent = box(b"ispe", bytes(4), struct.pack(">II", width, height))
    meta = box(b"meta", bytes(4), box(b"iprp", box(b"ipco", extent)))
    return box(b"ftyp", b"avif", bytes(4)) + meta + box(b"mdat", bytes(100))


def swf() -> bytes:
    """An uncompressed film that states its length."""
    content = bytes(100)
    return b"FWS\x05" + struct.pack("<I", 8 + len(content)) + content


SVG = b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg viewBox="0 0 9 9"><path d="M0 0"/></svg>\n'
HTML = b"<!DOCTYPE html>\n<html><head><title>429 Too Many Requests</title></head></html>"
