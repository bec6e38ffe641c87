"""Which predicate each metatag is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from manifests.query import comparisons, lookups, traits
from manifests.query.ast import Metatag
from manifests.query.errors import QueryError
from manifests.query.metatags import METATAGS, Kind
from manifests.query.predicates import Moment, Predicate
from manifests.query.values import read_condition

_NAMED: Final[Mapping[str, Callable[[Metatag], Predicate]]] = {
    "rating": traits.rating,
    "filetype": traits.filetype,
    "status": traits.status,
    "parent": traits.parent,
    "child": traits.child,
    "is": traits.is_a,
    "has": traits.has_a,
    "embedded": traits.embedded,
    "user": traits.person("uploader_id"),
    "approver": traits.person("approver_id"),
    "pool": lookups.pool,
    "source": lookups.source,
}


def make_predicate(word: Metatag, moment: Moment) -> Predicate:
    """What a metatag asks; QueryError if no release can answer it."""
    spec = METATAGS[word.name]
    if spec.lacks:
        expected, got = "a metatag that a release can answer", f"{word.name}:"
        hint = f"A release does not have {spec.lacks}; leave {got} out."
        raise QueryError(word.position, expected, got, hint)
    if word.name in _NAMED:
        return _NAMED[word.name](word)
    condition = read_condition(spec.kind, word.value, now=moment.now, tz=moment.tz)
    if spec.kind is Kind.MD5:
        return comparisons.md5(condition)
    return comparisons.comparison(word.name, condition)
