"""What metadata says about every post, as one table.

:func:`read_posts` reads one file (in a worker, if its caller likes), :func:`merge_posts` joins the
tables of several: sorted by id, one row a post.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.columns import U32
from manifests.rows import PostRow, RowFault
from server.audit.metadata import BadRow, read_rows
from server.audit.tables import POST_ROW, Rows, Table, join

DELETED = 1
BANNED = 2
# Bad rows are all counted; this many of them are kept, to be shown.
MAX_BAD_ROWS = 1000
_CHUNK_ROWS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PostTable(Table):
    """Posts (rows of POST_ROW).

    ``superseded`` are the ids of rows that a later row about the same post replaced.  ``faults``
    counts the lines that gave no post; ``bad_rows`` are the first of them, without hidden posts.
    """

    superseded: U32
    faults: Mapping[RowFault, int]
    bad_rows: tuple[BadRow, ...]


def collect_posts(rows: Iterable[PostRow | BadRow]) -> PostTable:
    """The table of a stream of rows, in the memory of that table."""
    faults, bad_rows = Counter[RowFault](), list[BadRow]()
    extensions: dict[str, int] = {}

    def good() -> Iterator[PostRow]:
        for row in rows:
            if isinstance(row, PostRow):
                yield row
                continue
            faults[row.fault] += 1
            if row.fault is not RowFault.NO_ID and len(bad_rows) < MAX_BAD_ROWS:
                bad_rows.append(row)

    packed = _packed(good(), extensions)
    return _one_each(packed, tuple(extensions), np.empty(0, np.uint32), faults, tuple(bad_rows))


def _packed(posts: Iterator[PostRow], extensions: dict[str, int]) -> Rows:
    """Rows of POST_ROW in the order they come; new extensions are added to the table."""
    chunks = [np.empty(0, POST_ROW)]
    held: list[tuple[int, ...]] = []
    for post in posts:
        held.append(
            (
                post.id,
                post.image_width,
                post.image_height,
                post.file_size,
                extensions.setdefault(post.file_ext, len(extensions)),
                DELETED * post.is_deleted | BANNED * post.is_banned,
            )
        )
        if len(held) == _CHUNK_ROWS:
            chunks.append(np.array(held, POST_ROW))
            held.clear()
    return np.concatenate([*chunks, np.array(held, POST_ROW)])


def read_posts(path: Path) -> PostTable:
    """The posts of one file of metadata (see :func:`server.audit.metadata.read_rows`)."""
    return collect_posts(read_rows(path))


def merge_posts(parts: Sequence[PostTable]) -> PostTable:
    """The posts of several files; where two tell of the same post, the later file wins."""
    rows, extensions = join(parts, POST_ROW)
    superseded = [part.superseded for part in parts]
    faults = sum((Counter(part.faults) for part in parts), Counter[RowFault]())
    bad_rows = tuple(row for part in parts for row in part.bad_rows)[:MAX_BAD_ROWS]
    return _one_each(
        rows, extensions, np.concatenate([np.empty(0, np.uint32), *superseded]), faults, bad_rows
    )


def _one_each(
    rows: Rows,
    extensions: tuple[str, ...],
    superseded: U32,
    faults: Mapping[RowFault, int],
    bad_rows: tuple[BadRow, ...],
) -> PostTable:
    """Sort by id and keep the last row of each post."""
    order = np.argsort(rows["id"], kind="stable")
    ids = rows["id"][order]
    last = np.ones(len(ids), np.bool_)
    last[:-1] = ids[1:] != ids[:-1]
    return PostTable(
        rows=rows[order[last]],
        extensions=extensions,
        superseded=np.concatenate([superseded, ids[~last]]),
        faults=faults,
        bad_rows=bad_rows,
    )
