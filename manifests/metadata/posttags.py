"""The tags of posts, from any of the forms that rows give them in.

* ``tag_string``: names apart by spaces; ``tag_string_general`` and its sisters tell categories,
  and stand for all tags where ``tag_string`` itself is left out;
* ``tags``: objects with name and category, as before 2021;
* ``tags``: names alone, with ``tag_categories`` (name to number) beside them if there are any.

Names become codes in the order in which a block first has them; a post has each tag once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import count, repeat
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from manifests.columns import I64, U8, U32
from manifests.metadata.columns import CATEGORIES, UNKNOWN_CATEGORY
from manifests.metadata.faults import shown
from manifests.metadata.fields import numbers
from manifests.metadata.lines import LineRows, Row

CATEGORY_CODES: Mapping[Any, int] = {
    **{number: number for number in CATEGORIES},
    **{str(number): number for number in CATEGORIES},
}
_STRINGS = {f"tag_string_{name}": number for number, name in CATEGORIES.items()}
_GENERAL = 0
_MAX_COUNT = 2**16 - 1

Categories = dict[str, int]


class PostTags(Struct, frozen=True, kw_only=True, eq=False):
    """Tags of n posts, as in PostBatch."""

    names: tuple[str, ...]
    categories: U8
    counts: U32
    codes: U32


class _NamedTags(NamedTuple):
    """What `tags` of objects say, in less room."""

    names: list[str]
    categories: list[int]


def shrink_tags(row: Row) -> None:
    """Replace `tags`, if it is a list of objects that are all as they should be."""
    tags = row.get("tags")
    if type(tags) is not list or not tags:
        return
    try:
        names = [tag["name"] for tag in tags]
        categories = [CATEGORY_CODES[tag["category"]] for tag in tags]
    except (KeyError, TypeError):
        return
    if set(map(type, names)) == {str} and all(names):
        row["tags"] = _NamedTags(names, categories)


def read_tags(rows: LineRows) -> PostTags:
    """All tags of a block of rows, which were read with :func:`shrink_tags`."""
    categories: Categories = {}
    names: list[str] = []
    counts = []
    strings = rows.values("tag_string")
    for place, (row, string) in enumerate(zip(rows.rows, strings, strict=True)):
        mine = string.split() if type(string) is str else _other_form(rows, place, row, categories)
        names += mine
        counts.append(len(mine))
    _learn_from_strings(rows, categories)
    codes: defaultdict[str, int] = defaultdict(count().__next__)
    assigned = np.fromiter(map(codes.__getitem__, names), np.int64, len(names))
    known = map(categories.get, codes, repeat(UNKNOWN_CATEGORY))
    counted, kept = _each_once(np.array(counts, np.int64), assigned)
    return PostTags(
        names=tuple(codes),
        categories=np.fromiter(known, np.uint8, len(codes)),
        counts=counted.astype(np.uint32),
        codes=kept.astype(np.uint32),
    )


def _each_once(counts: I64, codes: I64) -> tuple[I64, I64]:
    """Take out tags that a post has had already."""
    posts = np.repeat(np.arange(len(counts)), counts)
    keys = (posts << 32) | codes
    ordered = np.sort(keys)
    if not np.any(ordered[1:] == ordered[:-1]):
        return counts, codes
    _, first = np.unique(keys, return_index=True)
    first.sort()
    return np.bincount(posts[first], minlength=len(counts)), codes[first]


def _learn_from_strings(rows: LineRows, categories: Categories) -> None:
    """Categories from `tag_string_general` and so on."""
    for field, category in _STRINGS.items():
        values = rows.values(field)
        if not set(map(type, values)) <= {str, NoneType}:
            values = rows.one_by_one(field, values, _string, "")
        told = " ".join(filter(None, values)).split()
        categories.update(zip(told, repeat(category)))


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected names of tags, got {shown(value)}")  # noqa: TRY004 (one error)
    return value


def _other_form(rows: LineRows, place: int, row: Row, categories: Categories) -> list[str]:
    """The tags of a row without a readable `tag_string`."""
    if row.get("tag_string") is not None:
        rows.blame(place, "tag_string", f"expected text, got {shown(row['tag_string'])}")
    tags = row.get("tags")
    if type(tags) is _NamedTags:
        categories.update(zip(tags.names, tags.categories, strict=True))
        return tags.names
    if tags is None:
        strings = [row.get(field) for field in _STRINGS]
        return " ".join(text for text in strings if isinstance(text, str)).split()
    if isinstance(tags, str):
        return tags.split()
    if type(tags) is not list:
        rows.blame(place, "tags", f"expected a list, got {shown(tags)}")
        return []
    stated = row.get("tag_categories")
    if stated is not None:
        _learn_from_map(rows, place, stated, categories)
    return _from_any(rows, place, tags, categories)


def _from_any(rows: LineRows, place: int, tags: list[Any], categories: Categories) -> list[str]:
    """Names of a list of names and objects, without those that cannot be read."""
    names = []
    for tag in tags:
        stated = tag if isinstance(tag, dict) else {"name": tag}
        name, category = stated.get("name"), stated.get("category")
        if not isinstance(name, str) or not name.strip():
            rows.blame(place, "tags", f"expected a tag, got {shown(tag)}")
            continue
        spelt = spelling(name)
        names.append(spelt)
        if category is not None:
            _learn(rows, place, spelt, category, categories)
    return names


def _learn_from_map(rows: LineRows, place: int, stated: object, categories: Categories) -> None:
    if not isinstance(stated, dict):
        rows.blame(place, "tag_categories", f"expected an object, got {shown(stated)}")
        return
    for name, category in stated.items():
        _learn(rows, place, spelling(name), category, categories)


def _learn(
    rows: LineRows, place: int, name: str, category: object, categories: Categories
) -> None:
    code = CATEGORY_CODES.get(category) if type(category) in {int, str} else None
    if code is None:
        rows.blame(place, "tags", f"{name[:40]}: expected a category, got {shown(category)}")
    else:
        categories[name] = code


def spelling(name: str) -> str:
    """A tag as a query can spell it: in lower case, with underscores for spaces."""
    return "_".join(name.lower().split())


def count_categories(rows: LineRows, tags: PostTags) -> Iterable[tuple[str, I64]]:
    """The columns `tags_general` and so on: as rows state them, else as the tags are."""
    known = tags.categories.copy()
    known[known == UNKNOWN_CATEGORY] = _GENERAL
    posts = np.repeat(np.arange(len(rows)), tags.counts)
    for category, name in CATEGORIES.items():
        stated = numbers(rows, f"tag_count_{name}", 0, _MAX_COUNT, null=-1)
        if np.any(stated < 0):
            own = np.bincount(posts[known[tags.codes] == category], minlength=len(rows))
            stated = np.where(stated < 0, np.minimum(own, _MAX_COUNT), stated)
        yield f"tags_{name}", stated
