"""Pictures as files: encoding, writing and copying those of one post.

A post has its file under ``original/`` and, unless it moves or is a tall comic, a JPEG of 512 by
512 pixels under ``512px/``, letterboxed in black.  The mtime of both is the post's last change.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path

from msgspec import Struct
from PIL import Image

from manifests.paths import Layout
from server.sample.drawing import Drawing, draw
from server.sample.years import Post

ORIGINAL = "original"
PREVIEW = "512px"
_PREVIEW_PIXELS = 512
_PREVIEW_QUALITY = 60
_BLINK_MS = (1900, 180)


class Picture(Struct, frozen=True, kw_only=True):
    """What is known of a post's file once it is written: the part of the metadata it decides."""

    tags: frozenset[str]
    width: int
    height: int
    size_bytes: int
    md5: str


class Task(Struct, frozen=True, kw_only=True):
    """Draw one post into one tree; travels to a worker process."""

    tree: Path
    layout: Layout
    seed: int
    post: Post


def write_post(task: Task) -> Picture:
    """Draw a post and write its files; existing ones are replaced."""
    post = task.post
    drawing = draw(f"{task.seed}/{post.id}", animated=post.extension == "gif", border=post.border)
    data = _encode(drawing, post)
    _write(_file(task.tree, task.layout, ORIGINAL, post), data, post.updated_at)
    if _has_preview(drawing):
        preview = _file(task.tree, task.layout, PREVIEW, post)
        _write(preview, _encode_preview(drawing.frames[0]), post.updated_at)
    width, height = drawing.frames[0].size
    return Picture(
        tags=drawing.tags,
        width=width,
        height=height,
        size_bytes=len(data),
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
    )


def copy_post(source: Path, target: Path, layout: Layout, post: Post) -> None:
    """Copy the files of an unchanged post, times included, from last year's tree."""
    for variant in (ORIGINAL, PREVIEW):
        old = _file(source, layout, variant, post)
        if old.exists():
            new = _file(target, layout, variant, post)
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(old, new)


def _file(tree: Path, layout: Layout, variant: str, post: Post) -> Path:
    extension = post.extension if variant == ORIGINAL else "jpg"
    return tree / layout.entry_path(variant, post.id, extension).text


def _write(path: Path, data: bytes, mtime_s: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (mtime_s, mtime_s))


def _has_preview(drawing: Drawing) -> bool:
    return len(drawing.frames) == 1 and "comic" not in drawing.tags


def _encode(drawing: Drawing, post: Post) -> bytes:
    first, *others = drawing.frames
    buffer = io.BytesIO()
    if post.extension == "gif":
        first.save(buffer, "GIF", save_all=True, append_images=others, duration=_BLINK_MS, loop=0)
    elif post.extension == "png":
        first.save(buffer, "PNG", compress_level=4)
    elif post.crunched:
        first.save(buffer, "JPEG", quality=85, optimize=True, progressive=True)
    else:
        # A spread of qualities, as uploads have.
        first.save(buffer, "JPEG", quality=88 + post.id % 7)
    return buffer.getvalue()


def _encode_preview(picture: Image.Image) -> bytes:
    side = _PREVIEW_PIXELS
    scale = side / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    boxed = Image.new("RGB", (side, side))
    small = picture.resize(size, Image.Resampling.BILINEAR)
    boxed.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    buffer = io.BytesIO()
    boxed.save(buffer, "JPEG", quality=_PREVIEW_QUALITY)
    return buffer.getvalue()
