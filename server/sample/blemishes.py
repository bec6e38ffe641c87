"""Faults put into a finished tree on purpose, one or two of each kind, to try an audit on.

Only files are touched: the metadata goes on telling what the files should have been.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

from msgspec import Struct
from PIL import Image

from manifests.paths import Layout
from server.sample.files import ORIGINAL
from server.sample.years import Year


class Blemish(Struct, frozen=True, kw_only=True):
    """One fault: its kind and the file, relative to the tree, that shows or lacks it."""

    kind: str
    path: str


def _remove(path: Path) -> Path:
    path.unlink()
    return path


def _truncate(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
    return path


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _disguise(path: Path) -> Path:
    """A PNG under the name of a JPEG."""
    picture = Image.open(io.BytesIO(path.read_bytes()))
    picture.save(path, "PNG")
    return path


def _shrink(path: Path) -> Path:
    """A picture with other dimensions than the metadata says."""
    picture = Image.open(io.BytesIO(path.read_bytes()))
    picture.resize((picture.width // 2, picture.height // 2)).save(path, "JPEG", quality=88)
    return path


def _misplace(path: Path) -> Path:
    """The file in the next bucket's folder."""
    number = int(path.parent.name) + 1
    wrong = path.parent.with_name(f"{number:0{len(path.parent.name)}d}")
    wrong.mkdir(exist_ok=True)
    return path.rename(wrong / path.name)


def _twin(path: Path) -> Path:
    """A second file whose name differs in case alone."""
    return Path(shutil.copy2(path, path.with_suffix(".JPG")))


def _stray(path: Path, beyond: int) -> Path:
    """A file of a post that nobody has heard of."""
    return Path(shutil.copy2(path, path.with_stem(str(int(path.stem) + beyond))))


_FAULTS: tuple[tuple[str, Callable[[Path], Path]], ...] = (
    ("post without a file", _remove),
    ("post without a file", _remove),
    ("truncated JPEG", _truncate),
    ("truncated JPEG", _truncate),
    ("PNG named .jpg", _disguise),
    ("PNG named .jpg", _disguise),
    ("other dimensions", _shrink),
    ("other dimensions", _shrink),
    ("empty file", _empty),
    ("wrong bucket", _misplace),
    ("names that differ in case", _twin),
)


def blemish(tree: Path, layout: Layout, year: Year, seed: int) -> list[Blemish]:
    """Damage a few originals of a tree, each in one way; fewer if there are few JPEGs."""
    rng = Random(f"{seed}/blemishes")  # noqa: S311 (no secret)
    victims = [post for post in year.posts if post.extension == "jpg"]
    rng.shuffle(victims)
    # An id past the last one in the same bucket.
    beyond = layout.buckets * (year.posts[-1].id // layout.buckets + 1)
    faults: list[tuple[str, Callable[[Path], Path]]] = [*_FAULTS]
    faults.append(("file without a post", partial(_stray, beyond=beyond)))
    done = []
    for post, (kind, spoil) in zip(victims, faults, strict=False):
        spoiled = spoil(tree / layout.entry_path(ORIGINAL, post.id, post.extension).text)
        done.append(Blemish(kind=kind, path=spoiled.relative_to(tree).as_posix()))
    return done
