"""The driver: transfer, remove, record, after a look found work.  Owns every task of a run.

Progress lives in the tree and its state, so a run that follows an interrupted one is the same
code: it finds less to do.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from manifests.columns import Entries
from manifests.errors import first_of_group
from syncclient.assets import target_of
from syncclient.batch import BATCH_BYTES, BATCH_FILES, RANGE_BYTES, Batch, Outcome
from syncclient.cachedobject import object_path
from syncclient.events import Phase, Progress
from syncclient.hatch import workers_worth
from syncclient.journal import Journal
from syncclient.look import Look, Report
from syncclient.parcels import Parcels, parcels_of
from syncclient.plan import Rows
from syncclient.pool import in_thread
from syncclient.settling import Work
from syncclient.store import Store
from syncclient.torrents.peers import asks_peers
from syncclient.transfer import NAMED_FAILURES, Failure, OnOutcome, Patience, Transfer
from syncclient.worker import Worker, WorkerSetup, open_workers

if TYPE_CHECKING:
    from syncclient.torrents.runs import Run

# Of more than this peers get their part, however late they join; of less, hosts wait for them.
_WAITED_FOR_BYTES = 256 * 2**20


class Sync:
    """Carries out what a look found."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._session = look.session
        self._wish = look.wish
        self.places = look.places
        self.view = look.view
        self.survey = look.survey
        self.assets = look.assets
        self.rows = look.rows
        self.row_files = look.row_files
        self.report = look.report

    # ----------------------------------------------------------------- doing

    async def carry_out(self) -> Report:
        """See :meth:`Look.carry_out`."""
        session, report = self._session, self.report
        journal = Journal(session.state, self.survey.works)
        try:
            if self._wish.fetch:
                await self._transfer(journal)
                await self._make_rows()
            else:
                report.files_left = self._look.files_to_fetch + len(self.rows.make)
            if self._wish.delete and not report.files_failed:
                await in_thread(lambda: self._remove(journal))
        finally:
            await journal.flush()
            self._look.count_traffic()
        if not report.files_failed:
            await in_thread(self._clean_staging)
        return report

    async def _transfer(self, journal: Journal) -> None:
        files = self._look.files_to_fetch
        size_bytes = self.survey.fetch_bytes + self.assets.fetch_bytes
        if not files:
            return
        session, report = self._session, self.report
        session.listen(Phase(name="transfer", total_files=files, total_bytes=size_bytes))
        processes = workers_worth(files, size_bytes, session.transport.jobs)
        # Each worker has its share of the connections.
        connections = max(1, session.options.connections // max(1, processes))
        options = replace(session.options, connections=connections)
        setup = WorkerSetup(run=session.run, urls=session.hosts.urls, options=options)

        def take(batch: Batch, outcome: Outcome) -> None:
            self._take_outcome(batch, outcome, journal)

        async with AsyncExitStack() as stack:
            opened = open_workers(setup, processes, session.hosts.limiter, session.nest)
            workers = await stack.enter_async_context(opened)
            transfer = Transfer(
                session.hosts.urls,
                workers,
                Patience(
                    connections=connections,
                    retries=session.transport.retries,
                ),
                take,
                session.listen,
            )
            try:
                with first_of_group():
                    async with asyncio.TaskGroup() as group:
                        flushing = group.create_task(journal.keep_flushing())
                        await self._share(transfer, workers, take)
                        flushing.cancel()
            finally:
                report.files_failed += transfer.failed
                report.failures += transfer.failures

    async def _share(self, transfer: Transfer, workers: Sequence[Worker], take: OnOutcome) -> None:
        """Let hosts and peers work off the plan, or one of them."""
        session, descriptor = self._session, self._wish.descriptor
        size_bytes = self.survey.fetch_bytes
        shared = asks_peers(session.transport, descriptor, size_bytes)
        waits = shared and size_bytes < _WAITED_FOR_BYTES
        parcels = Parcels(parcels_of(self.survey.works), shared=waits)
        alone = session.transport.source == "torrent"
        runs = self._runs_worth_joining(parcels, alone=alone) if shared else []
        if not runs and not alone:
            parcels.opened.set()
            await transfer.run(self._batches(parcels))
            return
        # What joins takes a while to load.
        from syncclient.torrents.fetching import Ways  # noqa: PLC0415
        from syncclient.torrents.joining import share  # noqa: PLC0415

        ways = Ways(
            hosts=session.hosts,
            cache=session.folders.cache,
            places=self.places,
            workers=workers,
            make_batch=lambda parcel, rows: self._batch(parcel.work, rows),
            on_outcome=take,
            listen=session.listen,
            alone=alone,
            give_up_s=2 * session.transport.timeout_s,
            finds_more=session.transport.dht or session.transport.lsd,
        )

        def count(received: int, sent: int) -> None:
            self.report.peer_bytes, self.report.peer_sent_bytes = received, sent

        hosts = transfer.run(self._batches(parcels))
        await share(session.transport, runs, parcels, ways, hosts, count)
        if alone:
            self._count_undone(parcels)

    def _runs_worth_joining(self, parcels: Parcels, *, alone: bool) -> list[Run]:
        """The torrents of the release; none if of none of them enough is wanted."""
        from syncclient.torrents.claims import wishes  # noqa: PLC0415 (for who asks peers)
        from syncclient.torrents.runs import runs_of  # noqa: PLC0415

        runs = runs_of(self._wish.descriptor, self.view.variants)
        return runs if wishes(runs, parcels, alone=alone) else []

    def _count_undone(self, parcels: Parcels) -> None:
        """What was to come from peers alone and did not."""
        for parcel in parcels.free():
            self.report.files_failed += len(parcel)
            batch = self._batch(parcel.work, parcel.rows)
            room = max(0, NAMED_FAILURES - len(self.report.failures))
            self.report.failures += [
                Failure(path=batch.path(row), text=f"{batch.path(row)}: no peer delivered it")
                for row in range(min(room, len(parcel)))
            ]

    async def _make_rows(self) -> None:
        """Make the files of metadata, one after another."""
        session, report, rows = self._session, self.report, self.rows
        if not rows.make:
            return
        files = written = 0
        phase = Phase(name="metadata", total_files=len(rows.make), total_bytes=rows.text_bytes)
        session.listen(phase)

        def tell(size: int) -> None:
            nonlocal written
            written += size
            session.listen(Progress(files=files, bytes=written))

        for file, replaces in rows.make:
            await self.row_files.fetch(session.hosts, file)
            size, aside = await in_thread(
                partial(self.row_files.make, file, replaces, tell), self.row_files.stop
            )
            files += 1
            tell(0)
            report.bytes_written += size
            report.asides += [aside] if aside is not None else []
            if replaces is None:
                report.files_added += 1
            else:
                report.files_changed += 1

    def _take_outcome(self, batch: Batch, outcome: Outcome, journal: Journal) -> None:
        report = self.report
        report.bytes_received += outcome.received_bytes
        report.requests += outcome.requests
        report.local_bytes += outcome.local_bytes
        report.files_linked += len(outcome.linked)
        report.asides += outcome.asides
        for how, count in outcome.links.items():
            report.links[how] = report.links.get(how, 0) + count
        for row in outcome.done:
            report.bytes_written += batch.sizes[row]
            if batch.replaces[row] is None:
                report.files_added += 1
            else:
                report.files_changed += 1
        journal.placed(batch, outcome.done)
        done = report.files_added + report.files_changed
        self._session.listen(Progress(files=done, bytes=report.bytes_written))

    @property
    def _by_hosts(self) -> bool:
        """Whether hosts may be asked for files of the tree."""
        return self._session.transport.source != "torrent"

    async def _batches(self, parcels: Parcels) -> AsyncIterator[Batch]:
        for asset, replaces in self.assets.fetch:
            root, folder, name = target_of(asset, self.places)
            yield Batch(
                key=("", asset.path.text),
                root=str(root),
                folder=folder,
                names=[name],
                sizes=[asset.size_bytes],
                digests=asset.digest.raw,
                mtime_ns=self._wish.descriptor.layers[-1].date * 10**9,
                replaces=[replaces],
                place=object_path(asset.digest),
                whole=True,
                locals=tuple(
                    str(Path(tree, *asset.path.parts[:-1])) for tree in self._wish.locals
                ),
                hard_link=self._wish.hard_link,
            )
        while self._by_hosts and (parcel := await parcels.next()) is not None:
            for rows in batch_rows(parcel.work.fetch, parcel.rows):
                yield self._batch(parcel.work, rows)

    def _batch(self, work: Work, rows: Rows) -> Batch:
        """Files of one bucket and layer as a piece of work; ``rows`` of ``work.fetch``."""
        entries = work.fetch.take(rows)
        layer = self._wish.descriptor.layers[int(entries.layers[0])]
        bucket = self.places.layout.bucket_name(work.bucket)
        return Batch(
            key=(work.variant, work.bucket),
            root=str(self.places.root(work.variant)),
            folder=self.places.folder(work.variant, work.bucket),
            names=entries.names(),
            sizes=array("Q", entries.sizes.tobytes()),
            digests=entries.digests.tobytes(),
            mtime_ns=layer.date * 10**9,
            replaces=[work.replaces[row] for row in rows.tolist()],
            place=f"{layer.name}/{work.variant}/{bucket}",
            offsets=array("Q", entries.offsets.tobytes()),
            chunks=entries.chunks.tobytes(),
            locals=self._wish.local_folders(work.variant, bucket),
            hard_link=self._wish.hard_link,
        )

    def _remove(self, journal: Journal) -> None:
        """Move what the release dropped to the trash; only files exactly as surveyed."""
        session = self._session
        session.listen(Phase(name="remove", total_files=self._look.removals))
        stores: dict[Path, Store] = {}

        def store(root: Path) -> Store:
            if root not in stores:
                stores[root] = Store(root, session.run).__enter__()
            return stores[root]

        try:
            for work in self.survey.works:
                folder = self.places.folder(work.variant, work.bucket)
                place = store(self.places.root(work.variant))
                gone = [
                    name
                    for name, stat in work.remove.files()
                    if place.remove_expected(folder, name, stat)
                ]
                if gone:
                    journal.removed(work.variant, work.bucket, gone)
                    self.report.files_removed += len(gone)
                    place.remove_folder_if_empty(folder)
                    session.listen(Progress(files=self.report.files_removed))
            for path, stat in self.assets.remove:
                root, folder = self.places.asset(path)
                if store(root).remove_expected(folder, path.parts[-1], stat):
                    journal.asset_removed(path.text)
                    self.report.files_removed += 1
                    for depth in range(len(folder), 0, -1):
                        store(root).remove_folder_if_empty(folder[:depth])
        finally:
            for opened in stores.values():
                opened.__exit__()

    def _clean_staging(self) -> None:
        for root in self.places.roots():
            if (root / ".bucketsync").exists():
                with Store(root, self._session.run) as place:
                    place.clean_staging()


def batch_rows(entries: Entries, chosen: Rows) -> list[Rows]:
    """Cut entries of one bucket and layer into batches: in pack order, large files alone."""
    sizes = entries.sizes[chosen].astype(np.int64)
    fits = len(sizes) <= BATCH_FILES and sizes.sum() <= BATCH_BYTES
    if fits and sizes.max(initial=0) <= RANGE_BYTES:
        # As most buckets are, and the arithmetic below takes a while.
        return [chosen]
    large = chosen[sizes > RANGE_BYTES]
    batches = [large[n : n + 1] for n in range(len(large))]
    small = chosen[sizes <= RANGE_BYTES]
    if len(small):
        sums = np.cumsum(entries.sizes[small].astype(np.int64))
        group = (sums - 1) // BATCH_BYTES
        group = np.maximum(group, 0) * (len(small) + 1) + np.arange(len(small)) // BATCH_FILES
        batches += np.split(small, np.flatnonzero(np.diff(group)) + 1)
    return batches
