"""Metadata of a sample release in both generations that Danbooru releases have had.

Before 2021: JSON lines in ``metadata/YEAR/``, every number a string, absent values ``"0"`` or the
year 1970, tags as objects, pools as ids followed by their categories.  Since 2021: one set of JSON
lines a table, as BigQuery exports them: integers are strings, booleans are booleans, absent values
are left out, and the tags of a post are one string.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from msgspec import Struct

from server.sample.files import Picture
from server.sample.jsonl import Row, optional, timestamp, write_shards
from server.sample.skies import chance
from server.sample.tables import PoolMembers, alias_rows, implication_rows, pool_rows, tag_rows
from server.sample.vocabulary import CATEGORY_NAMES, TagNumbers, category_of, is_character
from server.sample.years import Post

_NEVER = "1970-01-01 00:00:00 UTC"
# Nothing in the sample is worse than a ghost; they alone are rated "questionable".
_SPOOKY = "ghost"


class Record(Struct, frozen=True, kw_only=True):
    """One post of one release: its file, its relations, and what its visitors made of it."""

    post: Post
    picture: Picture
    parent_id: int | None
    has_children: bool
    uploader_id: int
    approver_id: int | None
    pixiv_id: int | None
    source: str
    up_score: int
    down_score: int
    fans: tuple[int, ...]
    is_pending: bool
    is_flagged: bool
    is_deleted: bool

    @property
    def tags(self) -> list[str]:
        """The tags in alphabetical order."""
        return sorted(self.picture.tags)

    @property
    def micros(self) -> int:
        """The fraction of a second in the post's times; none for some, as in real dumps."""
        return self.post.id % 4 * self.post.id * 7919 % 1_000_000

    @property
    def rating(self) -> str:
        """``s`` or ``q``, the letters that both generations have."""
        return "q" if _SPOOKY in self.picture.tags else "s"


def make_records(
    posts: Sequence[Post], pictures: Mapping[int, Picture], seed: int
) -> list[Record]:
    """What a release tells about its posts; ``pictures`` holds a picture for each."""
    parents = _parents(posts, pictures)
    children = set(parents.values())
    made = []
    for post in posts:
        dice = Random(f"{seed}/{post.id}/visitors")  # noqa: S311 (no secret)
        fans = tuple(sorted(dice.sample(range(1000, 1400), dice.choice((0, 0, 1, 2, 5, 12)))))
        made.append(
            Record(
                post=post,
                picture=pictures[post.id],
                parent_id=parents.get(post.id),
                has_children=post.id in children,
                uploader_id=dice.randint(500, 560),
                approver_id=dice.choice((None, 7, 11)),
                pixiv_id=70_000_000 + post.id if chance(dice, 0.2) else None,
                source=f"https://example.org/art/{post.id}" if chance(dice, 0.7) else "",
                up_score=len(fans) + dice.choice((0, 1, 2, 4, 9)),
                down_score=-dice.choice((0, 0, 0, 1, 2)),
                fans=fans,
                is_pending=post.id == posts[-1].id,
                is_flagged=chance(dice, 0.01),
                is_deleted=chance(dice, 0.02),
            )
        )
    return made


def _parents(posts: Sequence[Post], pictures: Mapping[int, Picture]) -> dict[int, int]:
    """Now and then a post follows the one before it that shows the same character."""
    parents: dict[int, int] = {}
    last_seen: dict[str, int] = {}
    for post in posts:
        for name in sorted(filter(is_character, pictures[post.id].tags)):
            if name in last_seen and post.id % 5 == 0:
                parents[post.id] = last_seen[name]
            last_seen[name] = post.id
    return parents


def write_old(
    folder: Path, year: int, made: Sequence[Record], pools: PoolMembers, numbers: TagNumbers
) -> None:
    """Write ``YEAR/YEAR000000000000.json`` and its further shards into ``folder``."""
    rows = [_old_row(record, pools, numbers) for record in made]
    write_shards(folder / str(year), str(year), rows)


def _old_row(record: Record, pools: PoolMembers, numbers: TagNumbers) -> Row:
    post, picture = record.post, record.picture
    mine = [pool for pool, members in pools.items() if post.id in members]
    return {
        "id": str(post.id),
        "created_at": timestamp(post.created_at, record.micros),
        "uploader_id": str(record.uploader_id),
        "score": str(record.up_score + record.down_score),
        "source": record.source,
        "md5": picture.md5,
        "last_commented_at": _NEVER,
        "rating": record.rating,
        "image_width": str(picture.width),
        "image_height": str(picture.height),
        "is_note_locked": False,
        "file_ext": post.extension,
        "last_noted_at": _NEVER,
        "is_rating_locked": False,
        "parent_id": str(record.parent_id or 0),
        "has_children": record.has_children,
        "approver_id": str(record.approver_id or 0),
        "file_size": str(picture.size_bytes),
        "is_status_locked": False,
        "up_score": str(record.up_score),
        "down_score": str(record.down_score),
        "is_pending": record.is_pending,
        "is_flagged": record.is_flagged,
        "is_deleted": record.is_deleted,
        "updated_at": timestamp(post.updated_at, record.micros),
        "is_banned": False,
        "pixiv_id": str(record.pixiv_id or 0),
        "tags": [
            {"id": str(numbers[tag]), "name": tag, "category": str(category_of(tag))}
            for tag in record.tags
        ],
        "pools": [str(pool.id) for pool in mine] + [pool.category for pool in mine],
        "favs": [str(fan) for fan in record.fans],
    }


def write_new(
    folder: Path, date: int, made: Sequence[Record], pools: PoolMembers, numbers: TagNumbers
) -> None:
    """Write the tables posts, tags, tag_aliases, tag_implications and pools into ``folder``.

    ``date`` (Unix seconds) is when the tables were exported.
    """
    tags_of = {record.post.id: record.picture.tags for record in made}
    write_shards(folder, "posts", [_new_row(record) for record in made])
    write_shards(folder, "tags", tag_rows(tags_of, numbers, date))
    write_shards(folder, "tag_aliases", alias_rows(date))
    write_shards(folder, "tag_implications", implication_rows(tags_of, date))
    write_shards(folder, "pools", pool_rows(pools, date))


def _new_row(record: Record) -> Row:
    post, picture = record.post, record.picture
    by_category = {
        name: [tag for tag in record.tags if category_of(tag) == number]
        for number, name in CATEGORY_NAMES.items()
    }
    row: Row = {
        "id": str(post.id),
        "created_at": timestamp(post.created_at, record.micros),
        "updated_at": timestamp(post.updated_at, record.micros),
        "uploader_id": str(record.uploader_id),
        "approver_id": optional(record.approver_id),
        "parent_id": optional(record.parent_id),
        "pixiv_id": optional(record.pixiv_id),
        "score": str(record.up_score + record.down_score),
        "up_score": str(record.up_score),
        "down_score": str(record.down_score),
        "fav_count": str(len(record.fans)),
        "source": record.source,
        "rating": record.rating,
        "md5": picture.md5,
        "file_ext": post.extension,
        "file_size": str(picture.size_bytes),
        "image_width": str(picture.width),
        "image_height": str(picture.height),
        "bit_flags": "0",
        "has_children": record.has_children,
        "has_active_children": record.has_children,
        "has_visible_children": record.has_children,
        "has_large": False,
        "is_pending": record.is_pending,
        "is_flagged": record.is_flagged,
        "is_deleted": record.is_deleted,
        "is_banned": False,
        "tag_string": " ".join(record.tags),
        "tag_count": str(len(record.tags)),
    }
    for name, tags in by_category.items():
        row[f"tag_string_{name}"] = " ".join(tags)
        row[f"tag_count_{name}"] = str(len(tags))
    return row
