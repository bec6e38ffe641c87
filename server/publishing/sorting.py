"""Putting rows of metadata in the order of their keys, in bounded memory.

Exports come in any order of ids, and are larger than memory.  Rows are kept by runs of 16,384
keys; what is too much to hold goes to one temporary file, a compressed chunk for each run, and in
the end run after run is read back and sorted.  Of several rows with one key the last to come wins.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, Self

import numpy as np
from msgspec import Struct, field

from manifests import zstd
from manifests.columns import U32

# Keys of one run: some 40 MB of posts, which are held while they are sorted.
_RUN_BITS: Final = 14
# Lines that are held before they go to the disk.
HELD_BYTES: Final = 32 * 2**20
# The disk is read and written once: speed counts, not size.
_LEVEL: Final = 1


class _Run(Struct):
    """Rows of one run: those on the disk, as _read takes them, are older than those held."""

    chunks: list[tuple[int, int, int, int]] = field(default_factory=list)
    keys: list[U32] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)


class RowSorter:
    """Takes rows in any order, gives them by key; use as a context manager.

    ``folder`` is where its temporary file is made, which has no name and so ends with the process.
    """

    def __init__(self, folder: Path, held_bytes: int = HELD_BYTES) -> None:
        """Hold about ``held_bytes`` of lines, more go to the disk."""
        self._folder = folder
        self._most_held = held_bytes
        self._runs: defaultdict[int, _Run] = defaultdict(_Run)
        self._held_bytes = 0

    def __enter__(self) -> Self:
        """Make the temporary file; OSError if the disk refuses."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._spill = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        """Give it up."""
        self._spill.close()

    def add(self, keys: U32, lines: Sequence[bytes]) -> None:
        """Some more rows: a line without its end for each key; OSError if the disk refuses."""
        runs = keys >> _RUN_BITS
        order = np.argsort(runs, kind="stable")
        ends = np.flatnonzero(np.diff(runs[order])) + 1
        for rows in np.split(order, ends) if len(order) else ():
            run = self._runs[int(runs[rows[0]])]
            run.keys.append(keys[rows])
            run.lines += [lines[row] for row in rows.tolist()]
        self._held_bytes += sum(map(len, lines))
        if self._held_bytes >= self._most_held:
            self._write_held()

    def _write_held(self) -> None:
        for run in self._runs.values():
            if run.lines:
                keys = np.concatenate(run.keys)
                raw = keys.tobytes() + b"\n".join(run.lines)
                data = zstd.compress(raw, _LEVEL)
                run.chunks.append((self._spill.tell(), len(data), len(raw), len(keys)))
                self._spill.write(data)
                run.keys, run.lines = [], []
        self._held_bytes = 0

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Every key once, ascending, with the line that came last; to be taken once."""
        self._spill.flush()
        for number in sorted(self._runs):
            run, found = self._runs.pop(number), dict[int, bytes]()
            for chunk in run.chunks:
                found.update(_read(self._spill, *chunk))
            if run.keys:
                keys = np.concatenate(run.keys)
                found.update(zip(keys.tolist(), run.lines, strict=True))
            yield from sorted(found.items())


def _read(
    spill: IO[bytes], offset: int, size_bytes: int, raw_bytes: int, rows: int
) -> Iterator[tuple[int, bytes]]:
    data = os.pread(spill.fileno(), size_bytes, offset)
    raw = zstd.inflate(data, "rows put aside", raw_bytes)
    keys = np.frombuffer(raw, np.uint32, rows)
    return zip(keys.tolist(), raw[keys.nbytes :].split(b"\n"), strict=True)
