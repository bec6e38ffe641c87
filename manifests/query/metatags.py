"""The metatags: how each is spelled, how its value is read, and what of a dataset it asks.

A name of this table before a colon is a metatag wherever it stands, also one that no dataset can
answer (``fav:``): read as a tag it would match nothing, without a word to the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from msgspec import Struct


class Kind(Enum):
    """How a value is read.  All up to DURATION are conditions on numbers (``values``)."""

    INTEGER = auto()
    FLOAT = auto()
    MD5 = auto()
    DATE = auto()
    AGE = auto()
    RATIO = auto()
    FILESIZE = auto()
    DURATION = auto()
    # Words, any of which may hold.
    ENUM = auto()
    # One word or text, with a meaning of its own for each metatag.
    TEXT = auto()
    # Asks for an order or a number of results, or that and a filter (`ordpool`).
    RESULT = auto()


class Spec(Struct, frozen=True):
    """One metatag.

    ``columns`` of the dataset that it reads; none where it asks for ids, tags, sources or pools.
    ``lacks`` names what a release does not have and the metatag cannot do without; else empty.
    """

    kind: Kind
    columns: tuple[str, ...] = ()
    lacks: str = ""


_TAG_COUNTS = {
    "gentags": "tags_general",
    "arttags": "tags_artist",
    "copytags": "tags_copyright",
    "chartags": "tags_character",
    "metatags": "tags_meta",
}
_SIZE = ("image_width", "image_height")
# Counters that follow from the posts and the pools; the others count rows that no release has.
_KNOWN_COUNTERS = {
    "child_count": ("parent_id",),
    "deleted_child_count": ("parent_id", "flags"),
    "active_child_count": ("parent_id", "flags"),
    "pool_count": (),
    "series_pool_count": (),
    "collection_pool_count": (),
}
_UNKNOWN_COUNTERS = {
    "comment_count": "comments",
    "deleted_comment_count": "comments",
    "active_comment_count": "comments",
    "note_count": "notes",
    "deleted_note_count": "notes",
    "active_note_count": "notes",
    "flag_count": "flags",
    "deleted_pool_count": "the states of pools",
    "active_pool_count": "the states of pools",
    "appeal_count": "appeals",
    "approval_count": "approvals",
    "replacement_count": "replacements",
    "disapproval_count": "disapprovals",
}
_SITE_ONLY = {
    "note": "the texts of notes",
    "comment": "comments",
    "commentary": "commentaries",
    "fav": "favourites",
    "ordfav": "favourites",
    "favgroup": "favourite groups",
    "ordfavgroup": "favourite groups",
    "upvote": "votes",
    "downvote": "votes",
    "commenter": "comments",
    "noter": "notes",
    "flagger": "flags",
    "appealer": "appeals",
    "artcomm": "commentaries",
    "search": "saved searches",
    "disapproved": "disapprovals",
    "reacted": "reactions",
    "exif": "the metadata inside files",
    "ai": "tags guessed by a machine",
    "pixelhash": "hashes of pixels",
}

_PLURALS = {
    name.removesuffix("_count").replace("child", "children")
    + ("" if name.endswith("child_count") else "s"): name
    for name in (*_KNOWN_COUNTERS, *_UNKNOWN_COUNTERS)
}

_CANONICAL: Mapping[str, Spec] = {
    "id": Spec(Kind.INTEGER),
    "md5": Spec(Kind.MD5, ("md5",)),
    "width": Spec(Kind.INTEGER, ("image_width",)),
    "height": Spec(Kind.INTEGER, ("image_height",)),
    "mpixels": Spec(Kind.FLOAT, _SIZE),
    "ratio": Spec(Kind.RATIO, _SIZE),
    "score": Spec(Kind.INTEGER, ("score",)),
    "upvotes": Spec(Kind.INTEGER, ("up_score",)),
    # Asked without the sign that the column has.
    "downvotes": Spec(Kind.INTEGER, ("down_score",)),
    "favcount": Spec(Kind.INTEGER, ("fav_count",)),
    "filesize": Spec(Kind.FILESIZE, ("file_size",)),
    "filetype": Spec(Kind.ENUM, ("file_ext",)),
    "date": Spec(Kind.DATE, ("created_at",)),
    "age": Spec(Kind.AGE, ("created_at",)),
    "pixiv": Spec(Kind.INTEGER, ("pixiv_id",)),
    "pixiv_id": Spec(Kind.INTEGER, ("pixiv_id",)),
    "tagcount": Spec(Kind.INTEGER, tuple(_TAG_COUNTS.values())),
    **{name: Spec(Kind.INTEGER, (column,)) for name, column in _TAG_COUNTS.items()},
    "rating": Spec(Kind.ENUM, ("rating",)),
    "source": Spec(Kind.TEXT),
    "status": Spec(Kind.TEXT, ("flags",)),
    "parent": Spec(Kind.TEXT, ("parent_id", "flags")),
    "child": Spec(Kind.TEXT, ("parent_id", "flags")),
    "is": Spec(Kind.TEXT, ("rating", "flags", "parent_id", "file_ext")),
    "has": Spec(Kind.TEXT, ("flags", "parent_id")),
    "pool": Spec(Kind.TEXT),
    "ordpool": Spec(Kind.RESULT),
    "embedded": Spec(Kind.TEXT, ("flags",)),
    "duration": Spec(Kind.DURATION, ("duration_ms",)),
    "unaliased": Spec(Kind.TEXT),
    "user": Spec(Kind.TEXT, ("uploader_id",)),
    "approver": Spec(Kind.TEXT, ("approver_id",)),
    "order": Spec(Kind.RESULT),
    "limit": Spec(Kind.RESULT),
    "random": Spec(Kind.RESULT),
    **{name: Spec(Kind.INTEGER, columns) for name, columns in _KNOWN_COUNTERS.items()},
    **{name: Spec(Kind.INTEGER, (), lacks) for name, lacks in _UNKNOWN_COUNTERS.items()},
    **{name: Spec(Kind.TEXT, (), lacks) for name, lacks in _SITE_ONLY.items()},
}

# Every spelling in lower case.
METATAGS: Mapping[str, Spec] = {
    **_CANONICAL,
    **{plural: _CANONICAL[name] for plural, name in _PLURALS.items()},
}


class Order(Struct, frozen=True):
    """The order of results; equal posts by id, in the same direction.

    ``name`` is one of :data:`ORDERS`.  ``pool`` is the value of ``ordpool:`` where results come in
    the order of a pool.
    """

    name: str = "id"
    ascending: bool = False
    pool: str = ""


_COUNTERS = (*_KNOWN_COUNTERS, *_UNKNOWN_COUNTERS)
_SORTED_AS_NAMED = (
    *("id", "md5", "score", "favcount", "upvotes", "downvotes", "mpixels", "filesize", "duration"),
    *("tagcount", *_TAG_COUNTS, *_COUNTERS),
)
# What sorts by a number, in either direction.  `downvotes` are counted without their sign.
_SORTED: Mapping[str, Spec] = {
    **{name: _CANONICAL[name] for name in _SORTED_AS_NAMED},
    "created_at": Spec(Kind.DATE, ("created_at",)),
    "change": Spec(Kind.DATE, ("updated_at",)),
    "comment": Spec(Kind.DATE, ("last_commented_at",)),
    "comment_bumped": Spec(Kind.DATE, ("last_comment_bumped_at",)),
    "note": Spec(Kind.DATE, ("last_noted_at",)),
    "artcomm": Spec(Kind.DATE, (), "commentaries"),
}

# Every order that there is.  `landscape` is width by height; `custom` is the order of the query's
# own list of ids, `pool` that of a pool.
ORDERS: Mapping[str, Spec] = {
    **_SORTED,
    "landscape": Spec(Kind.FLOAT, _SIZE),
    "rank": Spec(Kind.FLOAT, ("score", "created_at")),
    "random": Spec(Kind.RESULT),
    "custom": Spec(Kind.RESULT),
    "pool": Spec(Kind.RESULT),
}
# Names that say their direction; `id` alone is from the oldest on, as the site has it.
_DIRECTED: Mapping[str, Order] = {
    "id": Order("id", ascending=True),
    "portrait": Order("landscape", ascending=True),
    "landscape": Order("landscape"),
    "rank": Order("rank"),
    "random": Order("random"),
    "custom": Order("custom"),
}


def canonical_name(name: str) -> str:
    """The name of a metatag in place of a plural (``notes`` is ``note_count``)."""
    return _PLURALS.get(name, name)


def canonical_value(name: str, value: str) -> str:
    """The value, where it is the name of an order without its plural; others as they are."""
    base, suffix = _split_order(value.lower())
    return _PLURALS[base] + suffix if name == "order" and base in _PLURALS else value


def parse_order(value: str) -> Order:
    """The order that ``order:value`` names; by id, the newest first, if there is none such."""
    name = canonical_value("order", value).lower()
    base, suffix = _split_order(name)
    if name in _DIRECTED:
        return _DIRECTED[name]
    return Order(base, ascending=suffix == "_asc") if base in _SORTED else Order()


def _split_order(name: str) -> tuple[str, str]:
    suffix = next((end for end in ("_asc", "_desc") if name.endswith(end)), "")
    return name.removesuffix(suffix), suffix
