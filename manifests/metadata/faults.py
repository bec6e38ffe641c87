"""What is wrong with a line of metadata: a value, since no line ever ends a run."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

# Of a value that is shown in a message.
_SHOWN_CHARACTERS = 60


class RowFault(StrEnum):
    """Sorts of faults; all but FIELD cost the row (a bad ``id`` is a FIELD that does, too).

    NO_ID is not damage: exports hide the id of banned and gold-only posts.  FILE is found by
    whoever opens the file.
    """

    JSON = "json"
    NO_ID = "no-id"
    FIELD = "field"
    TOO_LONG = "too-long"
    FILE = "file"


class BadRow(Struct, frozen=True, kw_only=True):
    """A fault of one line; ``line`` is counted from 1, 0 is the file itself.

    ``problem`` begins with the name of the field, if it is about one.
    """

    file: str
    line: int
    fault: RowFault
    problem: str


def shown(value: object) -> str:
    """The beginning of a value, for a message."""
    if isinstance(value, str):
        value = value[:_SHOWN_CHARACTERS]
    return repr(value)[:_SHOWN_CHARACTERS]
