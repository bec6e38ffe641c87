"""The rows of metadata that a release ships: the publisher's own lines, table by table.

Posts are put in the order of their ids, of several lines about one post the last; other tables
come whole, in the order of their lines.  The same lines give the same object, whatever the files
they were in, so a table that did not change is stored once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Final, Self

import numpy as np

from manifests.columns import U32
from manifests.metadata.columns import PostBatch
from manifests.metadata.lines import MAX_LINE_BYTES
from manifests.metadata.rowfile import KIND, POSTS, SECTION, RowFrame, cut_frames, encode_frames
from manifests.model import TableRef
from server.publishing.crew import Crew
from server.publishing.framing import FramedObject
from server.publishing.sorting import RowSorter
from server.repository import Repository

# Fewer lines than this are compressed before other processes have started.
_FEW_ROWS: Final = 10_000
# Frames that a worker compresses at a time: 2 MB of lines.
_GROUP_FRAMES: Final = 32


class RowTables:
    """Collects lines of one publish and makes an object of each table; a context manager."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._sorters: dict[str, RowSorter] = {}
        self._added: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Nothing is made yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what was not made an object."""
        self._stack.close()

    def add_posts(self, block: bytes, batch: PostBatch) -> None:
        """The lines of a batch, which was made from ``block``."""
        stops = batch.line_starts + batch.line_lengths
        # A batch says where a line ends for JSON; for us a carriage return is part of it.
        following = np.frombuffer(block + b"\n", np.uint8)[stops]
        stops = stops + (following == ord("\r"))
        places = zip(batch.line_starts.tolist(), stops.tolist(), strict=True)
        self._add(POSTS, batch.ids, [block[start:stop] for start, stop in places])

    def add_lines(self, table: str, block: bytes) -> None:
        """More lines of any other table, but for blank ones and those too long to be rows."""
        lines = [
            line
            for line in block.split(b"\n")
            if len(line) <= MAX_LINE_BYTES and line and not line.isspace()
        ]
        first = self._added.get(table, 0) + 1
        self._add(table, np.arange(first, first + len(lines), dtype=np.uint32), lines)

    def _add(self, table: str, keys: U32, lines: list[bytes]) -> None:
        if not lines:
            return
        if table not in self._sorters:
            sorter = RowSorter(self._repository.stages)
            self._sorters[table] = self._stack.enter_context(sorter)
        self._added[table] = self._added.get(table, 0) + len(lines)
        self._sorters[table].add(keys, lines)

    def store(self, crew: Crew) -> tuple[TableRef, ...]:
        """Make the objects, which nothing names yet; the tables by name."""
        return tuple(self._store(table, crew) for table in sorted(self._sorters))

    def _store(self, table: str, crew: Crew) -> TableRef:
        rows = text_bytes = 0
        frames = _groups(cut_frames(self._sorters[table].rows()))
        few = self._added[table] < _FEW_ROWS
        with FramedObject(self._repository, KIND) as made:
            for group, encoded in crew.run_in_order(encode_frames, frames, here=few):
                for frame, data in zip(group, encoded, strict=True):
                    made.writer.add(SECTION, frame.keys[0], data)
                    rows += len(frame.keys)
                    text_bytes += frame.text_bytes
            ref = made.finish({})
        return TableRef(name=table, rows=rows, raw_bytes=text_bytes, ref=ref)


def _groups(frames: Iterator[RowFrame]) -> Iterator[list[RowFrame]]:
    while group := list(islice(frames, _GROUP_FRAMES)):
        yield group
