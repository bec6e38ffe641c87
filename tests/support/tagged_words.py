"""What the metadata of the frozen release ``tagged`` say, in words and numbers.

Rows of JSON are written from these tables, and so is ``expected.json``; nothing is read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

# Codes of the index, written down once more (docs/reference/format.md).
RATINGS = {None: 0, "g": 1, "s": 2, "q": 3, "e": 4}
CATEGORIES = {"general": 0, "artist": 1, "copyright": 3, "character": 4, "meta": 5}
UNKNOWN = 255
FLAGS = {"is_pending": 1, "is_flagged": 2, "is_deleted": 4, "is_banned": 8, "has_children": 16}
DRAWN_IN = 32
TIMES = (
    "created_at",
    "updated_at",
    "last_noted_at",
    "last_commented_at",
    "last_comment_bumped_at",
)
NUMBERS = (
    *("score", "up_score", "down_score", "fav_count", "image_width", "image_height"),
    *("file_size", "parent_id", "uploader_id", "approver_id", "pixiv_id"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One post; ``numbers`` has what is not 0, by the names of the row, ``flags`` what is true."""

    id: int
    tags: tuple[str, ...]
    rating: str | None = "g"
    md5: str | None = None
    file_ext: str = ""
    source: str = ""
    duration_ms: int = 0
    flags: tuple[str, ...] = ()
    drawn_in: bool = False
    numbers: Mapping[str, int] = field(default_factory=dict)
    # What stands before the line feed: some files have carriage returns.
    line_end: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool with its posts in order."""

    id: int
    name: str
    posts: tuple[int, ...]
    series: bool = False
    deleted: bool = False


# Tags that are not named here have no category.
TAGS = {
    "sky": "general",
    "cloud": "general",
    "night_sky": "general",
    "m\u00fcller": "artist",
    "\u7a7a\u306e\u5883\u754c": "copyright",
    "luna": "character",
    "animated": "meta",
}
ALIASES = {"heaven": "sky", "\u7a7a": "sky"}
IMPLICATIONS = (("night_sky", "sky"), ("night_sky", "night"), ("full_moon", "moon"))
POOLS = (
    Pool(id=7, name="", posts=(70_000, 3, 2**32 - 1), deleted=True),
    Pool(id=3, name="Der Himmel \u00fcber M\u00fcnchen", posts=(13, 1, 2), series=True),
    # Long enough for a plane that is smaller compressed; of posts that the index need not know.
    Pool(id=12, name="zw\u00f6lf", posts=tuple(range(1024, 1088))),
    Pool(id=90_000, name="empty", posts=()),
)
POSTS = (
    Post(
        id=1,
        tags=("sky", "cloud", "m\u00fcller"),
        md5="00000000ffffffffffffffffffffffff",
        file_ext="png",
        source="https://example.org/1",
        flags=("has_children",),
        numbers={
            "score": 5,
            "up_score": 7,
            "down_score": -2,
            "fav_count": 300,
            "created_at": 1_117_000_000,
            "updated_at": 1_577_836_800,
            "image_width": 65_536,
            "image_height": 1,
            "file_size": 2**40 + 1,
            "uploader_id": 1,
        },
    ),
    Post(
        id=2,
        tags=("sky", "luna", "untold"),
        rating="s",
        md5="ffffffffffffffffffffffffffffffff",
        file_ext="jpg",
        source="ein Heft \u00fcber den Himmel",
        numbers={
            "score": -70_000,
            "up_score": 1,
            "down_score": -70_001,
            "created_at": 1_116_999_999,
            "updated_at": 1_500_000_000,
            "parent_id": 1,
            "pixiv_id": 2**33,
            "approver_id": 70_000,
        },
        line_end=b"\r",
    ),
    Post(id=3, tags=("sky",), rating=None),
    Post(
        id=5,
        tags=("sky", "cloud", "animated"),
        rating="q",
        md5="7fffffff000000000000000000000001",
        file_ext="mp4",
        duration_ms=61_500,
        flags=("is_pending", "is_flagged", "is_deleted", "is_banned"),
        drawn_in=True,
        numbers={
            "score": -1,
            "created_at": 1_400_000_000,
            "last_noted_at": 1_400_000_001,
            "last_commented_at": 1_400_000_002,
            "last_comment_bumped_at": 1_400_000_003,
        },
    ),
    Post(
        id=8,
        tags=("sky", "night_sky", "\u7a7a\u306e\u5883\u754c"),
        rating="e",
        md5="80000000000000000000000000000000",
        file_ext="png",
        source="https://example.org/8",
        numbers={"created_at": 1_300_000_000, "updated_at": 253_402_300_799},
    ),
    Post(id=13, tags=("cloud",), numbers={"created_at": 1_300_000_000, "updated_at": 1}),
    Post(
        id=300,
        tags=("sky", "luna"),
        md5="7fffffff000000000000000000000000",
        numbers={"score": 2**31 - 1, "fav_count": 2**32 - 1, "created_at": 1_500_000_000},
    ),
    Post(id=69_999, tags=("sky", "m\u00fcller"), source="\u7a7a"),
    Post(
        id=70_000,
        tags=("sky", "cloud", "untold"),
        md5="00000000ffffffffffffffffffffffff",
        numbers={"created_at": 1_600_000_000, "updated_at": 1_600_000_001},
    ),
    Post(id=70_001, tags=("sky", "night_sky"), rating="s"),
    Post(id=5_000_000, tags=("sky", "cloud", "luna"), numbers={"created_at": 1_234_567_890}),
    Post(
        id=2**32 - 1,
        tags=("sky",),
        md5="000000000000000000000000000000ff",
        file_ext="zip",
        numbers={"created_at": 1_600_000_000, "score": -(2**31) + 1},
    ),
)


def post_line(post: Post) -> bytes:
    """The row of a post as an export has it, without its line feed."""
    row: dict[str, Any] = {"id": post.id, "tag_string": " ".join(post.tags)}
    for category in CATEGORIES:
        mine = [name for name in post.tags if TAGS.get(name) == category]
        row[f"tag_string_{category}"] = " ".join(mine)
    for name, value in post.numbers.items():
        row[name] = datetime.fromtimestamp(value, UTC).isoformat() if name in TIMES else value
    row |= {"rating": post.rating, "md5": post.md5, "source": post.source}
    row |= {"file_ext": post.file_ext or None, "duration": post.duration_ms / 1000 or None}
    row |= {name: name in post.flags for name in FLAGS} | {"bit_flags": int(post.drawn_in)}
    return orjson.dumps(row) + post.line_end


def alias_lines() -> list[bytes]:
    """The rows of the table `tag_aliases`."""
    pairs = ALIASES.items()
    return [orjson.dumps({"antecedent_name": old, "consequent_name": new}) for old, new in pairs]


def implication_lines() -> list[bytes]:
    """The rows of the table `tag_implications`."""
    return [
        orjson.dumps({"antecedent_name": one, "consequent_name": other, "status": "active"})
        for one, other in IMPLICATIONS
    ]


def pool_lines() -> list[bytes]:
    """The rows of the table `pools`."""
    return [
        orjson.dumps(
            {
                "id": pool.id,
                "name": pool.name,
                "post_ids": pool.posts,
                "category": "series" if pool.series else "collection",
                "is_deleted": pool.deleted,
            }
        )
        for pool in POOLS
    ]


# ----------------------------------------------------------------- what has to be read again


def describe_post(post: Post) -> dict[str, Any]:
    """A post by the names of the columns; text for what has codes of its own."""
    flags = sum(FLAGS[name] for name in post.flags) + DRAWN_IN * post.drawn_in
    # Tags that nobody gives a category count as general.
    told = [TAGS.get(name, "general") for name in post.tags]
    return {
        "id": post.id,
        "rating": RATINGS[post.rating],
        "flags": flags,
        **{name: post.numbers.get(name, 0) for name in (*NUMBERS, *TIMES)},
        "file_ext": post.file_ext,
        "md5": post.md5,
        "source": post.source,
        "duration_ms": post.duration_ms,
        **{f"tags_{category}": told.count(category) for category in CATEGORIES},
    }


def describe_tags() -> list[dict[str, Any]]:
    """Every name in its order; an alias and a name that is only implied have no posts."""
    used = {name for post in POSTS for name in post.tags}
    implied = {name for pair in IMPLICATIONS for name in pair}
    names = sorted(used | implied | {*ALIASES, *ALIASES.values()}, key=str.encode)
    return [
        {
            "name": name,
            "category": CATEGORIES[TAGS[name]] if name in TAGS else UNKNOWN,
            "alias_of": ALIASES.get(name),
            "posts": [post.id for post in POSTS if name in post.tags],
        }
        for name in names
    ]


def describe_index() -> dict[str, Any]:
    """All that the index says."""
    pools = sorted(POOLS, key=lambda pool: pool.id)
    return {
        "instances": sum(len(post.tags) for post in POSTS),
        "tables": ["aliases", "implications", "pools"],
        "tags": describe_tags(),
        "implications": sorted(
            map(list, IMPLICATIONS), key=lambda pair: [n.encode() for n in pair]
        ),
        "posts": [describe_post(post) for post in POSTS],
        "pools": [
            {
                "id": pool.id,
                "flags": pool.series + 2 * pool.deleted,
                "name": pool.name,
                "posts": list(pool.posts),
            }
            for pool in pools
        ],
    }


def describe_rows() -> dict[str, list[dict[str, Any]]]:
    """The two tables that the release publishes, by name."""
    posts = [{"key": post.id, "line": post_line(post).decode()} for post in POSTS]
    aliases = [{"key": n, "line": line.decode()} for n, line in enumerate(alias_lines(), 1)]
    return {"posts": posts, "tag_aliases": aliases}
