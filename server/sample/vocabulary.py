"""The sample's tags as a site would keep them: categories, aliases, implications and pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from server.sample.cast import CAST, SERIES
from server.sample.drawing import ARTISTS

GENERAL, ARTIST, COPYRIGHT, CHARACTER, META = 0, 1, 3, 4, 5
CATEGORY_NAMES = {
    GENERAL: "general",
    ARTIST: "artist",
    COPYRIGHT: "copyright",
    CHARACTER: "character",
    META: "meta",
}
_CATEGORIES = {
    **dict.fromkeys(ARTISTS, ARTIST),
    **dict.fromkeys((one.name for one in CAST if one.name), CHARACTER),
    SERIES: COPYRIGHT,
    **dict.fromkeys(("animated", "animated_gif"), META),
}
# Other words for tags, and whether the alias is in force; the last two must change nothing.
ALIASES = (
    ("kitty", "cat", "active"),
    ("bunny", "rabbit", "active"),
    ("puppy", "dog", "active"),
    ("sea", "ocean", "active"),
    ("four_panel_comic", "4koma", "active"),
    ("grayscale", "greyscale", "active"),
    ("dusk", "sunset", "deleted"),
    ("pond", "ocean", "retired"),
)
_WIDER = (
    ("cat", "animal"),
    ("fox", "animal"),
    ("rabbit", "animal"),
    ("sailboat", "watercraft"),
    ("fruit", "food"),
    ("cake", "food"),
    ("house", "building"),
    ("lighthouse", "building"),
)
_POOL_SIZE = 60


class Pool(Struct, frozen=True, kw_only=True):
    """An ordered collection: the posts that have all of some tags."""

    id: int
    name: str
    category: str
    tags: frozenset[str]
    newest_first: bool = False

    def members(self, tags_of: Mapping[int, frozenset[str]]) -> list[int]:
        """The ids of the pool in its own order, which is not always that of the ids."""
        found = [post_id for post_id, tags in tags_of.items() if self.tags <= tags]
        return sorted(found, reverse=self.newest_first)[:_POOL_SIZE]


POOLS = (
    Pool(id=1, name="Cats_at_Night", category="collection", tags=frozenset({"cat", "night"})),
    Pool(id=2, name="Adventures_of_Mochi", category="series", tags=frozenset({"mochi_(cat)"})),
    Pool(
        id=3,
        name="Postcards_from_the_Sea",
        category="collection",
        tags=frozenset({"ocean"}),
        newest_first=True,
    ),
    Pool(id=4, name="Little_Robots", category="collection", tags=frozenset({"robot"})),
    Pool(id=5, name="Four-Panel_Days", category="series", tags=frozenset({"4koma"})),
)


def category_of(tag: str) -> int:
    """The number of a tag's category, as Danbooru counts them."""
    return _CATEGORIES.get(tag, GENERAL)


def is_character(tag: str) -> bool:
    """Whether a tag names one of the recurring cast."""
    return category_of(tag) == CHARACTER


def implications(tags_of: Mapping[int, frozenset[str]]) -> list[tuple[str, str]]:
    """Pairs such as ``black_cat`` and ``cat``, where each post with the first has the second."""
    together: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    for tags in tags_of.values():
        counts.update(tags)
        together.update(_candidates(tags))
    return sorted(pair for pair, count in together.items() if count == counts[pair[0]])


def _candidates(tags: Iterable[str]) -> Iterable[tuple[str, str]]:
    held = set(tags)
    for tag in held:
        _, underscore, last = tag.rpartition("_")
        if underscore and last in held:
            yield tag, last
    for narrow, wide in _WIDER:
        if narrow in held and wide in held:
            yield narrow, wide


class TagNumbers:
    """Ids of tags that stay what they are from year to year: given at first sight, then kept."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def learn(self, tags: Iterable[str]) -> None:
        """Number the tags not seen before."""
        for tag in sorted(set(tags) - self._ids.keys()):
            self._ids[tag] = 101 + len(self._ids)

    def __getitem__(self, tag: str) -> int:
        return self._ids[tag]
