"""The journal: what was done is written some seconds later, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from manifests.errors import StoreError
from syncclient.journal import Journal
from syncclient.state import AssetRecord, State
from tests.support.batches import MTIME_NS, bucket_batch, large_batch
from tests.support.releases import Edition, random_files

EDITION = Edition(name="y1", files=random_files(range(1, 101), size_bytes=100), assets={})


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """An empty state."""
    made = State(tmp_path / "state.db", print)
    yield made
    made.close()


def names(state: State, bucket: int) -> set[str]:
    record = state.load("original", bucket)
    pairs = zip(record.ids.tolist(), record.exts.tolist(), strict=True)
    return {f"{number}.{record.extensions[ext]}" for number, ext in pairs}


async def test_placed_files_are_recorded_as_they_were_placed(state: State, tmp_path: Path) -> None:
    batch = bucket_batch(EDITION, 1, tmp_path)
    journal = Journal(state)
    journal.placed(batch, [0, 1, 2])
    journal.placed(batch, [2, 3])
    assert names(state, 1) == set()
    await journal.flush()
    record = state.load("original", 1)
    assert names(state, 1) == {"1.png", "11.png", "21.png", "31.png"}
    assert set(record.mtimes.tolist()) == {MTIME_NS}
    assert record.sizes.tolist() == list(batch.sizes[:4])
    assert [digest.tobytes() for digest in record.digests] == [
        batch.digest(row) for row in range(4)
    ]
    assert (record.settled, record.folder_mtime_ns) == ("", -1)


async def test_batches_that_are_written_together_keep_their_files_apart(
    state: State, tmp_path: Path
) -> None:
    batches = [bucket_batch(EDITION, bucket, tmp_path) for bucket in (1, 2, 3)]
    journal = Journal(state)
    for batch in batches:
        journal.placed(batch, [3, 1])
    await journal.flush()
    for bucket, batch in zip((1, 2, 3), batches, strict=True):
        record = state.load("original", bucket)
        assert names(state, bucket) == {batch.names[3], batch.names[1]}
        assert record.digests.tobytes() == batch.digest(3) + batch.digest(1)
        assert record.sizes.tolist() == [batch.sizes[3], batch.sizes[1]]


async def test_removed_files_are_forgotten(state: State, tmp_path: Path) -> None:
    journal = Journal(state)
    journal.placed(bucket_batch(EDITION, 1, tmp_path), [0, 1, 2])
    await journal.flush()
    journal.removed("original", 1, ["1.png", "11.gif", "notes.txt"])
    await journal.flush()
    assert names(state, 1) == {"11.png", "21.png"}


async def test_assets_come_and_go(state: State, tmp_path: Path) -> None:
    batch = replace(large_batch(tmp_path, "url", b"readme"), key=("", "docs/README"))
    asset = AssetRecord(size_bytes=6, mtime_ns=MTIME_NS, digest=batch.digest(0))
    journal = Journal(state)
    journal.placed(batch, [0])
    await journal.flush()
    assert state.load_assets() == {"docs/README": asset}
    journal.asset_removed("docs/README")
    await journal.flush()
    assert state.load_assets() == {}


async def test_a_cancelled_flush_is_over_before_the_next_begins(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    honest = state.transaction

    @contextmanager
    def slow_transaction() -> Iterator[None]:
        with honest():
            writing.set()
            go_on.wait(timeout=10)
            yield

    monkeypatch.setattr(state, "transaction", slow_transaction)
    journal = Journal(state)
    journal.placed(bucket_batch(EDITION, 1, tmp_path), [0])
    first = asyncio.create_task(journal.flush())
    await asyncio.to_thread(writing.wait)
    first.cancel()
    journal.placed(bucket_batch(EDITION, 2, tmp_path), [0])
    second = asyncio.create_task(journal.flush())
    await asyncio.wait({second}, timeout=0.05)
    assert not second.done()
    go_on.set()
    await second
    assert first.cancelled()
    assert (names(state, 1), names(state, 2)) == ({"1.png"}, {"2.jpg"})


async def test_notes_are_written_while_the_run_goes_on(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncclient.journal._FLUSH_S", 0.01)
    journal = Journal(state)
    flushing = asyncio.create_task(journal.keep_flushing())
    for bucket in range(3):
        journal.placed(bucket_batch(EDITION, bucket, tmp_path), [0])
    await asyncio.wait({flushing}, timeout=0.5)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    assert {bucket for bucket in range(10) if names(state, bucket)} == {0, 1, 2}


class FullState(State):
    """Lies on a disk that is full until it is told otherwise."""

    is_full = True

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Refuse."""
        if self.is_full:
            raise StoreError("no space left on the disk")
        with super().transaction():
            yield


async def test_what_a_full_disk_refuses_stays_noted(tmp_path: Path) -> None:
    state = FullState(tmp_path / "state.db", print)
    batch, journal = bucket_batch(EDITION, 1, tmp_path), Journal(state)
    journal.placed(batch, [0, 1])
    journal.removed("original", 2, ["2.png"])
    with pytest.raises(StoreError):
        await asyncio.wait_for(journal.keep_flushing(), 10)
    journal.placed(batch, [1, 2])
    journal.placed(bucket_batch(EDITION, 3, tmp_path), [0])
    state.is_full = False
    await journal.flush()
    assert names(state, 1) == {"1.png", "11.png", "21.png"}
    assert names(state, 3) == {"3.png"}
    state.close()
