"""What each yearly release holds: which posts, under which extension, changed or removed when.

Pure and quick: nothing is drawn or written here.  Everything that is chosen depends on the seed
and the year alone, so the first years of a long series are those of a short one.
"""

from __future__ import annotations

import calendar
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from manifests.errors import ConfigError
from manifests.paths import Layout

FIRST_YEAR = 2019
_MAX_RELEASES = 50
_NEW_SHARE = 0.25
_REMOVED_SHARE = 0.005
_CHANGED_SHARE = 0.008
_RENAMED = 2
_BORDERS = ("white", "black", "red", "blue")
_EXTENSIONS = {"jpg": 78, "png": 18, "gif": 4}


class SampleSettings(Struct, frozen=True, kw_only=True):
    """What to make: ``posts`` is the size of the first release, later ones are larger."""

    releases: int = 3
    posts: int = 1000
    seed: int = 1
    buckets: int = 1000
    blemishes: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.releases <= _MAX_RELEASES:
            raise ConfigError(f"--releases: expected 1 to {_MAX_RELEASES}, got {self.releases}")
        if self.posts < 1:
            raise ConfigError(f"--posts: expected at least 1, got {self.posts}")
        if not 1 <= self.buckets <= 100_000:  # noqa: PLR2004 (the limit of manifests.paths)
            raise ConfigError(f"--buckets: expected 1 to 100,000, got {self.buckets}")

    @property
    def layout(self) -> Layout:
        """Bucket folders of four digits, or more where four do not suffice."""
        return Layout(buckets=self.buckets, digits=max(4, len(str(self.buckets - 1))))

    def has_old_metadata(self, year: int) -> bool:
        """Whether a year's metadata is of the older generation; the newest one or two's is not."""
        newer = 1 if self.releases <= 3 else 2  # noqa: PLR2004 (as the docstring says)
        return year < FIRST_YEAR + self.releases - newer


class Post(Struct, frozen=True, kw_only=True):
    """One post in one year; two equal posts have the same bytes.

    ``crunched`` files went through an optimiser once more, ``border`` is the colour of a border
    that an edit added.  Times are Unix seconds.
    """

    id: int
    extension: str
    created_at: int
    updated_at: int
    crunched: bool = False
    border: str | None = None


class Year(Struct, frozen=True, kw_only=True):
    """One release: all its posts by rising id, and how it differs from the year before."""

    number: int
    posts: tuple[Post, ...]
    fresh: frozenset[int]
    changed: frozenset[int]
    removed: frozenset[int]

    @property
    def date(self) -> int:
        """Unix time of the release, the last day of its year."""
        return calendar.timegm((self.number, 12, 31, 12, 0, 0))


def plan_years(settings: SampleSettings) -> list[Year]:
    """The whole series, oldest release first."""
    years: list[Year] = []
    for index in range(settings.releases):
        number = FIRST_YEAR + index
        rng = Random(f"{settings.seed}/{number}")  # noqa: S311 (no secret)
        years.append(_next_year(rng, number, years[-1] if years else None, settings.posts))
    return years


def _next_year(rng: Random, number: int, before: Year | None, first_posts: int) -> Year:
    if before is None:
        posts = _upload(rng, number, 0, first_posts)
        fresh = frozenset(post.id for post in posts)
        return Year(
            number=number,
            posts=tuple(posts),
            fresh=fresh,
            changed=frozenset(),
            removed=frozenset(),
        )
    old = {post.id: post for post in before.posts}
    removed = _some(rng, list(old), _REMOVED_SHARE)
    kept = {post_id: post for post_id, post in old.items() if post_id not in removed}
    changed = _change(rng, number, kept)
    added = _upload(rng, number, max(old), max(1, round(len(old) * _NEW_SHARE)))
    return Year(
        number=number,
        posts=(*(changed.get(post.id, post) for post in kept.values()), *added),
        fresh=frozenset(post.id for post in added),
        changed=frozenset(changed),
        removed=frozenset(removed),
    )


def _some(rng: Random, ids: list[int], share: float) -> set[int]:
    """A share of the ids; one at least unless that would be all of them."""
    return set(rng.sample(ids, min(len(ids) - 1, max(1, round(len(ids) * share)))))


def _upload(rng: Random, number: int, last_id: int, count: int) -> list[Post]:
    """New posts of one year: ids after ``last_id`` with gaps, times from January to December."""
    start = calendar.timegm((number, 1, 2, 0, 0, 0))
    step = 360 * 86_400 / count
    posts = []
    for index in range(count):
        last_id += rng.choices((1, 2, 3, 7), weights=(70, 20, 8, 2))[0]
        at = start + int(step * (index + rng.random()))
        extension = rng.choices(list(_EXTENSIONS), weights=list(_EXTENSIONS.values()))[0]
        posts.append(Post(id=last_id, extension=extension, created_at=at, updated_at=at))
    return posts


def _change(rng: Random, number: int, kept: dict[int, Post]) -> dict[int, Post]:
    """Posts whose file is another one this year: renamed to PNG, edited or optimised again."""
    at = calendar.timegm((number, 11, 1, 0, 0, 0))
    photos = [post.id for post in kept.values() if post.extension == "jpg" and not post.crunched]
    rng.shuffle(photos)
    count = min(len(photos), max(_RENAMED + 2, round(len(kept) * _CHANGED_SHARE)))
    changed = {}
    for place, post_id in enumerate(photos[:count]):
        post = replace(kept[post_id], updated_at=at + 3600 * place)
        if place < _RENAMED:
            changed[post_id] = replace(post, extension="png")
        elif place % 2:
            changed[post_id] = replace(post, border=rng.choice(_BORDERS))
        else:
            changed[post_id] = replace(post, crunched=True)
    return changed
