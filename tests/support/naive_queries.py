"""The query language evaluated the slow and plain way: one post after another, no columns.

Written from the description of the site's language alone, as a second opinion on
``manifests.query``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import cached_property
from math import log
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

from tests.support.naive_values import (
    Age,
    Date,
    Duration,
    Filesize,
    Float,
    Integer,
    InvalidError,
    Kind,
    Number,
    Ratio,
    Truth,
    all_of,
    any_of,
    opposite,
    two_digits,
)

STATUSES = ("pending", "flagged", "deleted", "banned")
TWO_DAYS_S = 2 * 86400
FIRST_DAY = datetime(2005, 5, 24, tzinfo=ZoneInfo("America/New_York"))


@dataclass(frozen=True, kw_only=True)
class Post:
    """One post; None is null, times are Unix seconds, ``tags`` give categories by name."""

    id: int
    tags: dict[str, int]
    statuses: frozenset[str]
    parent: int | None
    has_children: bool
    rating: str | None
    source: str
    ext: str
    md5: str | None
    embedded: bool
    duration_ms: int | None
    numbers: dict[str, int | None]

    def count(self, category: int) -> int:
        return sum(mine == category for mine in self.tags.values())


Measure: TypeAlias = Callable[[Post], Number | None]


def column(name: str) -> Measure:
    """A number of posts by its name."""
    return lambda post: post.numbers[name]


@dataclass(frozen=True, kw_only=True)
class Pool:
    id: int
    name: str
    category: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Word:
    """A tag or wildcard; with ``metatag`` the value of that."""

    text: str
    metatag: str = ""
    quoted: bool = False


@dataclass(frozen=True)
class Factors:
    """A list of factors: prefixes, and what they stand before."""

    parts: tuple[tuple[str, Query], ...]


@dataclass(frozen=True)
class Chain:
    """What ``and`` or ``or`` joins."""

    operator: Literal["and", "or"]
    parts: tuple[Query, ...]


Query: TypeAlias = Word | Factors | Chain


@dataclass(frozen=True, kw_only=True)
class Dataset:
    posts: tuple[Post, ...]
    pools: tuple[Pool, ...]
    aliases: dict[str, str]
    now: datetime
    zone: ZoneInfo

    # ------------------------------------------------------------- which

    def truth(self, query: Query, post: Post) -> Truth:
        """Whether a query is true of a post."""
        match query:
            case Word(metatag=""):
                return self._has_tag(query.text.lower(), post)
            case Word():
                return self._metatag(query, post)
            case Factors(parts):
                optional = [self.truth(part, post) for sign, part in parts if sign == "~"]
                truths = [any_of(optional)] if optional else []
                truths += [self.truth(part, post) for sign, part in parts if sign == ""]
                truths += [opposite(self.truth(part, post)) for sign, part in parts if sign == "-"]
                return all_of(truths)
            case Chain("and", parts):
                return all_of([self.truth(part, post) for part in parts])
            case Chain(_, parts):
                return any_of([self.truth(part, post) for part in parts])

    def _has_tag(self, name: str, post: Post) -> bool:
        if "*" in name:
            return any(glob(name).fullmatch(tag) for tag in post.tags)
        return self.aliases.get(name, name) in post.tags

    def _metatag(self, word: Word, post: Post) -> Truth:
        if word.metatag in self._numeric:
            kind, measure = self._numeric[word.metatag]
            return kind.holds(word.text, measure(post))
        value = word.text.lower()
        special: dict[str, Callable[[], bool]] = {
            "md5": lambda: self._md5(word.text, post),
            "rating": lambda: self._rating(value, post),
            "filetype": lambda: post.ext in re.split("[, ]+", value),
            "source": lambda: self._source(word, post),
            "status": lambda: self._status(value, post) is True,
            "parent": lambda: self._parent(value, post),
            "child": lambda: self._child(value, post),
            "is": lambda: self._is(value, post),
            "has": lambda: self._has(value, post),
            "embedded": lambda: value in {"true", "false"} and post.embedded == (value == "true"),
            "unaliased": lambda: value in post.tags,
            "user": lambda: self._person(value, post.numbers["uploader_id"]),
            "approver": lambda: self._person(value, post.numbers["approver_id"]),
            "pool": lambda: self._pooled(value, post),
            "ordpool": lambda: self._pooled(value, post),
            "order": lambda: True,
            "limit": lambda: True,
        }
        return special[word.metatag]()

    @cached_property
    def _numeric(self) -> dict[str, tuple[Kind, Measure]]:
        whole = Integer()
        plain: dict[str, Measure] = {
            "id": lambda post: post.id,
            "downvotes": lambda post: abs(post.numbers["down_score"] or 0),
            "tagcount": lambda post: len(post.tags),
            "gentags": lambda post: post.count(0),
            "arttags": lambda post: post.count(1),
            "copytags": lambda post: post.count(3),
            "chartags": lambda post: post.count(4),
            "metatags": lambda post: post.count(5),
            "child_count": lambda post: len(self._children(post)),
            "deleted_child_count": lambda post: sum(
                "deleted" in child.statuses for child in self._children(post)
            ),
            "active_child_count": lambda post: sum(
                "deleted" not in child.statuses for child in self._children(post)
            ),
            "pool_count": lambda post: len(self._pools_of(post)),
            "series_pool_count": lambda post: self._pool_count(post, "series"),
            "collection_pool_count": lambda post: self._pool_count(post, "collection"),
            "width": column("image_width"),
            "height": column("image_height"),
            "score": column("score"),
            "upvotes": column("up_score"),
            "favcount": column("fav_count"),
            "pixiv": column("pixiv_id"),
            "pixiv_id": column("pixiv_id"),
        }
        return {
            **{name: (whole, measure) for name, measure in plain.items()},
            "mpixels": (Float(), megapixels),
            "ratio": (Ratio(), ratio),
            "filesize": (Filesize(), column("file_size")),
            "duration": (Duration(), seconds),
            "date": (Date(self.zone), column("created_at")),
            "age": (Age(self.now, self.zone), self._age),
        }

    def _age(self, post: Post) -> Number | None:
        made_s = post.numbers["created_at"]
        return None if made_s is None else int(self.now.timestamp()) - made_s

    def _rating(self, value: str, post: Post) -> bool:
        return post.rating is not None and post.rating in {
            part[:1] for part in re.split("[, ]+", value)
        }

    def _md5(self, value: str, post: Post) -> bool:
        if value in {"any", "none"}:
            return (post.md5 is None) == (value == "none")
        wanted = re.split("[, ]+", value.lower())
        if not all(re.fullmatch("[0-9a-f]{32}", one) for one in wanted):
            return False
        return post.md5 in wanted

    def _source(self, word: Word, post: Post) -> bool:
        value = word.text.lower()
        if not value or (value == "none" and not word.quoted):
            return post.source == ""
        return glob(value + "*").fullmatch(post.source.lower()) is not None

    def _status(self, value: str, post: Post | None) -> bool | None:
        """Whether a post has a status; None for a word that is none."""
        mine = post.statuses if post is not None else frozenset()
        if value in STATUSES:
            return value in mine
        if value in {"any", "all"}:
            return post is not None
        if value == "active":
            return post is not None and not mine & {"pending", "flagged", "deleted"}
        if value in {"modqueue", "unmoderated"}:
            return bool(mine & {"pending", "flagged"})
        return None

    def _children(self, post: Post) -> list[Post]:
        return [other for other in self.posts if other.parent == post.id]

    def _parent(self, value: str, post: Post) -> bool:
        if value in {"none", "any"}:
            return (post.parent is None) == (value == "none")
        parents = [other for other in self.posts if other.id == post.parent]
        status = self._status(value, parents[0] if parents else None)
        if status is not None:
            return status
        try:
            return Integer().number(value) in {post.id, post.parent}
        except InvalidError:
            return False

    def _child(self, value: str, post: Post) -> bool:
        if value in {"none", "any"}:
            return post.has_children == (value == "any")
        return any(self._status(value, child) for child in self._children(post))

    def _is(self, value: str, post: Post) -> bool:
        ratings = {"general": "g", "sensitive": "s", "safe": "s", "questionable": "q"}
        ratings |= {"explicit": "e", "sfw": "gs", "nsfw": "qe"}
        if value in ratings:
            return post.rating is not None and post.rating in ratings[value]
        if value in {"parent", "child"}:
            return post.has_children if value == "parent" else post.parent is not None
        return bool(self._status(value, post)) or (value == post.ext and value != "")

    def _has(self, value: str, post: Post) -> bool:
        found = {
            "parent": post.parent is not None,
            "child": post.has_children,
            "children": post.has_children,
            "source": post.source != "",
            "pools": bool(self._pools_of(post)),
        }
        return found.get(value, False)

    def _person(self, value: str, mine: int | None) -> bool:
        if value in {"any", "none"}:
            return (mine is None) == (value == "none")
        return int(value.removeprefix("#")) == mine

    def _pools_of(self, post: Post) -> list[Pool]:
        return [pool for pool in self.pools if post.id in pool.members]

    def _pool_count(self, post: Post, category: str) -> int:
        return sum(pool.category == category for pool in self._pools_of(post))

    def _named_pools(self, value: str) -> list[Pool]:
        if value.isdecimal():
            return [pool for pool in self.pools if pool.id == int(value)]
        name = glob(value.replace(" ", "_"))
        return [pool for pool in self.pools if name.fullmatch(pool.name.lower())]

    def _pooled(self, value: str, post: Post) -> bool:
        mine = self._pools_of(post)
        if value in {"any", "none"}:
            return bool(mine) == (value == "any")
        if value in {"series", "collection"}:
            return any(pool.category == value for pool in mine)
        return any(pool in mine for pool in self._named_pools(value))

    # ------------------------------------------------------------- in which order

    def search(self, query: Query) -> list[int]:
        """The ids that match, in order."""
        found = [post for post in self.posts if self.truth(query, post) is True]
        asked = {word.metatag: word.text for word in words(query)}
        if "ordpool" in asked:
            ids = self._by_pool(asked["ordpool"].lower(), found)
        else:
            ids = self._ordered(asked.get("order", "id_desc").lower(), found, query)
        return ids[: int(asked["limit"])] if "limit" in asked else ids

    def _by_pool(self, value: str, found: Sequence[Post]) -> list[int]:
        here = {post.id for post in found}
        members = [post for pool in self._named_pools(value) for post in pool.members]
        return [post for post in dict.fromkeys(members) if post in here]

    def _ordered(self, order: str, found: list[Post], query: Query) -> list[int]:
        if order == "custom":
            return self._custom(found, query)
        if order == "rank":
            return self._ranked(found)
        name = re.sub("_(asc|desc)$", "", order)
        ascending = order.endswith("_asc") or order in {"id", "portrait"}
        keys = self._keys
        key = keys.get(name, keys["id"])
        if name not in keys:
            ascending = False
        stated = [post for post in found if key(post) is not None]
        unstated = [post for post in found if key(post) is None]
        stated.sort(key=lambda post: (key(post), post.id), reverse=not ascending)
        unstated.sort(key=lambda post: post.id, reverse=not ascending)
        return [post.id for post in [*stated, *unstated]]

    @cached_property
    def _keys(self) -> dict[str, Callable[[Post], Any]]:
        leave_out = {"width", "height", "date", "age", "pixiv", "pixiv_id", "ratio"}
        measured = {name: key for name, (_, key) in self._numeric.items() if name not in leave_out}
        return {
            **measured,
            "created_at": column("created_at"),
            "change": column("updated_at"),
            "comment": column("last_commented_at"),
            "comment_bumped": column("last_comment_bumped_at"),
            "note": column("last_noted_at"),
            "landscape": exact_ratio,
            "portrait": exact_ratio,
            "md5": lambda post: post.md5,
        }

    def _custom(self, found: list[Post], query: Query) -> list[int]:
        (word,) = [word for word in words(query) if word.metatag == "id"]
        wanted = [int(part) for part in word.text.split(",")]
        here = {post.id for post in found}
        return [post for post in dict.fromkeys(wanted) if post in here]

    def _ranked(self, found: list[Post]) -> list[int]:
        ranks = {}
        for post in found:
            score, made_s = post.numbers["score"], post.numbers["created_at"]
            if score and score > 0 and made_s and made_s >= self.now.timestamp() - TWO_DAYS_S:
                ranks[post.id] = log(score, 3) + (made_s - FIRST_DAY.timestamp()) / 35000
        return sorted(ranks, key=lambda post: (ranks[post], post), reverse=True)


def words(query: Query) -> Iterator[Word]:
    """The words of a query."""
    match query:
        case Word():
            yield query
        case Factors(parts):
            for _, part in parts:
                yield from words(part)
        case Chain(_, parts):
            for part in parts:
                yield from words(part)


def glob(pattern: str) -> re.Pattern[str]:
    r"""A star is any run of characters, ``\*`` a star, ``\\`` a backslash."""
    found: Iterable[str] = re.findall(r"\\[\\*]|.", pattern, re.DOTALL)
    parts = [".*" if part == "*" else re.escape(part[-1]) for part in found]
    return re.compile("".join(parts), re.DOTALL)


def _size(post: Post) -> tuple[int, int] | None:
    width, height = post.numbers["image_width"], post.numbers["image_height"]
    return None if width is None or height is None else (width, height)


def megapixels(post: Post) -> Number | None:
    size = _size(post)
    return None if size is None else Fraction(size[0] * size[1], 1_000_000)


def exact_ratio(post: Post) -> Fraction | None:
    size = _size(post)
    return None if size is None else Fraction(*size)


def ratio(post: Post) -> Number | None:
    exact = exact_ratio(post)
    return None if exact is None else two_digits(exact)


def seconds(post: Post) -> Number | None:
    return None if post.duration_ms is None else Fraction(post.duration_ms, 1000)
