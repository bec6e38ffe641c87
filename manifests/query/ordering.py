"""The order of results, and which of them: ``order:``, ``ordpool:``, ``random:``, ``limit:``.

Posts that are equal come by id in the same direction; posts without a value come last, whatever
the direction.  Chance is drawn from a seed: the number of a post is eight bytes of BLAKE3's output
over the seed, at eight times the id, so ``random:100`` draws the same posts of a larger release
but for those that lose to newcomers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace
from pyroaring import BitMap

from manifests.columns import I64, U32, U64, Bools
from manifests.digest import keystream
from manifests.query.comparisons import measured
from manifests.query.lookups import find_pools
from manifests.query.metatags import ORDERS, Order
from manifests.query.normal import Query
from manifests.query.predicates import POOLS, Moment, Rows, require_columns
from manifests.tagindex.bitmaps import to_numbers
from manifests.tagindex.index import TagIndex

Keys = npt.NDArray[Any]

_DAY_S: Final = 86400
_RANKED_DAYS: Final = 2
# The day the site began, from which `order:rank` counts: 2005-05-24, in its own time zone.
_FIRST_DAY_S: Final = 1116908000
_RANK_S: Final = 35000
_DRAW_BYTES: Final = 8
_DRAWN_AT_ONCE: Final = 65536


def require_order(index: TagIndex, query: Query) -> None:
    """Note in the index what the order needs and is not loaded."""
    match query.order.name:
        case "md5":
            index.posts_by_md5()
        case "random" | "custom" | "id":
            index.column("id")
        case "pool":
            require_columns(index, ("id", POOLS))
        case "rank":
            require_columns(index, ("id", *ORDERS["rank"].columns))
        case name:
            require_columns(index, ("id", *measured(name)[1]))


def arrange(index: TagIndex, found: BitMap, query: Query, moment: Moment, seed: bytes) -> U32:
    """The ids of the found posts in the order of the query, as many as it asks for."""
    ordinals = to_numbers(found)
    if query.random is not None:
        drawn = draw(seed, index.ids[ordinals])
        least = np.sort(np.argsort(drawn, kind="stable")[: query.random])
        ordinals = ordinals[least]
    arranged = _ORDERS.get(query.order.name, _measured)(
        _Asked(Rows(index=index, ordinals=ordinals), query, moment, seed)
    )
    return arranged[: query.limit]


class _Asked:
    """The posts to be put in order, and how."""

    def __init__(self, rows: Rows, query: Query, moment: Moment, seed: bytes) -> None:
        self.rows = rows
        self.query = query
        self.order: Order = query.order
        self.moment = moment
        self.seed = seed

    @property
    def ids(self) -> U32:
        """Their ids, ascending."""
        return self.rows.ids

    def by(self, keys: Keys, null: Bools | None = None) -> U32:
        """The ids by ascending or descending keys, those without one last; the first are enough.

        With a ``limit`` it is those that may be among the first so many which are sorted.
        """
        first, rows = self._may_be_first(keys, null), self.rows
        known = np.zeros(len(keys), np.bool_) if null is None else null
        if first is not None:
            rows = replace(rows, ordinals=rows.ordinals[first])
            keys, known = keys[first], known[first]
        ids = rows.ids
        direction = 1 if self.order.ascending else -1
        signed = keys.astype(np.float64 if keys.dtype.kind == "f" else np.int64) * direction
        return ids[np.lexsort((ids.astype(np.int64) * direction, signed, known))]

    def _may_be_first(self, keys: Keys, null: Bools | None) -> I64 | None:
        """The places of all keys that are as far in front as the last one that is asked for."""
        limit = self.query.limit
        stated = keys if null is None else keys[~null]
        if keys.dtype.kind not in "iu" or not limit or limit >= len(stated):
            return None
        last = limit - 1 if self.order.ascending else len(stated) - limit
        bound = np.partition(stated, last)[last]
        first: Bools = keys <= bound if self.order.ascending else keys >= bound
        return np.flatnonzero(first if null is None else first & ~null)


def _by_id(asked: _Asked) -> U32:
    return asked.ids if asked.order.ascending else asked.ids[::-1]


def _measured(asked: _Asked) -> U32:
    numbers, _ = measured(asked.order.name)
    return asked.by(*numbers(asked.rows))


def _by_md5(asked: _Asked) -> U32:
    index = asked.rows.index
    place = np.full(index.posts, -1, np.int64)
    by_md5 = index.posts_by_md5()
    place[by_md5] = np.arange(len(by_md5))
    mine = place[asked.rows.ordinals]
    return asked.by(mine, mine < 0)


def _by_rank(asked: _Asked) -> U32:
    """What is liked of the last two days, the newer the better."""
    rows = asked.rows
    score, created_s = rows.column("score"), rows.column("created_at")
    earliest_s = asked.moment.now.timestamp() - _RANKED_DAYS * _DAY_S
    ranked = (score > 0) & (created_s >= earliest_s)
    kept = _Asked(
        Rows(index=rows.index, ordinals=rows.ordinals[ranked]),
        asked.query,
        asked.moment,
        asked.seed,
    )
    likes = np.log(score[ranked].astype(np.float64)) / np.log(3)
    return kept.by(likes + (created_s[ranked] - _FIRST_DAY_S) / _RANK_S)


def _by_chance(asked: _Asked) -> U32:
    return asked.ids[np.argsort(draw(asked.seed, asked.ids), kind="stable")]


def _as_listed(asked: _Asked) -> U32:
    """In the order of the query's own list of ids; nothing where it has none."""
    return _in_order(np.array(asked.query.custom_ids, np.int64), asked.ids)


def _in_pool(asked: _Asked) -> U32:
    pools = asked.rows.index.pools()
    places = np.flatnonzero(find_pools(pools, asked.order.pool)).tolist()
    members = [pools.members(place) for place in places]
    return _in_order(np.concatenate([np.empty(0, np.uint32), *members]), asked.ids)


def _in_order(wanted: U32 | I64, ids: U32) -> U32:
    """Those of ``wanted`` that are among ``ids``, each once, in their order."""
    here = wanted[np.isin(wanted, ids)]
    _, first = np.unique(here, return_index=True)
    return here[np.sort(first)].astype(np.uint32)


_ORDERS: Final[Mapping[str, Callable[[_Asked], U32]]] = {
    "id": _by_id,
    "md5": _by_md5,
    "rank": _by_rank,
    "random": _by_chance,
    "custom": _as_listed,
    "pool": _in_pool,
}


def draw(seed: bytes, ids: U32) -> U64:
    """The number that a seed gives each id; ids ascend."""
    drawn = np.empty(len(ids), np.uint64)
    blocks = ids // np.uint32(_DRAWN_AT_ONCE)
    for block in np.unique(blocks).tolist():
        start, stop = np.searchsorted(blocks, [block, block + 1])
        size_bytes = _DRAWN_AT_ONCE * _DRAW_BYTES
        numbers = np.frombuffer(keystream(seed, block * size_bytes, size_bytes), "<u8")
        drawn[start:stop] = numbers[ids[start:stop] % np.uint32(_DRAWN_AT_ONCE)]
    return drawn
