"""The one plan that hosts and peers work off together.

A *parcel* is what is to be fetched of one bucket and layer.  Hosts take parcels in the order of
the plan; peers claim those of a whole torrent, from the end of the plan.  What they do not deliver
in time is given back and goes to the hosts.  So no file waits for a swarm that is dead, and none
is fetched twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import numpy as np
from msgspec import Struct

from manifests.columns import distinct
from syncclient.plan import Rows
from syncclient.settling import Work


class Parcel(Struct, frozen=True, kw_only=True, eq=False):
    """Rows of ``work.fetch`` that are of one layer (its number in the release)."""

    work: Work
    layer: int
    rows: Rows

    def __len__(self) -> int:
        """Files."""
        return len(self.rows)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return int(self.work.fetch.sizes[self.rows].sum())

    def only(self, rows: Rows) -> Parcel:
        """The same with other rows."""
        return Parcel(work=self.work, layer=self.layer, rows=rows)


def parcels_of(works: Iterable[Work]) -> Iterator[Parcel]:
    """What is to be fetched, bucket by bucket and layer by layer."""
    for work in works:
        layers = work.fetch.layers
        if len(layers) and (layers == layers[0]).all():
            # As nearly always, and there may be 100,000 buckets.
            yield Parcel(work=work, layer=int(layers[0]), rows=np.arange(len(layers)))
            continue
        for layer in distinct(layers).tolist():
            yield Parcel(work=work, layer=layer, rows=np.flatnonzero(layers == layer))


# Trackers are asked and metainfo fetched in that time, or hosts begin without peers.
_HEAD_START_S = 2.0


class Parcels:
    """Parcels that nobody works on yet, and how many files peers hold; for one event loop.

    ``idle`` is set while hosts have nothing to do because peers hold the rest; ``opened`` once
    peers have had the chance of a first claim, or there are none; ``ended`` once nothing is left
    for either.
    """

    def __init__(self, parcels: Iterable[Parcel], *, shared: bool = False) -> None:
        """``shared`` makes hosts wait a moment, until peers have made their first claim."""
        self._free = deque(parcel for parcel in parcels if len(parcel))
        self._held_files = 0
        self._change = asyncio.Event()
        self.idle = asyncio.Event()
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        if not shared:
            self.opened.set()

    def free(self) -> Iterable[Parcel]:
        """The parcels that nobody works on, the last of the plan first."""
        return reversed(self._free)

    async def next(self) -> Parcel | None:
        """The next parcel for the hosts; None once nothing is left and peers hold nothing."""
        if not self.opened.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_START_S):
                    await self.opened.wait()
            self.opened.set()
        while not self._free:
            if not self._held_files:
                self.ended.set()
                return None
            self._change.clear()
            self.idle.set()
            await self._change.wait()
        self.idle.clear()
        return self._free.popleft()

    def claim(self, matches: Callable[[Parcel], Rows]) -> list[Parcel]:
        """Take for peers the rows that ``matches`` says of each free parcel; the rest stay."""
        claimed, left = [], deque[Parcel]()
        for parcel in self._free:
            rows = matches(parcel)
            if not len(rows):
                left.append(parcel)
                continue
            claimed.append(parcel.only(rows))
            self._held_files += len(rows)
            # A torrent has most buckets whole, and finding out what is left takes a while.
            if len(rows) < len(parcel):
                rest = np.setdiff1d(parcel.rows, rows, assume_unique=True)
                left.append(parcel.only(rest))
        self._free = left
        return claimed

    def settle(self, files: int) -> None:
        """Peers have brought so many of the files that they held."""
        self._held_files -= files
        self._change.set()

    def give_back(self, parcels: Iterable[Parcel]) -> None:
        """What peers could not bring; the hosts take it next."""
        for parcel in parcels:
            if len(parcel):
                self._held_files -= len(parcel)
                self._free.append(parcel)
        self._change.set()
