"""The plan that hosts and peers share: who waits for whom, and for how long."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from syncclient.parcels import Parcels, parcels_of
from syncclient.settling import Work
from syncclient.torrents.joining import before
from syncclient.tree import Listing
from tests.support.buckets import to_entries


def work_of(bucket: int) -> Work:
    """One file to fetch."""
    return Work(
        variant="original",
        bucket=bucket,
        fetch=to_entries({f"{bucket + 10}.png": b"x"}),
        replaces=(None,),
        foreign=np.zeros(1, np.bool_),
        remove=Listing(),
    )


async def test_hosts_wait_once_for_peers_that_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that accepts and is silent would else cost the wait again for each bucket."""
    monkeypatch.setattr("syncclient.parcels._HEAD_START_S", 0.01)
    parcels = Parcels(parcels_of(map(work_of, range(3))), shared=True)
    found = [await parcels.next() for _ in range(2)]
    assert [parcel and parcel.work.bucket for parcel in found] == [0, 1]
    assert parcels.opened.is_set()
    monkeypatch.setattr("syncclient.parcels._HEAD_START_S", 3600.0)
    assert await parcels.next() is not None
    assert await parcels.next() is None
    assert parcels.ended.is_set()


async def test_an_announce_to_who_is_silent_ends_with_the_run() -> None:
    end, given_up = asyncio.Event(), asyncio.Event()

    async def announce() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    asking = asyncio.create_task(before(end, announce()))
    await asyncio.sleep(0)
    end.set()
    assert not await asyncio.wait_for(asking, 10)
    assert given_up.is_set()
    assert await before(asyncio.Event(), asyncio.sleep(0))
