"""Carrying out one piece of work: fetch, hash, write, name; in a worker or in-process.

The runner asks other trees on this machine first, then the host: ranges of the pack, or loose
files where the host has no packs.  BLAKE3 of the whole file is the last gate for every source.

The event loop only moves bytes; hashing and writing happen in the runner's one disk thread, in
which its stores live.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, suppress
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Self, TypeVar

from msgspec import Struct, field

from manifests import packs
from manifests.digest import digest_bytes
from manifests.errors import StoreError, TransferError, first_of_group
from syncclient.batch import PIECE_BYTES, RANGE_BYTES, Batch, Outcome, Problem
from syncclient.files import hash_open, open_regular
from syncclient.largefile import LargeFile
from syncclient.portion import Portion
from syncclient.room import Room
from syncclient.sources.bulk import Piece
from syncclient.sources.host import Span
from syncclient.sources.http import HttpSource
from syncclient.sources.intake import Intake
from syncclient.store import PlaceBytes, Store

# What all batches under way in a process may hold together, and one of them at the most.
_ROOM_BYTES = 48 * 2**20
_MOST_HELD_BYTES = 4 * RANGE_BYTES
_LOOSE_AT_ONCE = 8
# Statuses by which a host asks for a pause: too many requests, unavailable.
_BUSY = {429, 503}

_NOBODY = "no other tree on this machine holds it, and there is no host to ask"
_WRONG = ": the bytes that came do not have the BLAKE3 of the manifest"
_WRONG_FROM_PEERS = "what peers delivered does not have the BLAKE3 of the manifest"

_NOTHING = memoryview(b"")

T = TypeVar("T")


class _Range(Struct, frozen=True):
    """Bytes of a pack from ``start`` on, and the rows of a batch that lie in them."""

    rows: list[int]
    start: int = 0
    data: memoryview = _NOTHING


class _Errand(Struct, eq=False):
    """A batch on its way: its ``rows`` that nobody brought yet, and what came of its pack.

    ``to_come`` ranges are still awaited.
    """

    batch: Batch
    rows: list[int]
    outcome: Outcome = field(default_factory=Outcome)
    parts: list[_Range] = field(default_factory=list)
    to_come: int = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the rows."""
        return sum(self.batch.sizes[row] for row in self.rows)

    def settle(self) -> None:
        """Take away the rows that came or failed."""
        settled = {*self.outcome.done, *(problem.row for problem in self.outcome.problems)}
        self.rows = [row for row in self.rows if row not in settled]

    def begin(self) -> list[packs.Run]:
        """The ranges of the pack to ask for, as places in ``rows``; empty files have come."""
        sizes, offsets = self.batch.sizes, self.batch.offsets
        found = packs.runs(
            [offsets[row] for row in self.rows],
            [sizes[row] for row in self.rows],
            max_bytes=PIECE_BYTES,
        )
        filled = [run for run in found if run.stop > run.start]
        self.parts = [
            _Range(self.rows[run.first : run.last]) for run in found if run.stop == run.start
        ]
        self.to_come = len(filled)
        return filled

    def came(self, run: packs.Run, data: memoryview) -> None:
        """Take one of those ranges."""
        self.parts.append(_Range(self.rows[run.first : run.last], run.start, data))
        self.to_come -= 1

    def take(self) -> list[_Range]:
        """What came and was not taken yet."""
        parts, self.parts = self.parts, []
        return parts

    def files(self, parts: Sequence[_Range]) -> Iterator[tuple[int, memoryview]]:
        """The files in what came: rows, and their bytes."""
        sizes, offsets = self.batch.sizes, self.batch.offsets
        for part in parts:
            view, start = part.data, part.start
            for row in part.rows:
                begin = offsets[row] - start
                yield row, view[begin : begin + sizes[row]]


class Runner:
    """Runs batches, several at a time; made once a process.  Enter it, then call :meth:`run`."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._room = Room(_ROOM_BYTES)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._stores: dict[str, Store] = {}
        # For the sources that this is given: they rest while files are written.
        self.intake = Intake()

    async def __aenter__(self) -> Self:
        """Nothing to open: stores are opened when a batch first needs them."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for the disk thread and close the stores."""
        await self.on_disk(self._close)
        self._disk.shutdown()

    def _close(self) -> None:
        for store in self._stores.values():
            store.__exit__()
        self._stores.clear()

    async def on_disk(self, function: Callable[[], T]) -> T:
        """Run something in the disk thread, to its end even if the caller is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._disk, function)
        self.intake.rest(future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Nobody asks any more what became of it, which asyncio would complain of.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise

    def store(self, root: str) -> Store:
        """The store of a place; for the disk thread only."""
        if root not in self._stores:
            self._stores[root] = Store(Path(root), self._run).__enter__()
        return self._stores[root]

    async def run(self, batches: Sequence[Batch], source: HttpSource | None) -> list[Outcome]:
        """Do as much of ``batches`` as can be done; never raises but for a cancel or a bug.

        After a cancel every finished file is in the tree, and nothing else is visible.  What was
        received for all is counted with the first one.
        """
        errands = [_Errand(batch, list(range(len(batch.names)))) for batch in batches]
        for errand in errands:
            if errand.batch.locals:
                trees = partial(_from_trees, self, errand.batch, errand.outcome)
                await _carry([errand], self.on_disk(trees))
        if source is None:
            for errand in errands:
                text = _WRONG_FROM_PEERS if errand.batch.staged else _NOBODY
                errand.outcome.problems += [
                    Problem(row=row, text=text, missing=True) for row in errand.rows
                ]
        else:
            left = deque(errand for errand in errands if errand.rows)
            if len(left) > 1 and source.packs is None:
                # What kind of host it is, the first batch has to show by itself.
                first = left.popleft()
                await _carry([first], self._from_host(first, source))
            if len(left) > 1 and source.packs is not None:
                await _carry(left, self._together(left, source))
            for errand in left:
                if errand.rows and errand.outcome.error is None:
                    await _carry([errand], self._from_host(errand, source))
            traffic, outcome = source.traffic.take(), errands[0].outcome
            outcome.received_bytes, outcome.requests = traffic.received_bytes, traffic.requests
        return [errand.outcome for errand in errands]

    # ----------------------------------------------------------------- some batches together

    async def _together(self, errands: Sequence[_Errand], source: HttpSource) -> None:
        """Bring what a host just gives of small batches, all of them asked for at once."""
        wanted_bytes = sum(errand.size_bytes for errand in errands)
        async with self._room.taken(min(wanted_bytes, _MOST_HELD_BYTES)):
            if source.packs:
                await self._packs_together(errands, source)
            else:
                await self._just_given(errands, source)

    async def _packs_together(self, errands: Sequence[_Errand], source: HttpSource) -> None:
        owners: list[tuple[_Errand, packs.Run]] = []
        asked: list[tuple[str, list[Span]]] = []
        for errand in errands:
            filled = errand.begin()
            owners += [(errand, run) for run in filled]
            asked.append((errand.batch.pack, [(run.start, run.stop) for run in filled]))
        await self._place_as_it_comes(errands, owners, source.together(asked))

    async def _place_as_it_comes(
        self,
        errands: Sequence[_Errand],
        owners: Sequence[tuple[_Errand, packs.Run]],
        pieces: AsyncGenerator[list[Piece], None],
    ) -> None:
        """Place batches when they are whole, and what came of one that takes its time.

        A whole batch makes its folder in one go, if it is a new one, which costs less.
        """
        portion, clock = Portion[_Errand](), asyncio.get_running_loop().time
        for errand in errands:
            if not errand.to_come:
                portion.add(errand, len(errand.rows), 0, clock())
        try:
            async with aclosing(pieces) as bunches:
                async for bunch in bunches:
                    for number, data in bunch:
                        errand, run = owners[number]
                        errand.came(run, data)
                        if not errand.to_come:
                            portion.add(errand, len(errand.rows), errand.size_bytes, clock())
                    if errand.to_come:
                        portion.add(errand, 0, 0, clock())
                    if errand.to_come or portion.is_enough(clock()):
                        await self._place_parts(portion.take())
        finally:
            await self._place_parts([errand for errand in errands if errand.parts])

    async def _place_parts(self, errands: Sequence[_Errand]) -> None:
        """Check and write what came of some batches."""
        if errands:
            taken = [(errand, errand.take()) for errand in errands]
            await self._place([(errand, errand.files(parts)) for errand, parts in taken])
            for _, parts in taken:
                self._give_back(part.data for part in parts)

    # ----------------------------------------------------------------- one batch

    async def _from_host(self, errand: _Errand, source: HttpSource) -> None:
        async with self._room.taken(min(errand.size_bytes, _MOST_HELD_BYTES)):
            await self._ask(errand, source)

    async def _ask(self, errand: _Errand, source: HttpSource) -> None:
        batch, outcome = errand.batch, errand.outcome
        if batch.large:
            try:
                await LargeFile(self, batch, source, outcome).fetch()
            except TransferError as error:
                if not error.missing:
                    raise
                outcome.problems.append(Problem(row=0, text=str(error), missing=True))
            return
        if batch.pack and source.packs is not False:
            try:
                await self._from_pack(errand, source)
            except TransferError as error:
                if not error.missing and error.status not in {200, 400, 416}:
                    raise
                # A plain host without packs or ranges, or a pack with a gap: loose files tell more
                # exactly.
                if error.status in {200, 404} and source.packs is None:
                    source.packs = False
                errand.settle()
            else:
                return
        await self._loose(errand, source)

    async def _from_pack(self, errand: _Errand, source: HttpSource) -> None:
        filled = errand.begin()
        spans: list[Span] = [(run.start, run.stop) for run in filled]
        owners = [(errand, run) for run in filled]
        await self._place_as_it_comes([errand], owners, source.ranges(errand.batch.pack, spans))
        source.packs = True

    async def _place(
        self, portions: Iterable[tuple[_Errand, Iterable[tuple[int, memoryview]]]]
    ) -> None:
        """Check and write files, each a row of its batch and its bytes."""

        def work() -> None:
            for errand, files in portions:
                batch, outcome = errand.batch, errand.outcome
                with self.store(batch.root).placing(batch.folder) as place:
                    for row, data in files:
                        if not _place_checked(place, batch, row, data, outcome):
                            text = f"{batch.url(row)}{_WRONG}"
                            outcome.problems.append(Problem(row=row, text=text))

        await self.on_disk(work)

    def _give_back(self, pieces: Iterable[memoryview]) -> None:
        for piece in pieces:
            self.intake.give_back(piece)

    async def _loose(self, errand: _Errand, source: HttpSource) -> None:
        """One request a file; a file the host refuses does not stop the others.

        A host that cannot be reached, or is busy, stops them all.
        """
        await self._just_given([errand], source)
        errand.settle()
        batch, outcome = errand.batch, errand.outcome
        gate = asyncio.Semaphore(_LOOSE_AT_ONCE)
        refused: list[TransferError] = []

        async def one(row: int) -> None:
            async with gate:
                try:
                    data = await source.whole(batch.url(row), batch.sizes[row])
                except TransferError as error:
                    if error.missing:
                        outcome.problems.append(Problem(row=row, text=str(error), missing=True))
                    elif error.status is None or error.status in _BUSY:
                        raise
                    else:
                        refused.append(error)
                    return
                await self._place([(errand, [(row, memoryview(data))])])

        with first_of_group():
            async with asyncio.TaskGroup() as group:
                for row in errand.rows:
                    group.create_task(one(row))
        if refused:
            raise refused[0]

    async def _just_given(self, errands: Sequence[_Errand], source: HttpSource) -> None:
        """Place the files that the host gives without further ado."""
        owners = [(errand, row) for errand in errands for row in errand.rows]
        paths = [errand.batch.url(row) for errand, row in owners]
        sizes = [errand.batch.sizes[row] for errand, row in owners]
        portion = Portion[tuple[_Errand, int, memoryview]]()
        clock = asyncio.get_running_loop().time
        try:
            async with aclosing(source.files(paths, sizes)) as bunches:
                async for bunch in bunches:
                    for number, data in bunch:
                        portion.add((*owners[number], data), 1, len(data), clock())
                    if portion.is_enough(clock()):
                        await self._place_loose(portion.take())
        finally:
            await self._place_loose(portion.take())

    async def _place_loose(self, came: Sequence[tuple[_Errand, int, memoryview]]) -> None:
        """Check and write files: batch, row and bytes of each."""
        if came:
            await self._place(
                [
                    (errand, [(row, data) for _, row, data in some])
                    for errand, some in groupby(came, key=itemgetter(0))
                ]
            )


async def _carry(errands: Sequence[_Errand], work: Awaitable[object]) -> None:
    """Do something for some batches; an error becomes the outcome of those it leaves undone."""
    try:
        await work
    except (TransferError, StoreError) as error:
        failed: TransferError | StoreError | None = error
    except OSError as error:
        place = Path(errands[0].batch.root, *errands[0].batch.folder)
        failed = StoreError(f"{place}: {error.strerror or error}")
    else:
        failed = None
    for errand in errands:
        errand.settle()
        if errand.rows or isinstance(failed, StoreError):
            errand.outcome.error = failed


def _place_checked(
    place: PlaceBytes, batch: Batch, row: int, data: memoryview, outcome: Outcome
) -> bool:
    """Give bytes their name; False if they do not have the digest of the manifest."""
    digest = batch.digest(row)
    if digest_bytes(data) != digest:
        return False
    aside = place(batch.names[row], data, digest, batch.mtime_ns, batch.replaces[row])
    if aside is not None:
        outcome.asides.append(aside)
    outcome.done.append(row)
    return True


def _from_trees(runner: Runner, batch: Batch, outcome: Outcome) -> list[int]:
    """Take what other trees on this machine hold; the rows that none of them has."""
    with ExitStack() as stack:
        take = _from_tree
        if batch.in_memory:
            placing = runner.store(batch.root).placing(batch.folder)
            take = partial(_from_memory, stack.enter_context(placing))
        return [
            row
            for row in range(len(batch.names))
            if not any(take(runner, batch, row, folder, outcome) for folder in batch.locals)
        ]


def _from_tree(runner: Runner, batch: Batch, row: int, folder: str, outcome: Outcome) -> bool:
    path = os.path.join(folder, batch.names[row])  # noqa: PTH118 (a hot loop over strings)
    try:
        fd = open_regular(path)
    except OSError:
        return False
    try:
        if os.fstat(fd).st_size != batch.sizes[row]:
            return False
        with suppress(StoreError):
            if hash_open(fd, with_chunks=False).digest != batch.digest(row):
                return False
            store = runner.store(batch.root)
            place = (
                batch.folder,
                batch.names[row],
                batch.digest(row),
                batch.mtime_ns,
                batch.replaces[row],
            )
            if batch.staged:
                aside = store.place_link(fd, path, *place)
                outcome.peer_bytes += batch.sizes[row]
            else:
                link_from = path if batch.hard_link else ""
                how, aside = store.place_copy(fd, *place, link_from=link_from)
                outcome.links[how] = outcome.links.get(how, 0) + 1
                outcome.linked.append(row)
                outcome.local_bytes += batch.sizes[row]
            outcome.asides += [aside] if aside else []
            outcome.done.append(row)
            return True
    finally:
        os.close(fd)
    return False


def _from_memory(  # noqa: PLR0913 (a file of a batch, from where it is to where it goes)
    place: PlaceBytes, runner: Runner, batch: Batch, row: int, folder: str, outcome: Outcome
) -> bool:
    """Take a file of our own staging in memory: read once, and written once."""
    if batch.large:
        return _from_tree(runner, batch, row, folder, outcome)
    path = os.path.join(folder, batch.names[row])  # noqa: PTH118 (a hot loop over strings)
    try:
        fd = open_regular(path)
    except OSError:
        return False
    try:
        data = memoryview(os.read(fd, batch.sizes[row] + 1))
    finally:
        os.close(fd)
    if not _place_checked(place, batch, row, data, outcome):
        return False
    outcome.peer_bytes += batch.sizes[row]
    return True
