"""Looking at a tree: what each bucket has, what it should have, what is to do.

The result is small: buckets with nothing to do leave only counts, the others what is to fetch or
to remove.  What was learnt by reading files is recorded bucket by bucket, so that an interrupted
look at a large adopted tree goes on where it was.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import numpy as np

from manifests.columns import Bools, Entries
from manifests.errors import StoreError
from manifests.units import counted
from syncclient.events import Listener, Notice, Phase, Progress
from syncclient.places import Places
from syncclient.plan import BucketPlan, Comparison, compare, record_after, settle
from syncclient.pool import Pool, hash_task, list_task
from syncclient.release import ReleaseView
from syncclient.state import UNSURE, State, unsure_if_racy
from syncclient.tree import FileStat, Listing

# Names of one hashing task: enough to keep a process busy, few enough to share the work.
_HASH_NAMES = 256
# So many files gone at once looks like a disk that is not mounted.
_SUSPICIOUS_FILES = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What is to do in one bucket.

    ``fetch`` are the entries whose bytes are needed; ``replaces`` (as many) what may be replaced
    under their names; ``foreign`` (as many) where a file of the user's is in the way.  ``remove``
    are files of ours that the release no longer has, ``extra`` the user's own.
    """

    variant: str
    bucket: int
    fetch: Entries
    replaces: tuple[FileStat | None, ...]
    foreign: Bools
    remove: tuple[tuple[str, FileStat], ...]


@dataclass(slots=True, kw_only=True)
class Survey:
    """Counts of files over all buckets, and the work."""

    kept: int = 0
    added: int = 0
    changed: int = 0
    foreign: int = 0
    unavailable: int = 0
    removable: int = 0
    extra: int = 0
    hashed: int = 0
    adopted: int = 0
    fetch_bytes: int = 0
    works: list[Work] = field(default_factory=list)
    scan: str = "full"

    @property
    def found(self) -> int:
        """Files that stand where entries of the release do, or did."""
        return self.kept + self.changed + self.foreign + self.removable

    def count(self, plan: BucketPlan) -> None:
        """Add one bucket."""
        self.kept += len(plan.keep)
        self.added += len(plan.add)
        self.changed += len(plan.change)
        self.foreign += len(plan.foreign)
        self.unavailable += len(plan.unavailable)
        self.removable += len(plan.remove)
        self.extra += len(plan.extra) + sum(kind == "name" for _, kind in plan.listing.others)
        self.hashed += int(plan.hashed.sum())
        self.adopted += int(plan.hashed[plan.wanted_at[plan.keep]].sum())
        self.fetch_bytes += plan.fetch_bytes
        if not plan.idle:
            self.works.append(_work(plan))


def _work(plan: BucketPlan) -> Work:
    rows = plan.fetch
    return Work(
        variant=plan.variant,
        bucket=plan.bucket,
        fetch=plan.view.wanted.take(rows),
        replaces=tuple(plan.replaces(int(row)) for row in rows),
        foreign=np.isin(rows, plan.foreign),
        remove=tuple((plan.listing.name(int(row)), plan.stat(int(row))) for row in plan.remove),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """A bucket that was compared and whose unknown files are being read."""

    variant: str
    bucket: int
    looked_ns: int
    comparison: Comparison
    reading: list[Future[list[bytes | None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyor:
    """Looks at every bucket of a selection; blocking, for a worker thread.

    ``token`` names the wish (release, selection): a bucket recorded as settled for it is skipped
    by ``quick`` while its folder's mtime stands.  ``refetch`` makes a tree whose files all
    vanished be filled again instead of being refused.  ``stop``, once set, ends the look with
    CancelledError.
    """

    view: ReleaseView
    places: Places
    state: State
    listen: Listener
    token: str
    quick: bool = False
    refetch: bool = False
    jobs: int = 0
    stop: Event = field(default_factory=Event)

    def run(self) -> Survey:
        """Survey all buckets; StoreError if a folder cannot be listed or a disk seems missing."""
        survey = Survey(scan="quick" if self.quick else "full")
        files = sum(self.view.descriptor.totals[v].files for v in self.view.variants)
        share = len(self.view.buckets) / max(self.view.descriptor.layout.buckets, 1)
        self.listen(
            Phase(
                name="scan",
                total_files=0 if self.view.wish.ids is not None else int(files * share),
            )
        )
        with Pool(int(files * share), self.jobs, self.stop) as pool:
            for variant in self.view.variants:
                before = survey.found
                with self.state.steadily() as written:
                    recorded = self._survey_variant(variant, pool, survey, written)
                self._refuse_missing_disk(variant, recorded, survey.found - before)
        return survey

    def _refuse_missing_disk(self, variant: str, recorded: int, found: int) -> None:
        if found == 0 and recorded >= _SUSPICIOUS_FILES and not self.refetch:
            where = Path(self.places.root(variant), *self.places.variant_parts(variant))
            message = f"{where} had {recorded:,} files of this release and now has none"
            raise StoreError(
                message,
                hint="Is the disk mounted? To fetch everything again, add --yes.",
            )

    def _survey_variant(
        self, variant: str, pool: Pool, survey: Survey, written: Callable[[], None]
    ) -> int:
        """Survey one variant; the number of files that the state knew."""
        recorded = 0
        waiting: deque[_Pending] = deque()
        for bucket, looked_ns, listing in self._listings(variant, pool, survey):
            record = self.state.load(variant, bucket)
            recorded += len(record)
            comparison = compare(self.view.bucket(variant, bucket), listing, record)
            reading = self._read(variant, bucket, comparison, pool)
            waiting.append(
                _Pending(
                    variant=variant,
                    bucket=bucket,
                    looked_ns=looked_ns,
                    comparison=comparison,
                    reading=reading,
                )
            )
            while waiting and (len(waiting) > 4 * pool.jobs or not waiting[0].reading):
                self._finish(waiting.popleft(), survey)
                written()
        while waiting:
            self._finish(waiting.popleft(), survey)
            written()
        return recorded

    def _listings(
        self, variant: str, pool: Pool, survey: Survey
    ) -> Iterator[tuple[int, int, Listing]]:
        root = str(self.places.root(variant))
        buckets = self._unsettled(variant, survey)
        tasks = [(root, self.places.folder(variant, bucket)) for bucket in buckets]
        if not Path(root).exists():
            yield from ((bucket, time.time_ns(), Listing()) for bucket in buckets)
            return
        looked_ns = time.time_ns()
        for bucket, listing in zip(buckets, pool.map(list_task, tasks), strict=True):
            yield bucket, looked_ns, listing

    def _unsettled(self, variant: str, survey: Survey) -> list[int]:
        """The buckets to look at: all, or with ``quick`` those whose folder or wish changed.

        All are those of the selection, and those where an earlier selection left files.
        """
        glances = self.state.glance(variant)
        buckets = sorted({*self.view.buckets, *glances})
        if not self.quick:
            return buckets
        left = []
        for bucket in buckets:
            mtime_ns, settled, files = glances.get(bucket, (UNSURE, "", 0))
            folder = Path(self.places.root(variant), *self.places.folder(variant, bucket))
            if settled == self.token and mtime_ns != UNSURE and _mtime_of(folder) == mtime_ns:
                survey.kept += files
            else:
                left.append(bucket)
        return left

    def _read(
        self, variant: str, bucket: int, comparison: Comparison, pool: Pool
    ) -> list[Future[list[bytes | None]]]:
        """Start to hash what is unknown."""
        names = comparison.unread_names()
        root, folder = str(self.places.root(variant)), self.places.folder(variant, bucket)
        return [
            pool.submit(hash_task, (root, folder, names[start : start + _HASH_NAMES]))
            for start in range(0, len(names), _HASH_NAMES)
        ]

    def _finish(self, pending: _Pending, survey: Survey) -> None:
        comparison = pending.comparison
        found = [digest for future in pending.reading for digest in future.result()]
        unread = comparison.unread.tolist()
        digests = {
            row: digest for row, digest in zip(unread, found, strict=True) if digest is not None
        }
        plan = settle(pending.variant, pending.bucket, comparison, digests)
        survey.count(plan)
        self._remember(plan, comparison, pending.looked_ns)
        self.listen(Progress(files=survey.kept + survey.added + survey.changed + survey.foreign))

    def _remember(self, plan: BucketPlan, comparison: Comparison, looked_ns: int) -> None:
        """Record what was learnt, where it differs from what is recorded.

        A bucket that lost all its files keeps its record: the disk may be mounted again.
        """
        record = comparison.record
        if len(record) and not plan.ours.any():
            return
        complete = plan.idle and not len(plan.unavailable)
        folder_mtime = int(
            unsure_if_racy(np.array([plan.folder_mtime_ns], np.int64), looked_ns)[0]
        )
        settled = self.token if complete and folder_mtime != UNSURE else ""
        unchanged = (
            not plan.hashed.any()
            and int(plan.ours.sum()) == len(record)
            and (record.folder_mtime_ns, record.settled)
            == (folder_mtime if settled else UNSURE, settled)
        )
        if unchanged:
            return
        mtimes = np.where(
            plan.hashed,
            unsure_if_racy(plan.listing.mtimes, looked_ns),
            plan.listing.mtimes,
        )
        after = record_after(plan, mtimes, folder_mtime if settled else UNSURE, settled)
        self.state.store(plan.variant, plan.bucket, after)


def _mtime_of(folder: Path) -> int:
    try:
        return folder.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return UNSURE - 1


def tell_foreign(survey: Survey, listen: Callable[[Notice], None]) -> None:
    """Say that files of the user's are in the way, before anything is moved."""
    if survey.foreign:
        text = (
            f"{counted(survey.foreign, 'file')} here changed by someone else; each is moved aside "
            "into the trash and named, never overwritten"
        )
        listen(Notice(text=text, warning=True))
