"""Looking at a tree for one wish: what is missing, and whether it may be brought about.

    release view -> survey (what is missing) -> guards (space, deletions) -> sync

Most runs find nothing to do.  They end here: what fetches, writes and deletes
(:mod:`syncclient.sync`) is loaded when there is work, and manifests are opened when some folder is
not as it was left.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Self

from msgspec import Struct, field

from manifests.digest import Digest
from manifests.errors import ConfigError, ExitCode, StoreError
from manifests.model import Descriptor
from manifests.paths import PRIVATE_FOLDER
from manifests.units import format_count, format_size
from syncclient.assets import AssetSurvey, survey_assets, wanted_assets
from syncclient.config import DELETE_SHARE
from syncclient.events import Phase
from syncclient.places import Places
from syncclient.pool import in_thread
from syncclient.rowsurvey import RowSurvey
from syncclient.selection import Selection
from syncclient.session import Session
from syncclient.survey import Survey, Surveyor, tell_foreign

if TYPE_CHECKING:
    from syncclient.release import ReleaseView
    from syncclient.rowfiles import RowFile, RowFiles
    from syncclient.store import Aside
    from syncclient.transfer import Failure

_BLOCK_BYTES = 4096
# Room that must stay free beside the files: state, manifests, folders.
_RESERVE_BYTES = 64 * 2**20
# How long a thread waits for manifests before it looks whether the run was stopped.
_PATIENCE_S = 0.1


class Wish(Struct, frozen=True, kw_only=True):
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


class Report(Struct, kw_only=True):
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


class Look:
    """One wish on an open session; use as an async context manager: look, check, carry out."""

    def __init__(self, session: Session, wish: Wish) -> None:
        self.session = session
        self.wish = wish
        self._started_s = time.monotonic()
        self.places: Places = session.places(wish.descriptor)
        notices = session.notices()
        self._token = wish_token(wish.descriptor, wish.selection, notices.encode())
        self._notices = notices
        self.variants = wish.selection.variants_of(wish.descriptor.variants)
        self._opening = asyncio.Lock()
        self._opened = False
        self._loop = asyncio.get_running_loop()
        self.survey = Survey()
        self.assets = AssetSurvey()
        self.rows = RowSurvey()
        self.report = Report(release=wish.descriptor.release, scan="full")

    async def __aenter__(self) -> Self:
        """Make files of earlier runs durable."""
        await self.session.settle_earlier_runs()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of the manifests."""
        if "view" in vars(self):
            self.view.close()

    @cached_property
    def view(self) -> ReleaseView:
        """The entries of the release; :meth:`open` it first.  It takes a while to load."""
        from syncclient.release import ReleaseView  # noqa: PLC0415

        wish, cache = self.wish, self.session.folders.cache
        return ReleaseView(wish.descriptor, self._notices, wish.selection, cache)

    @cached_property
    def row_files(self) -> RowFiles:
        """The files of metadata.  It takes a while to load, and few trees have them."""
        from syncclient.rowfiles import RowFiles  # noqa: PLC0415

        return RowFiles(
            cache=self.session.folders.cache,
            places=self.places,
            state=self.session.state,
            run=self.session.run,
            mtime_ns=self.wish.descriptor.layers[-1].date * 10**9,
        )

    async def open(self) -> None:
        """Bring the manifests that are needed into the cache; nothing if they were opened."""
        async with self._opening:
            if not self._opened:
                self.session.listen(Phase(name="manifests"))
                await self.view.open(self.session.hosts)
                self._opened = True

    def _open_from_thread(self, stop: Event) -> ReleaseView:
        """The same for a thread of this run; CancelledError once ``stop`` is set."""
        if self._opened:
            return self.view
        opening = asyncio.run_coroutine_threadsafe(self.open(), self._loop)
        while True:
            try:
                opening.result(timeout=_PATIENCE_S)
            except TimeoutError:
                if opening.done():
                    raise
            else:
                return self.view
            if stop.is_set():
                opening.cancel()
                raise CancelledError

    @property
    def elapsed_s(self) -> float:
        """Seconds since this began."""
        return time.monotonic() - self._started_s

    # ----------------------------------------------------------------- looking

    async def look(self) -> Survey:
        """Survey the tree.  Reads files only where their content is unknown; changes nothing."""
        session, wish = self.session, self.wish
        if not wish.refetch:
            session.refuse_missing_disks()
        surveyor = Surveyor(
            descriptor=wish.descriptor,
            selection=wish.selection,
            open_view=self._open_from_thread,
            places=self.places,
            state=session.state,
            listen=session.listen,
            token=self._token,
            earlier=self._earlier,
            quick=wish.quick,
            refetch=wish.refetch,
            jobs=session.transport.jobs,
        )
        self.survey = await in_thread(surveyor.run, surveyor.stop)
        wanted = wanted_assets(wish.descriptor, self.variants, whole=wish.selection.whole)
        self.assets = await in_thread(
            lambda: survey_assets(wanted, session.stored_descriptors(), self.places, session.state)
        )
        if not wish.selection.whole:
            # A selection of ids or buckets says nothing about assets: those that are here stay.
            self.assets.remove.clear()
        if wish.selection.metadata:
            rows = await in_thread(self.wanted_rows)
            self.rows = await in_thread(lambda: self.row_files.survey(rows), self.row_files.stop)
        tell_foreign(self.survey, session.listen)
        self._begin_report()
        return self.survey

    def _earlier(self) -> dict[str, int]:
        """The same wish for releases to which this one only added layers; see Surveyor."""
        now, notices = self.wish.descriptor, self._notices.encode()
        return {
            wish_token(one, self.wish.selection, notices): len(one.layers)
            for one in self.session.stored_descriptors()
            if one.layout == now.layout and one.layers == now.layers[: len(one.layers)]
        }

    def wanted_rows(self) -> list[RowFile]:
        """The files of metadata that come with the selection.  Blocking."""
        if not self.wish.selection.metadata:
            return []
        from syncclient.rowfiles import selected_post_ids, wanted_rows  # noqa: PLC0415

        self._open_from_thread(self.row_files.stop)
        if not self.wish.descriptor.tables:
            release = self.wish.descriptor.release
            self.session.notice(f"{release} was published without metadata", warning=True)
        return wanted_rows(self.wish.descriptor, selected_post_ids(self.view))

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
        wish, count = self.wish, self.removals
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
        if not self.files_to_fetch and not self.rows.make:
            return
        from syncclient.disk import device_of, free_bytes  # noqa: PLC0415 (see carry_out)

        needed = Counter[int]()
        roots: dict[int, Path] = {}
        for root, size_bytes in self._bytes_by_root().items():
            disk = device_of(root)
            needed[disk] += size_bytes
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

    def _bytes_by_root(self) -> Counter[Path]:
        """Bytes by where they go; of several places on a disk people are told the first."""
        import numpy as np  # noqa: PLC0415 (who has nothing to fetch does not need it)

        needed = Counter[Path]()
        for variant, works in groupby(self.survey.works, key=attrgetter("variant")):
            sizes = np.concatenate([work.fetch.sizes for work in works])
            blocks = (sizes + np.uint64(_BLOCK_BYTES - 1)) // np.uint64(_BLOCK_BYTES)
            needed[self.places.root(variant)] += int(blocks.sum()) * _BLOCK_BYTES
        for asset, _ in self.assets.fetch:
            needed[self.places.asset(asset.path)[0]] += asset.size_bytes
        needed[self.session.folders.cache] += self.rows.fetch_bytes
        needed[self.places.tree] += self.rows.text_bytes
        return needed

    # ----------------------------------------------------------------- doing

    @property
    def files_to_fetch(self) -> int:
        """Entries and assets whose bytes are needed."""
        return sum(len(work.fetch) for work in self.survey.works) + len(self.assets.fetch)

    @property
    def _idle(self) -> bool:
        """Whether nothing is to be done, and no killed run left anything behind."""
        staging = (root / PRIVATE_FOLDER / "staging" for root in self.places.roots())
        left = any(folder.is_dir() and any(folder.iterdir()) for folder in staging)
        return not (self.files_to_fetch or self.rows.make or self.removals or left)

    async def carry_out(self) -> Report:
        """Fetch what is missing, then (with ``delete``) move away what the release dropped.

        Raises TransferError if no host is left and StoreError if the disk refuses; what was
        finished until then is in the tree and recorded.
        """
        if not self._idle:
            # What transfers and writes takes a while to load.
            from syncclient.sync import Sync  # noqa: PLC0415

            return await Sync(self).carry_out()
        self.count_traffic()
        return self.report

    def count_traffic(self) -> None:
        """Add to the report what was received until now, and the time."""
        taken = self.session.hosts.take_traffic()
        self.report.bytes_received += taken.received_bytes
        self.report.requests += taken.requests
        self.report.seconds = self.elapsed_s
