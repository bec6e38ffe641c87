"""Which posts match: a query's tree over bitmaps of tags and columns of posts.

Tags and groups become bitmaps.  A metatag is a condition on columns; it is asked last, and only of
the posts that everything beside it left over.  There is no loop over posts.

Truth has three values, as in SQL, on which the site's meaning rests: a post whose pixiv id is not
known matches neither ``pixiv:>100`` nor ``-pixiv:>100``.  So a minus is never carried out as "the
others" but handed down to the words, each of which knows what fails it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Final

import numpy as np
from pyroaring import BitMap

from manifests.columns import I64
from manifests.query.ast import All, And, Metatag, Node, Not, Nothing, Opt, Or, Tag, Wildcard
from manifests.query.meaning import make_predicate
from manifests.query.predicates import Moment, Predicate, Rows
from manifests.query.wildcards import compile_wildcard
from manifests.tagindex.bitmaps import to_bitmap, to_numbers
from manifests.tagindex.index import FramesMissing, TagIndex

# The order in which the words of a list are asked: what is cheap and leaves little comes first.
_COST: Final[dict[type[Node], int]] = {
    All: 0,
    Nothing: 0,
    Tag: 1,
    Wildcard: 2,
    Or: 3,
    And: 3,
    Not: 3,
    Metatag: 4,
}
Check = Callable[[], None]


class Evaluation:
    """One query's evaluation on one index; :meth:`require` all it needs, then :meth:`matches`."""

    def __init__(self, index: TagIndex, moment: Moment, check: Check = lambda: None) -> None:
        """``check`` is called between steps, and ends a search that has taken too long."""
        self._index = index
        self._moment = moment
        self._check = check
        self._predicates: dict[Metatag, Predicate] = {}
        self._matching: dict[Wildcard, I64] = {}

    # ----------------------------------------------------------------- what is needed

    def require(self, node: Node) -> None:
        """Note in the index every frame that :meth:`matches` will need and does not have.

        To be repeated with these loaded: names lead to aliases, and those to posting lists.
        """
        for word in words(node):
            with suppress(FramesMissing):
                match word:
                    case Metatag():
                        self._predicate(word).require(self._index)
                    case Tag() | Wildcard():
                        self._index.require_postings(self._tags(word))
            self._check()

    def _predicate(self, word: Metatag) -> Predicate:
        found = self._predicates.get(word)
        if found is None:
            found = self._predicates[word] = make_predicate(word, self._moment)
        return found

    # ----------------------------------------------------------------- tags

    def _tags(self, word: Tag | Wildcard) -> I64:
        """The numbers of the tags that a word stands for, ascending."""
        if isinstance(word, Tag):
            tag = self._index.find_tag(word.name)
            return np.array([] if tag is None else [tag], np.int64)
        found = self._matching.get(word)
        if found is None:
            found = self._matching[word] = np.fromiter(self._matches_of(word.pattern), np.int64)
        return found

    def _matches_of(self, pattern: str) -> Iterator[int]:
        """The tags that have posts and a name of this pattern."""
        prefix, regex = compile_wildcard(pattern)
        for first, names in self._index.scan_names(prefix):
            self._check()
            counts = names.counts.tolist()
            for place, name in enumerate(names.names):
                if counts[place] and regex.fullmatch(name):
                    yield first + place

    def _posting(self, word: Tag | Wildcard) -> BitMap:
        tags = self._tags(word)
        if len(tags) == 1:
            return self._index.posting(int(tags[0]))
        return self._index.union_of(tags, self._check)

    # ----------------------------------------------------------------- posts

    def matches(  # noqa: PLR0911 (a case for each kind of node)
        self, node: Node, within: BitMap, *, failing: bool = False
    ) -> BitMap:
        """The posts of ``within`` for which the query is true, or with ``failing`` false.

        ``node`` is normal: without ``~``, aliases resolved.
        """
        self._check()
        match node:
            case All():
                return BitMap() if failing else within
            case Nothing():
                return within if failing else BitMap()
            case Tag() | Wildcard():
                found = self._posting(node)
                return within - found if failing else within & found
            case Metatag():
                return self._holding(node, within, failing=failing)
            case Opt(child):
                return self.matches(child, within, failing=failing)
            case Not(child):
                return self.matches(child, within, failing=not failing)
            case And(children):
                return self._list(children, within, every=not failing, failing=failing)
            case Or(children):
                return self._list(children, within, every=failing, failing=failing)

    def _list(
        self, children: Iterable[Node], within: BitMap, *, every: bool, failing: bool
    ) -> BitMap:
        """Posts for which ``every`` child, else any, is true (or all are ``failing``)."""
        ordered = sorted(children, key=lambda child: _COST[type(child)])
        if every:
            for child in ordered:
                within = self.matches(child, within, failing=failing)
                if not within:
                    break
            return within
        found = BitMap()
        for child in ordered:
            # What was found already need not be asked again.
            found |= self.matches(child, within - found, failing=failing)
        return found

    def _holding(self, word: Metatag, within: BitMap, *, failing: bool) -> BitMap:
        if not within:
            return within
        rows = Rows(index=self._index, ordinals=to_numbers(within), check=self._check)
        mask = self._predicate(word).test(rows, failing)
        return to_bitmap(rows.ordinals[mask])


def words(node: Node) -> Iterator[Tag | Wildcard | Metatag]:
    """The words of a query, wherever they stand in it."""
    match node:
        case Tag() | Wildcard() | Metatag():
            yield node
        case Not(child):
            yield from words(child)
        case And(children) | Or(children):
            for child in children:
                yield from words(child)
