"""What is about to be fetched: files and bytes by variant, extension and rating."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from manifests.columns import I64, U32, U64
from manifests.metadata.columns import RATINGS
from syncclient.settling import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Some of the files to be fetched; ``name`` is a variant, an extension or a rating."""

    by: str
    name: str
    files: int
    bytes: int


def breakdown(works: Iterable[Work], ratings: tuple[U32, U64] | None) -> list[Share]:
    """The shares of all that is to be fetched, each kind by descending bytes.

    ``ratings`` are ids, ascending, and the code of each in the tag index; None if not known.
    """
    sums: dict[tuple[str, str], I64] = {}

    def add(by: str, name: str, sizes: U64) -> None:
        if len(sizes):
            more = np.array([len(sizes), int(sizes.sum())], np.int64)
            sums[by, name] = sums.get((by, name), np.zeros(2, np.int64)) + more

    for work in works:
        fetch = work.fetch
        add("variant", work.variant, fetch.sizes)
        for code in np.unique(fetch.exts).tolist():
            add("extension", fetch.extensions[code], fetch.sizes[fetch.exts == code])
        if ratings is not None:
            codes = _codes(fetch.ids, *ratings)
            for code in np.unique(codes).tolist():
                add("rating", RATINGS[code] or "none", fetch.sizes[codes == code])
    shares = [
        Share(by=by, name=name, files=int(total[0]), bytes=int(total[1]))
        for (by, name), total in sums.items()
    ]
    kinds = ("variant", "extension", "rating")
    return sorted(shares, key=lambda share: (kinds.index(share.by), -share.bytes, share.name))


def _codes(wanted: U32, ids: U32, codes: U64) -> U64:
    """The codes of some ids; 0 for those that are unknown."""
    places = np.searchsorted(ids, wanted)
    known = places < len(ids)
    known[known] = ids[places[known]] == wanted[known]
    found = np.zeros(len(wanted), codes.dtype)
    found[known] = codes[places[known]]
    return found
