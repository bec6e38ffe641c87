"""Metatags whose value is a word: rating, file type, status, parents and children, users."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np

from manifests.columns import Bools
from manifests.metadata.columns import RATINGS, Column, Flag
from manifests.query.ast import Metatag
from manifests.query.errors import QueryError
from manifests.query.lookups import any_source, pool
from manifests.query.numbers import BadValueError, read_digits, read_integer
from manifests.query.predicates import Predicate, Rows, nothing, plain
from manifests.query.values import read_words

# What flags make a status; `active` and `any` are not made of flags that are set.
_STATUS: Final[Mapping[str, Flag]] = {
    "pending": Flag.PENDING,
    "flagged": Flag.FLAGGED,
    "deleted": Flag.DELETED,
    "banned": Flag.BANNED,
    # Appeals and disapprovals, which these also ask about, are in no release.
    "modqueue": Flag.PENDING | Flag.FLAGGED,
    "unmoderated": Flag.PENDING | Flag.FLAGGED,
}
_INACTIVE: Final = Flag.PENDING | Flag.DELETED | Flag.FLAGGED
_EVERY_STATUS: Final = frozenset({"any", "all"})
_RATING_NAMES: Final = ("general", "sensitive", "safe", "questionable", "explicit")
_RATING_SETS: Final[Mapping[str, str]] = {
    **{name: name[0] for name in _RATING_NAMES},
    "sfw": "gs",
    "nsfw": "qe",
}


def flagless(column: Column) -> Bools:
    """Every post, whatever its flags."""
    return np.ones(len(column), np.bool_)


def _by_rating(letters: Iterable[str]) -> Callable[[Rows], Bools]:
    codes = [RATINGS.index(letter) for letter in set(letters) if letter in RATINGS[1:]]
    return lambda rows: np.isin(rows.column("rating"), codes)


def rating(word: Metatag) -> Predicate:
    """Ratings by their first letters."""
    return plain(("rating",), _by_rating(part[:1] for part in read_words(word.value)))


def _by_extension(names: Iterable[str]) -> Callable[[Rows], Bools]:
    wanted = frozenset(names) - {""}

    def decide(rows: Rows) -> Bools:
        table = rows.index.extensions
        codes = [code for code, name in enumerate(table) if name.lower() in wanted]
        return np.isin(rows.column("file_ext"), codes)

    return decide


def filetype(word: Metatag) -> Predicate:
    """Extensions, in any case."""
    return plain(("file_ext",), _by_extension(read_words(word.value)))


def _flags_of_status(status: str) -> Callable[[Column], Bools] | None:
    """Which flags have a status; None for a word that is none."""
    if status in _EVERY_STATUS:
        return flagless
    if status == "active":
        return lambda flags: (flags & _INACTIVE) == 0
    if status in _STATUS:
        return lambda flags: (flags & _STATUS[status]) != 0
    return None


def _refuse_appeals(word: Metatag, value: str) -> None:
    if value == "appealed":
        raise QueryError(
            word.position, "a status that a release states", value, "A release has no appeals."
        )


def status(word: Metatag) -> Predicate:
    """One status; every post fails one that is none."""
    value = word.value.lower()
    _refuse_appeals(word, value)
    has_status = _flags_of_status(value)
    if has_status is None:
        return nothing()
    return plain(("flags",), lambda rows: has_status(rows.column("flags")))


def _has_parent(rows: Rows) -> Bools:
    return np.asarray(rows.column("parent_id") != 0)


def _has_children(rows: Rows) -> Bools:
    return np.asarray((rows.column("flags") & Flag.HAS_CHILDREN) != 0)


def _negation(decide: Callable[[Rows], Bools]) -> Callable[[Rows], Bools]:
    return lambda rows: ~decide(rows)


def parent(word: Metatag) -> Predicate:
    """``none``, ``any``, the status of the parent, or an id: that post and its children."""
    value = word.value.lower()
    _refuse_appeals(word, value)
    if value in {"none", "any"}:
        decide = _has_parent if value == "any" else _negation(_has_parent)
        return plain(("parent_id",), decide)
    has_status = _flags_of_status(value)
    if has_status is not None:
        return plain(("id", "parent_id", "flags"), _parent_with(has_status))
    try:
        number = read_integer(value)
    except BadValueError:
        return nothing()
    if number < 1:
        # No post has this id, and a column has 0 for none.
        return nothing()
    family = lambda rows: (rows.ids == number) | (rows.column("parent_id") == number)  # noqa: E731
    return plain(("id", "parent_id"), family)


def _parent_with(has_status: Callable[[Column], Bools]) -> Callable[[Rows], Bools]:
    def decide(rows: Rows) -> Bools:
        index = rows.index
        found = has_status(index.column("flags"))
        return np.isin(rows.column("parent_id"), index.ids[found])

    return decide


def child(word: Metatag) -> Predicate:
    """``none``, ``any``, or the status of some child."""
    value = word.value.lower()
    _refuse_appeals(word, value)
    if value in {"none", "any"}:
        decide = _has_children if value == "any" else _negation(_has_children)
        return plain(("flags",), decide)
    has_status = _flags_of_status(value)
    if has_status is None:
        return nothing()

    def with_status(rows: Rows) -> Bools:
        index = rows.index
        parents = index.column("parent_id")[has_status(index.column("flags"))]
        return np.isin(rows.ids, parents[parents > 0])

    return plain(("id", "parent_id", "flags"), with_status)


def is_a(word: Metatag) -> Predicate:
    """A family tie, a rating or a set of them, a status, or an extension."""
    value = word.value.lower()
    _refuse_appeals(word, value)
    if value == "wiki_image":
        hint = "A release does not have the wiki."
        raise QueryError(word.position, "is: of what a release holds", value, hint)
    if value == "parent":
        return plain(("flags",), _has_children)
    if value == "child":
        return plain(("parent_id",), _has_parent)
    if value in _RATING_SETS:
        return plain(("rating",), _by_rating(_RATING_SETS[value]))
    has_status = _flags_of_status(value)
    if has_status is not None:
        return plain(("flags",), lambda rows: has_status(rows.column("flags")))
    return plain(("file_ext",), _by_extension([value]))


_NOT_HELD: Final = frozenset(
    {"notes", "comments", "commentary", "appeals", "flags", "replacements"}
)


def has_a(word: Metatag) -> Predicate:
    """A parent, children, a source, a pool."""
    value = word.value.lower()
    if value == "parent":
        return plain(("parent_id",), _has_parent)
    if value in {"child", "children"}:
        return plain(("flags",), _has_children)
    if value == "source":
        return any_source()
    if value == "pools":
        return pool(Metatag("pool", "any", position=word.position))
    if value in _NOT_HELD:
        hint = f"A release does not have {value}."
        raise QueryError(word.position, "has: of what a release holds", value, hint)
    return nothing()


def embedded(word: Metatag) -> Predicate:
    """Whether notes are drawn into the picture."""
    wanted = {"true": True, "yes": True, "false": False, "no": False}.get(word.value.lower())
    if wanted is None:
        return nothing()
    decide = lambda rows: ((rows.column("flags") & Flag.EMBEDDED) != 0) == wanted  # noqa: E731
    return plain(("flags",), decide)


def person(column: str) -> Callable[[Metatag], Predicate]:
    """``#123``, ``any`` or ``none``; a release knows the numbers of users, not their names."""

    def make(word: Metatag) -> Predicate:
        value = word.value.lower()
        if value in {"any", "none"}:
            is_any = value == "any"
            return plain((column,), lambda rows: (rows.column(column) != 0) == is_any)
        number = read_digits(value.removeprefix("#"))
        if number is None:
            hint = f"A release knows users by number: {word.name}:#123."
            raise QueryError(word.position, "the number of a user", repr(word.value), hint)
        # Nobody has the number 0, which a column has for none.
        return (
            plain((column,), lambda rows: rows.column(column) == number) if number else nothing()
        )

    return make
