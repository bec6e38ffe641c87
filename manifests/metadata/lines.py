"""A block of lines as objects of JSON, and what is wrong with the other lines.

All readers of metadata begin here and then go through the objects field by field, not row by row:
a field of a whole block is decoded at once where its values are as they should be, and one by one
only where some value is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any, TypeVar

import numpy as np
import orjson

from manifests.columns import I64
from manifests.metadata.faults import BadRow, RowFault, shown

# The longest rows list some thousands of favourites: 0.1 MB.  Longer than this is no row.
MAX_LINE_BYTES = 16 * 2**20
# What the API answers, as it is.
_LIST = "expected an object a line, got a list of them; `jq -c '.[]'` splits it"

Row = dict[str, Any]
Value = TypeVar("Value")


class LineRows:
    """The objects of a block: ``rows``, and for each where its line is.

    ``numbers`` count lines in the file; ``starts`` and ``lengths`` are bytes of the block, without
    the line feed (a carriage return is kept).  ``faults`` grows while fields are decoded.
    """

    def __init__(self, file: str, rows: list[Row], numbers: list[int]) -> None:
        self.file = file
        self.rows = rows
        self.numbers = numbers
        self.starts: I64 = np.zeros(0, np.int64)
        self.lengths: I64 = np.zeros(0, np.int64)
        self.faults: list[BadRow] = []

    def __len__(self) -> int:
        """Objects."""
        return len(self.rows)

    def values(self, name: str) -> list[Any]:
        """One field of every row; a key that is left out is a null."""
        return [row.get(name) for row in self.rows]

    def blame(self, place: int, field: str, problem: str) -> None:
        """Take down a field that cannot be read."""
        self._fault(self.numbers[place], RowFault.FIELD, f"{field}: {problem}")

    def one_by_one(
        self, name: str, values: Sequence[Any], decode: Callable[[Any], Value], null: Value
    ) -> list[Value]:
        """Decode each value by itself; ``null`` and a fault where ``decode`` raises ValueError."""
        decoded = []
        for place, value in enumerate(values):
            try:
                decoded.append(null if value is None else decode(value))
            except ValueError as error:
                self.blame(place, name, str(error))
                decoded.append(null)
        return decoded

    def drop(self, gone: Mapping[int, tuple[RowFault, str]]) -> None:
        """Take out the rows at some places, each for a reason."""
        for place, (fault, problem) in gone.items():
            self._fault(self.numbers[place], fault, problem)
        if gone:
            self.keep([place not in gone for place in range(len(self))])

    def keep(self, wanted: Sequence[bool]) -> None:
        """Leave only the rows that are ``wanted``."""
        self.rows = list(compress(self.rows, wanted))
        self.numbers = list(compress(self.numbers, wanted))
        mask = np.array(wanted, np.bool_)
        self.starts, self.lengths = self.starts[mask], self.lengths[mask]

    def in_order(self) -> list[BadRow]:
        """All faults, by line."""
        return sorted(self.faults, key=lambda fault: fault.line)

    def _fault(self, line: int, fault: RowFault, problem: str) -> None:
        self.faults.append(BadRow(file=self.file, line=line, fault=fault, problem=problem))


def read_lines(
    block: bytes, file: str, first_line: int, shrink: Callable[[Row], None] | None = None
) -> LineRows:
    """The objects of ``block``, which is whole lines, the first of them line ``first_line``.

    ``shrink`` may replace large values of a row by smaller ones before the next row is read, which
    saves memory and, since all then stays in the processor's cache, time.

    Trusts nothing but the length of the block, which its caller bounds.  Empty lines are no fault.
    """
    lines = block.split(b"\n")
    found = LineRows(file, [], [])
    places = []
    for place, line in enumerate(lines):
        if not line or line.isspace():
            continue
        row = _row(line)
        if isinstance(row, dict):
            if shrink is not None:
                shrink(row)
            places.append(place)
            found.rows.append(row)
        else:
            found.faults.append(
                BadRow(file=file, line=first_line + place, fault=row[0], problem=row[1])
            )
    found.numbers = [first_line + place for place in places]
    lengths = np.fromiter(map(len, lines), np.int64, len(lines))
    found.starts = (np.cumsum(lengths + 1) - lengths - 1)[places]
    found.lengths = lengths[places]
    return found


def _row(line: bytes) -> Row | tuple[RowFault, str]:
    """The object, or why there is none."""
    if len(line) > MAX_LINE_BYTES:
        return RowFault.TOO_LONG, f"longer than {MAX_LINE_BYTES:,} bytes"
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return RowFault.JSON, _LIST if line.lstrip() == b"[" else f"no JSON: {error}"
    if isinstance(row, list):
        return RowFault.JSON, _LIST
    if not isinstance(row, dict):
        return RowFault.JSON, f"expected an object, got {shown(row)}"
    return row
