"""Five million posts, or files, as one numpy table: a packed row each, by ascending id.

A row has no text: an extension is an index into ``extensions``.  Rows of several parts (files of
metadata, buckets) are joined by :func:`join`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import U32, Bools

Rows = npt.NDArray[np.void]
Places = npt.NDArray[np.intp]

# Sizes in bytes, widths and heights in pixels; 0 is "not stated".
_SHARED = [("id", "u4"), ("width", "u4"), ("height", "u4"), ("size", "u8"), ("ext", "u4")]
# flags: DELETED and BANNED of server.audit.posts.
POST_ROW = np.dtype([*_SHARED, ("flags", "u1")])
# kind and problem: Kind and Problem of server.audit.content.
FILE_ROW = np.dtype([*_SHARED, ("kind", "u1"), ("problem", "u1")])


class Table(Struct, frozen=True, kw_only=True, eq=False):
    """Rows of POST_ROW or FILE_ROW, sorted by id, and the extensions they index."""

    rows: Rows
    extensions: tuple[str, ...]

    def __len__(self) -> int:
        """Rows."""
        return len(self.rows)

    @property
    def ids(self) -> U32:
        """The ids, ascending."""
        return self.column("id")

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column, as an array of its own."""
        return np.ascontiguousarray(self.rows[name])

    def extension(self, row: int) -> str:
        """The extension of one row, without the dot; empty if it is not stated."""
        return self.extensions[int(self.rows["ext"][row])]

    def find(self, ids: U32) -> tuple[Bools, Places]:
        """Which of the ids are here, and the places of those that are."""
        own = self.ids
        places = np.searchsorted(own, ids)
        known = places < len(own)
        known[known] = own[places[known]] == ids[known]
        return known, places[known]


def join(parts: Sequence[Table], dtype: np.dtype[np.void]) -> tuple[Rows, tuple[str, ...]]:
    """All rows, one part after another (not sorted), with one list of extensions."""
    names = dict.fromkeys(name for part in parts for name in part.extensions)
    codes = {name: code for code, name in enumerate(names)}
    rows, start = np.empty(sum(map(len, parts)), dtype), 0
    for part in parts:
        place = slice(start, start + len(part))
        rows[place] = part.rows
        if part.extensions != tuple(names)[: len(part.extensions)]:
            new = np.array([codes[name] for name in part.extensions], np.uint32)
            rows["ext"][place] = new[part.rows["ext"]]
        start = place.stop
    return rows, tuple(names)
