"""The driver: survey, guard, transfer, remove, record.  Owns every task of a run.

    release view -> survey (what is missing) -> guards (space, deletions) -> transfer -> removals

Progress lives in the tree and its state, so a run that follows an interrupted one is the same
code: it finds less to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from manifests.columns import Entries
from manifests.digest import Digest
from manifests.errors import ConfigError, ExitCode, StoreError
from manifests.model import Descriptor
from manifests.units import format_count, format_size
from syncclient.assets import AssetSurvey, survey_assets, target_of, wanted_assets
from syncclient.cachedobject import object_path
from syncclient.config import DELETE_SHARE
from syncclient.events import Phase, Progress
from syncclient.fetch import RANGE_BYTES, Batch, Outcome
from syncclient.journal import Journal
from syncclient.parcels import Parcels, parcels_of
from syncclient.places import Places
from syncclient.plan import Rows
from syncclient.pool import in_thread
from syncclient.release import ReleaseView
from syncclient.rowfiles import RowFile, RowFiles, RowSurvey, selected_post_ids, wanted_rows
from syncclient.selection import Selection
from syncclient.session import Session
from syncclient.store import Aside, Store, device_of, free_bytes
from syncclient.survey import Survey, Surveyor, Work, tell_foreign
from syncclient.torrents.peers import asks_peers
from syncclient.transfer import NAMED_FAILURES, Failure, OnOutcome, Patience, Transfer
from syncclient.worker import Worker, WorkerSetup, open_workers

# A batch ends at whichever comes first.
_BATCH_BYTES = 2 * RANGE_BYTES
_BATCH_FILES = 1000
# Worker processes pay from this many files or bytes on; below, the client does all itself.
_FILES_WORTH_WORKERS = 500
_BYTES_WORTH_WORKERS = 64 * 2**20
_BLOCK_BYTES = 4096
# Room that must stay free beside the files: state, manifests, folders.
_RESERVE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What one run is to bring about."""

    descriptor: Descriptor
    selection: Selection
    delete: bool = False
    # Files that may be deleted: a share of what is here if below 1, "1.0" means all of them.
    max_delete_share: float = DELETE_SHARE
    max_delete_files: int | None = None
    quick: bool = False
    refetch: bool = False
    fetch: bool = True
    # Other trees on this machine, and whether files may be hard-linked from them.
    locals: tuple[Path, ...] = ()
    # Where those trees keep variants that lie elsewhere.
    local_variants: Mapping[str, str] = field(default_factory=dict)
    hard_link: bool = False

    def local_folders(self, variant: str, bucket: str) -> tuple[str, ...]:
        """The folders of other trees that may hold the files of a bucket."""
        moved = self.local_variants.get(variant)
        first = [str(Path(moved, bucket))] if moved else []
        return (*first, *(str(tree / variant / bucket) for tree in self.locals))


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did; the summary of every verb that changes a tree."""

    release: str
    scan: str
    files_added: int = 0
    files_changed: int = 0
    files_removed: int = 0
    files_kept: int = 0
    files_linked: int = 0
    files_unavailable: int = 0
    files_extra: int = 0
    bytes_written: int = 0
    bytes_received: int = 0
    requests: int = 0
    seconds: float = 0.0
    local_bytes: int = 0
    # Received from peers and sent to them, in files and the padding between them.
    peer_bytes: int = 0
    peer_sent_bytes: int = 0
    files_failed: int = 0
    # Wanted and not there, but not to be fetched by this run.
    files_left: int = 0
    failures: list[Failure] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)
    links: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """Complete only if every file that can be had is there."""
        short = self.files_failed + self.files_left
        return ExitCode.INCOMPLETE if short else ExitCode.COMPLETE

    def summary(self) -> dict[str, object]:
        """The fields of the summary line."""
        return {
            "release": self.release,
            "files_added": self.files_added,
            "files_changed": self.files_changed,
            "files_removed": self.files_removed,
            "files_kept": self.files_kept,
            "files_failed": self.files_failed,
            "files_unavailable": self.files_unavailable,
            "files_aside": len(self.asides),
            "files_extra": self.files_extra,
            "bytes_written": self.bytes_written,
            "bytes_received": self.bytes_received + self.peer_bytes,
            "requests": self.requests,
            "seconds": round(self.seconds, 3),
            "sources": {
                "http": self.bytes_received,
                "torrent": self.peer_bytes,
                "local": self.local_bytes,
            },
            "scan": self.scan,
        }


def wish_token(descriptor: Descriptor, selection: Selection, notices: bytes) -> str:
    """Names a wish, for buckets recorded as settled for it."""
    ids = b"" if selection.ids is None else selection.ids.tobytes()
    text = repr((selection.variants, selection.buckets)).encode()
    return Digest.of(b"\0".join([descriptor.encode(), text, ids, notices])).hex[:32]


class Sync:
    """One run on an open session; use as an async context manager, then survey and carry out."""

    def __init__(self, session: Session, wish: Wish) -> None:
        self._session = session
        self._wish = wish
        self._started_s = time.monotonic()
        self.places: Places = session.places(wish.descriptor)
        notices = session.notices()
        self._token = wish_token(wish.descriptor, wish.selection, notices.encode())
        self.view = ReleaseView(wish.descriptor, notices, wish.selection, session.folders.cache)
        self.survey = Survey()
        self.assets = AssetSurvey()
        self.rows = RowSurvey()
        self.row_files = RowFiles(
            cache=session.folders.cache,
            places=self.places,
            state=session.state,
            run=session.run,
            mtime_ns=wish.descriptor.layers[-1].date * 10**9,
        )
        self.report = Report(release=wish.descriptor.release, scan="full")

    async def __aenter__(self) -> Self:
        """Bring the manifests that are needed into the cache."""
        self._session.listen(Phase(name="manifests"))
        await self._session.settle_earlier_runs()
        await self.view.open(self._session.hosts)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the manifests."""
        self.view.close()

    # ----------------------------------------------------------------- looking

    async def look(self) -> Survey:
        """Survey the tree.  Reads files only where their content is unknown; changes nothing."""
        session, wish = self._session, self._wish
        if not wish.refetch:
            session.refuse_missing_disks()
        surveyor = Surveyor(
            view=self.view,
            places=self.places,
            state=session.state,
            listen=session.listen,
            token=self._token,
            quick=wish.quick,
            refetch=wish.refetch,
            jobs=session.transport.jobs,
        )
        self.survey = await in_thread(surveyor.run, surveyor.stop)
        wanted = wanted_assets(wish.descriptor, self.view.variants, whole=wish.selection.whole)
        self.assets = await in_thread(
            lambda: survey_assets(wanted, session.stored_descriptors(), self.places, session.state)
        )
        if not wish.selection.whole:
            # A selection of ids or buckets says nothing about assets: those that are here stay.
            self.assets.remove.clear()
        rows = await in_thread(self.wanted_rows)
        self.rows = await in_thread(lambda: self.row_files.survey(rows), self.row_files.stop)
        tell_foreign(self.survey, session.listen)
        self._begin_report()
        return self.survey

    def wanted_rows(self) -> list[RowFile]:
        """The files of metadata that come with the selection.  Blocking."""
        if not self._wish.selection.metadata:
            return []
        if not self._wish.descriptor.tables:
            release = self._wish.descriptor.release
            self._session.notice(f"{release} was published without metadata", warning=True)
        return wanted_rows(self._wish.descriptor, selected_post_ids(self.view))

    def _begin_report(self) -> None:
        report, survey = self.report, self.survey
        report.scan = survey.scan
        report.files_kept = survey.kept + len(self.assets.kept) + len(self.rows.kept)
        report.files_unavailable = survey.unavailable
        report.files_extra = survey.extra

    # ----------------------------------------------------------------- guards

    def check_guards(self) -> None:
        """Refuse before anything is changed: too many deletions, too little room."""
        self._check_deletions()
        self._check_space()

    @property
    def removals(self) -> int:
        """Files of ours that the release no longer has."""
        return self.survey.removable + len(self.assets.remove)

    def _check_deletions(self) -> None:
        wish, count = self._wish, self.removals
        if not wish.delete or not count:
            return
        here = count + self.survey.kept + self.survey.changed + len(self.assets.kept)
        most = int(here * wish.max_delete_share)
        if wish.max_delete_files is not None:
            most = wish.max_delete_files
        if count > most:
            message = (
                f"{format_count(count)} of {format_count(here)} files would be deleted, more than "
                f"the {format_count(most)} that are allowed; nothing was changed"
            )
            raise ConfigError(
                message,
                hint="If that is right, allow it with --max-delete, as a number or a percentage.",
                exit_code=ExitCode.DELETE_GUARD,
            )

    def _check_space(self) -> None:
        """StoreError if a disk lacks room for what goes there, of however many variants."""
        needed: dict[int, int] = {}
        roots: dict[int, Path] = {}
        for root, size_bytes in self._bytes_by_root():
            disk = device_of(root)
            needed[disk] = needed.get(disk, 0) + size_bytes
            roots.setdefault(disk, root)
        for disk, size_bytes in needed.items():
            free = free_bytes(roots[disk])
            if size_bytes and size_bytes + _RESERVE_BYTES > free:
                message = (
                    f"{roots[disk]}: {format_size(size_bytes)} are to be written, but only "
                    f"{format_size(free)} are free and {format_size(_RESERVE_BYTES)} must stay so"
                )
                raise StoreError(
                    message,
                    hint="Make room, select less (--variant, --bucket, --ids), "
                    "or put a variant on another disk with --variant-dir.",
                )

    def _bytes_by_root(self) -> Iterator[tuple[Path, int]]:
        for work in self.survey.works:
            blocks = -(-work.fetch.sizes.astype(np.int64) // _BLOCK_BYTES)
            yield self.places.root(work.variant), int(blocks.sum()) * _BLOCK_BYTES
        for asset, _ in self.assets.fetch:
            yield self.places.asset(asset.path)[0], asset.size_bytes
        yield self.row_files.cache, self.rows.fetch_bytes
        yield self.places.tree, self.rows.text_bytes

    # ----------------------------------------------------------------- doing

    async def carry_out(self) -> Report:
        """Fetch what is missing, then (with ``delete``) move away what the release dropped.

        Raises TransferError if no host is left and StoreError if the disk refuses; what was
        finished until then is in the tree and recorded.
        """
        session, report = self._session, self.report
        journal = Journal(session.state)
        try:
            if self._wish.fetch:
                await self._transfer(journal)
                await self._make_rows()
            else:
                report.files_left = self._files_to_fetch + len(self.rows.make)
            if self._wish.delete and not report.files_failed:
                await in_thread(lambda: self._remove(journal))
        finally:
            await journal.flush()
            taken = session.hosts.take_traffic()
            report.bytes_received += taken.received_bytes
            report.requests += taken.requests
            report.seconds = time.monotonic() - self._started_s
        if not report.files_failed:
            await in_thread(self._clean_staging)
        return report

    @property
    def _files_to_fetch(self) -> int:
        return sum(len(work.fetch) for work in self.survey.works) + len(self.assets.fetch)

    async def _transfer(self, journal: Journal) -> None:
        files = self._files_to_fetch
        size_bytes = self.survey.fetch_bytes + self.assets.fetch_bytes
        if not files:
            return
        session, report = self._session, self.report
        session.listen(Phase(name="transfer", total_files=files, total_bytes=size_bytes))
        setup = WorkerSetup(run=session.run, urls=session.hosts.urls, options=session.options)
        processes = _processes(files, size_bytes, session.transport.jobs)

        def take(batch: Batch, outcome: Outcome) -> None:
            self._take_outcome(batch, outcome, journal)

        async with AsyncExitStack() as stack:
            opened = open_workers(setup, processes, session.hosts.limiter)
            workers = await stack.enter_async_context(opened)
            transfer = Transfer(
                session.hosts.urls,
                workers,
                Patience(
                    connections=max(1, session.transport.connections // max(1, processes)),
                    retries=session.transport.retries,
                ),
                take,
                session.listen,
            )
            flushing = asyncio.create_task(journal.keep_flushing())
            try:
                await self._share(transfer, workers, take)
            finally:
                flushing.cancel()
                await asyncio.gather(flushing, return_exceptions=True)
                report.files_failed += transfer.failed
                report.failures += transfer.failures

    async def _share(self, transfer: Transfer, workers: Sequence[Worker], take: OnOutcome) -> None:
        """Let hosts and peers work off the plan, or one of them."""
        session, descriptor = self._session, self._wish.descriptor
        shared = asks_peers(session.transport, descriptor, self.survey.fetch_bytes)
        parcels = Parcels(parcels_of(self.survey.works), shared=shared)
        if not shared:
            await transfer.run(self._batches(parcels))
            return
        # libtorrent takes a while to load, so only who asks peers does.
        from syncclient.torrents.fetching import Ways  # noqa: PLC0415
        from syncclient.torrents.joining import share  # noqa: PLC0415
        from syncclient.torrents.runs import runs_of  # noqa: PLC0415

        alone = session.transport.source == "torrent"
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

        runs = runs_of(descriptor, self.view.variants)
        hosts = transfer.run(self._batches(parcels))
        await share(session.transport, runs, parcels, ways, hosts, count)
        if alone:
            self._count_undone(parcels)

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
                digests=[asset.digest.raw],
                mtime_ns=self._wish.descriptor.layers[-1].date * 10**9,
                replaces=[replaces],
                urls=[object_path(asset.digest)],
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
        place, names = f"{layer.name}/{work.variant}/{bucket}", entries.names()
        return Batch(
            key=(work.variant, work.bucket),
            root=str(self.places.root(work.variant)),
            folder=self.places.folder(work.variant, work.bucket),
            names=names,
            sizes=entries.sizes.tolist(),
            digests=[digest.tobytes() for digest in entries.digests],
            mtime_ns=layer.date * 10**9,
            replaces=[work.replaces[int(row)] for row in rows],
            urls=[f"files/{place}/{name}" for name in names],
            pack=f"packs/{place}",
            offsets=entries.offsets.tolist(),
            chunks=entries.chunks.tobytes(),
            locals=self._wish.local_folders(work.variant, bucket),
            hard_link=self._wish.hard_link,
        )

    def _remove(self, journal: Journal) -> None:
        """Move what the release dropped to the trash; only files exactly as surveyed."""
        session = self._session
        session.listen(Phase(name="remove", total_files=self.removals))
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
                    name for name, stat in work.remove if place.remove_expected(folder, name, stat)
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


def _processes(files: int, size_bytes: int, jobs: int) -> int:
    """Worker processes: as many as the user says, else by the amount of work; 0 for none."""
    if jobs:
        return 0 if jobs == 1 else jobs
    return 2 if files >= _FILES_WORTH_WORKERS or size_bytes >= _BYTES_WORTH_WORKERS else 0


def batch_rows(entries: Entries, chosen: Rows) -> list[Rows]:
    """Cut entries of one bucket and layer into batches: in pack order, large files alone."""
    sizes = entries.sizes[chosen].astype(np.int64)
    large = chosen[sizes > RANGE_BYTES]
    batches = [large[n : n + 1] for n in range(len(large))]
    small = chosen[sizes <= RANGE_BYTES]
    if len(small):
        sums = np.cumsum(entries.sizes[small].astype(np.int64))
        group = (sums - 1) // _BATCH_BYTES
        group = np.maximum(group, 0) * (len(small) + 1) + np.arange(len(small)) // _BATCH_FILES
        batches += np.split(small, np.flatnonzero(np.diff(group)) + 1)
    return batches
