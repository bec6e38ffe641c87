"""What is about to be fetched: files and bytes by variant, extension and rating."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import I64, U32, U64
from manifests.metadata.columns import RATINGS
from syncclient.settling import Work

Codes: TypeAlias = npt.NDArray[np.integer[Any]]
_NOTHING: Final[I64] = np.zeros(2, np.int64)


class Share(Struct, frozen=True, kw_only=True):
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

    def add(by: str, names: Sequence[str], codes: Codes, sizes: U64) -> None:
        files = np.bincount(codes, minlength=len(names))
        # Doubles count exactly up to 2**53 bytes, more than a bucket holds.
        size_bytes = np.bincount(codes, sizes, minlength=len(names))
        for code in np.flatnonzero(files).tolist():
            more = np.array([files[code], size_bytes[code]], np.int64)
            sums[by, names[code]] = sums.get((by, names[code]), _NOTHING) + more

    for work in works:
        fetch = work.fetch
        add("variant", [work.variant], np.zeros(len(fetch), np.uint8), fetch.sizes)
        add("extension", fetch.extensions, fetch.exts, fetch.sizes)
        if ratings is not None:
            codes = _codes(fetch.ids, *ratings).astype(np.intp)
            add("rating", [rating or "none" for rating in RATINGS], codes, fetch.sizes)
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
