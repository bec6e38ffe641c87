"""A search from its text to ids, on any tag index, wherever its frames come from.

::

    search = Search(parse("1girl solo rating:s"), index, moment)
    while frames := search.missing():
        index.load(await fetch(frames))
    ids = search.run()
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from pyroaring import BitMap

from manifests.columns import U32
from manifests.framed import FrameKey
from manifests.query.ast import Metatag, Node
from manifests.query.evaluate import Evaluation, words
from manifests.query.meaning import make_predicate
from manifests.query.normal import Query, normalize
from manifests.query.ordering import arrange, require_order
from manifests.query.predicates import Moment
from manifests.tagindex.bitmaps import to_bitmap
from manifests.tagindex.index import FramesMissing, TagIndex


def check(tree: Node) -> None:
    """QueryError, with the place, if no release can answer the query of a tree."""
    epoch = Moment(now=datetime.fromtimestamp(0, UTC), tz=UTC)
    for word in words(normalize(tree).filter):
        if isinstance(word, Metatag):
            make_predicate(word, epoch)


class Search:
    """One query on one index."""

    def __init__(
        self,
        tree: Node,
        index: TagIndex,
        moment: Moment,
        *,
        seed: bytes = b"",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """``seed`` decides what is random; ``check`` is called now and then, and may raise."""
        self._tree = tree
        self._index = index
        self._moment = moment
        self._seed = seed
        self._evaluation = Evaluation(index, moment, check)

    def missing(self) -> set[FrameKey]:
        """The frames to load next; none if :meth:`run` has all it needs.

        QueryError if no release can answer the query.
        """
        index = self._index
        index.wanted.clear()
        query = self._query()
        # What a word means is to be known before it is known what is needed for it.
        if not index.wanted:
            with suppress(FramesMissing):
                index.column("id")
            with suppress(FramesMissing):
                require_order(index, query)
            self._evaluation.require(query.filter)
        return set(index.wanted)

    def _query(self) -> Query:
        return normalize(self._tree, alias=self._alias, abbreviation=self._abbreviation)

    def _alias(self, name: str) -> str:
        with suppress(FramesMissing):
            return self._index.follow_alias(name)
        return name

    def _abbreviation(self, name: str) -> str:
        with suppress(FramesMissing):
            return self._index.expand_abbreviation(name)
        return name

    def run(self, among: U32 | None = None) -> U32:
        """The ids that match, in the order of the query; of some ids (ascending) if given."""
        index, query = self._index, self._query()
        if among is None:
            posts = BitMap(range(index.posts))
        else:
            posts = to_bitmap(index.ordinals_of(among))
        found = self._evaluation.matches(query.filter, posts)
        return arrange(index, found, query, self._moment, self._seed)
