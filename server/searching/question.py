"""What is asked of a search, what comes back, and what a search may cost.

These values travel between the server and its workers.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec import Struct

from manifests.columns import U32
from manifests.errors import SyncError
from manifests.framedref import FramedRef

_GIB: Final = 2**30


class SearchLimits(Struct, frozen=True, kw_only=True):
    """What searches may cost a host, so that none of them hurts other users.

    ``workers`` processes search, one query each at a time.  ``waiting`` more queries may wait for
    one, ``wait_s`` at most; what is asked beyond that is to come again later.

    Of one address ``address_at_once`` are answered at a time, and ``address_waiting`` wait for
    their turn: with two workers, whoever asks for much leaves one to the others.

    A query may take ``time_s``: a worker asks its clock between steps, most of which are shorter
    than a sort of five million posts (1 to 4 s).  One that has not stopped after ``grace_s`` more
    is killed.

    A worker may map ``memory_bytes``, all told; what asks for more is refused.  Queries of every
    sort, one after another, took 0.7 GB on an index of five million posts, most of which was read
    by then.  A worker with more than ``kept_bytes`` resident after an answer ends, and the next
    one begins afresh: so what it keeps of several releases is bounded too.
    """

    workers: int = 2
    waiting: int = 64
    wait_s: float = 10.0
    address_at_once: int = 1
    address_waiting: int = 8
    time_s: float = 10.0
    grace_s: float = 5.0
    memory_bytes: int = 2 * _GIB
    kept_bytes: int = _GIB


class Question(Struct, frozen=True, kw_only=True):
    """One query on one release.

    ``path`` is the object that ``index`` names.  Ages count from ``created`` (Unix seconds), days
    begin in the time zone ``zone``.  At most ``limit`` ids are wanted, those ``after`` an id if
    one is given.
    """

    path: str
    index: FramedRef
    created: int
    query: str
    zone: str = "UTC"
    seed: str = ""
    after: int | None = None
    limit: int


class Found(Struct, frozen=True, kw_only=True, eq=False):
    """An answer: how many posts match, some of their ids in the order of the query.

    ``is_last`` says that none follow these; ``seconds`` is what the worker took.
    """

    count: int
    ids: U32
    is_last: bool
    seconds: float


class Reason(Enum):
    """Why a search has no answer, if it is neither the query's fault nor the repository's."""

    BUSY = "busy"
    ADDRESS = "address"
    TIME = "time"
    MEMORY = "memory"
    PARAMETER = "parameter"
    ENDED = "ended"
    GIVEN_UP = "given_up"


class SearchRefusedError(SyncError):
    """No answer; ``parameter`` names what is to blame, if one is."""

    def __init__(
        self, reason: Reason, message: str, *, parameter: str = "", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.parameter = parameter

    def __reduce__(self) -> tuple[type[SearchRefusedError], tuple[Reason, str], dict[str, object]]:
        """Travels between processes with all it says."""
        return type(self), (self.reason, self.message), vars(self)


class Reply(Struct, frozen=True, kw_only=True):
    """What came of a question; ``leaving`` says that the worker ends after it."""

    outcome: Found | SyncError
    leaving: bool = False
