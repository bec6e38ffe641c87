"""A small published repository whose newest release can be searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

from tests.support.world import World, make_world

POSTS = 3000
_TAGS = ((1, "all"), (2, "even"), (3, "third"))
# The last posts are less than a day older than the release.
_NEW = 10
_FILES = range(1, 41)


def make_searchable(folder: Path) -> World:
    """Release y0 has no metadata; y1 changes file 4, takes file 6 away, and has POSTS posts."""
    world = make_world(folder)
    for number in _FILES:
        world.put("original", number, 500_000)
        world.put("small", number, 100)
    world.publish("y0", "--date", "2021-01-01")
    world.put("original", 4, 501_000)
    (world.tree / "original" / "0006" / "6.dat").unlink()
    posts = folder / "posts.json"
    posts.write_bytes(b"".join(orjson.dumps(_post(n)) + b"\n" for n in range(1, POSTS + 1)))
    world.publish("y1", "--date", "2022-01-01", "--metadata", str(posts))
    return world


def _post(number: int) -> dict[str, Any]:
    tags = [name for step, name in _TAGS if number % step == 0]
    day = "2021-12-31" if number > POSTS - _NEW else "2020-05-05"
    return {
        "id": number,
        "created_at": f"{day}T12:00:00.000-00:00",
        "tag_string": " ".join([*tags, f"tag_{number % 97}"]),
        "rating": "sqe"[number % 3],
        "score": number * 7919 % POSTS,
        "md5": f"{number * 2654435761 % 2**128:032x}",
        "file_ext": "csv" if number % 2 else "dat",
        "file_size": 1000,
        "image_width": 100,
        "image_height": 100,
    }


def search_url(**parameters: object) -> str:
    """The path of a search."""
    return "/api/search?" + urlencode(parameters)
