"""What one torrent is to bring, how fast it comes, and which of it to hand on now.  No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from msgspec import Struct, field

from manifests.torrents.announce import State
from syncclient.parcels import Parcel, Parcels
from syncclient.torrents.members import Metainfo
from syncclient.torrents.runs import Run

# Over which the pace of a torrent is told.
_PACE_S: Final = 5.0
# How long files wait for the rest of their parcels, and for the rest of the torrent.
_COMMIT_S: Final = 0.5
_COMMIT_ALL_S: Final = 5.0
# A .torrent that is more than this share of what is wanted of it is not worth its bytes.
_WORTH: Final = 8


class Claim(Struct, eq=False):
    """What one torrent is to bring: where each wanted file (row of the metainfo) belongs."""

    run: Run
    metainfo: Metainfo
    places: dict[int, tuple[Parcel, int]]
    left: set[int] = field(default_factory=set)
    returned: set[int] = field(default_factory=set)

    def sizes(self, rows: Iterable[int]) -> int:
        """Bytes of some of the files."""
        return sum(int(self.places[row][0].work.fetch.sizes[self.places[row][1]]) for row in rows)


class Pace(Struct):
    """How fast a torrent comes; ``moved_s`` is when it last did (monotonic seconds)."""

    moved_s: float
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def has_begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._marks)

    def note(self, done_bytes: int, now_s: float) -> None:
        """So many bytes are here; what was thrown away does not count when it comes again."""
        if done_bytes <= (self._marks[-1][1] if self._marks else 0):
            return
        self.moved_s = now_s
        self._marks.append((now_s, done_bytes))
        while now_s - self._marks[0][0] > _PACE_S:
            self._marks.popleft()

    def seconds_for(self, size_bytes: int) -> float:
        """How long that many bytes take at the pace of the last seconds; 0 if it is not known."""
        (first_s, first), (last_s, last) = self._marks[0], self._marks[-1]
        return size_bytes * (last_s - first_s) / (last - first) if last > first else 0.0


def wishes(
    runs: Iterable[Run], parcels: Parcels, *, alone: bool
) -> dict[bytes, tuple[Run, State]]:
    """The torrents of which enough is wanted to be worth their metainfo, for an announce."""
    wished = dict[bytes, tuple[Run, State]]()
    free: dict[tuple[int, str, int], list[Parcel]] = {}
    for parcel in parcels.free():
        place = parcel.layer, parcel.work.variant, parcel.work.bucket
        free.setdefault(place, []).append(parcel)
    for run in runs:
        wanted = sum(
            parcel.size_bytes
            for bucket in range(run.ref.first_bucket, run.ref.last_bucket + 1)
            for parcel in free.get((run.layer, run.variant, bucket), ())
        )
        if wanted and (alone or wanted >= _WORTH * run.ref.size_bytes):
            wished[run.key] = (run, State.LEECHING)
    return wished


def by_parcel(claim: Claim, rows: Iterable[int]) -> list[tuple[Parcel, list[int]]]:
    """Rows of the metainfo by the parcels that they belong to, each in the parcel's order."""
    found: dict[int, tuple[Parcel, list[int]]] = {}
    for row in rows:
        parcel = claim.places[row][0]
        found.setdefault(id(parcel), (parcel, []))[1].append(row)
    for _, those in found.values():
        those.sort(key=lambda row: claim.places[row][1])
    return list(found.values())


def as_parcels(claim: Claim, rows: Iterable[int]) -> Iterator[Parcel]:
    """Rows of the metainfo as parcels."""
    for parcel, those in by_parcel(claim, rows):
        yield parcel.only(np.array([claim.places[row][1] for row in those], np.intp))


def _ripe(claim: Claim, ready: set[int]) -> set[int]:
    """What is ready of parcels of which all is: a batch of a whole parcel costs the least."""
    short = {id(claim.places[row][0]) for row in claim.left - ready}
    return {row for row in ready if id(claim.places[row][0]) not in short}


def files_due(claim: Claim, ready: set[int], waited_s: float) -> set[int]:
    """What is ready and should be committed now, ``waited_s`` after the last time."""
    if ready == claim.left or waited_s >= _COMMIT_ALL_S:
        return set(ready)
    return _ripe(claim, ready) if waited_s >= _COMMIT_S else set()
