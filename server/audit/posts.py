"""What metadata says about every post, as one table: sorted by id, one row a post."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from manifests.columns import U32
from manifests.metadata.columns import Flag, PostBatch
from manifests.metadata.faults import BadRow, RowFault
from server.audit.tables import POST_ROW, Rows, Table

DELETED = 1
BANNED = 2
# Faults are all counted; this many of them are kept, to be shown.
MAX_BAD_ROWS = 1000


class PostTable(Table, frozen=True, kw_only=True, eq=False):
    """Posts (rows of POST_ROW).

    ``superseded`` are the ids of rows that a later row about the same post replaced.  ``faults``
    counts what was wrong with lines and files; ``bad_rows`` are the first of these, without hidden
    posts.
    """

    superseded: U32
    faults: Mapping[RowFault, int]
    bad_rows: tuple[BadRow, ...]


class PostCollector:
    """Makes a PostTable of batches, in the order they come and in the memory of that table."""

    def __init__(self) -> None:
        self._chunks = [np.empty(0, POST_ROW)]
        self._extensions: dict[str, int] = {}
        self._faults = Counter[RowFault]()
        self._bad_rows: list[BadRow] = []

    def add(self, batch: PostBatch) -> None:
        """Some more posts."""
        columns, extensions = batch.columns, self._extensions
        codes = [extensions.setdefault(name, len(extensions)) for name in batch.extensions]
        rows = np.empty(len(batch), POST_ROW)
        rows["id"] = batch.ids
        rows["width"] = columns["image_width"]
        rows["height"] = columns["image_height"]
        rows["size"] = columns["file_size"]
        rows["ext"] = np.array(codes, np.uint32)[columns["file_ext"]]
        deleted = (columns["flags"] & Flag.DELETED) != 0
        banned = (columns["flags"] & Flag.BANNED) != 0
        rows["flags"] = DELETED * deleted | BANNED * banned
        self._chunks.append(rows)

    def blame(self, faults: Iterable[BadRow]) -> None:
        """Count some faults, and keep them while there are not many."""
        for fault in faults:
            self._faults[fault.fault] += 1
            if fault.fault is not RowFault.NO_ID and len(self._bad_rows) < MAX_BAD_ROWS:
                self._bad_rows.append(fault)

    def table(self) -> PostTable:
        """All that was added."""
        rows, superseded = _one_each(np.concatenate(self._chunks))
        return PostTable(
            rows=rows,
            extensions=tuple(self._extensions),
            superseded=superseded,
            faults=dict(self._faults),
            bad_rows=tuple(self._bad_rows),
        )


def _one_each(rows: Rows) -> tuple[Rows, U32]:
    """Sort by id and keep the last row of each post; the ids of the other rows."""
    order = np.argsort(rows["id"], kind="stable")
    ids = rows["id"][order]
    last = np.ones(len(ids), np.bool_)
    last[:-1] = ids[1:] != ids[:-1]
    return rows[order[last]], ids[~last]
