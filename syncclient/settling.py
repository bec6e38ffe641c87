"""Comparing what a look found with the release, and recording what was learnt by reading.

For the buckets that are not as they were left; see :mod:`syncclient.survey`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from manifests.columns import Bools, Entries
from syncclient.files import FileStat, FolderLook
from syncclient.places import Places
from syncclient.plan import BucketPlan, Comparison, compare, record_after, settle
from syncclient.pool import Pool, Promise
from syncclient.records import unsure_if_racy
from syncclient.release import ReleaseView
from syncclient.state import UNSURE, Glance, State, sure_mtime
from syncclient.survey import Survey
from syncclient.tasks import HashTask, hash_task
from syncclient.tree import Listing

# Names of one hashing task: enough to keep a process busy, few enough to share the work.
_HASH_NAMES = 256


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

    bucket: int
    looked_ns: int
    glance: Glance
    look: FolderLook
    comparison: Comparison
    reading: list[Promise[list[bytes | None]]]


@dataclass(slots=True, kw_only=True)
class Settler:
    """Compares the buckets of one variant and counts them in ``survey``; blocking."""

    variant: str
    view: ReleaseView
    places: Places
    state: State
    token: str
    pool: Pool
    survey: Survey
    _waiting: deque[_Pending] = field(default_factory=deque)

    def take(self, bucket: int, looked_ns: int, glance: Glance, look: FolderLook) -> int:
        """Begin with one bucket; the number of files that the state knew in it."""
        record = self.state.load(self.variant, bucket)
        view, listing = self.view.bucket(self.variant, bucket), Listing.of(look)
        comparison = compare(view, listing, record)
        self._waiting.append(
            _Pending(
                bucket=bucket,
                looked_ns=looked_ns,
                glance=glance,
                look=look._replace(columns=None),
                comparison=comparison,
                reading=self._read(bucket, comparison),
            )
        )
        waiting = self._waiting
        while waiting and (len(waiting) > 4 * self.pool.jobs or not waiting[0].reading):
            self._finish(waiting.popleft())
        return len(record)

    def finish(self) -> None:
        """Wait for all that is being read."""
        while self._waiting:
            self._finish(self._waiting.popleft())

    def _read(self, bucket: int, comparison: Comparison) -> list[Promise[list[bytes | None]]]:
        """Start to hash what is unknown."""
        names = comparison.unread_names()
        root, folder = (
            str(self.places.root(self.variant)),
            self.places.folder(self.variant, bucket),
        )
        return [
            self.pool.submit(hash_task, HashTask(root, folder, names[start : start + _HASH_NAMES]))
            for start in range(0, len(names), _HASH_NAMES)
        ]

    def _finish(self, pending: _Pending) -> None:
        comparison = pending.comparison
        found = [digest for future in pending.reading for digest in future.result()]
        unread = comparison.unread.tolist()
        digests = {
            row: digest for row, digest in zip(unread, found, strict=True) if digest is not None
        }
        plan = settle(self.variant, pending.bucket, comparison, digests)
        self.survey.count(plan)
        if not plan.idle:
            self.survey.works.append(_work(plan))
        self._remember(plan, pending)

    def _remember(self, plan: BucketPlan, pending: _Pending) -> None:
        """Record what was learnt, where it differs from what is recorded.

        A bucket that lost all its files keeps its record: the disk may be mounted again.
        """
        record, glance, looked_ns = pending.comparison.record, pending.glance, pending.looked_ns
        if len(record) and not plan.ours.any():
            return
        settled = self.token if plan.idle and not len(plan.unavailable) else ""
        mtimes = unsure_if_racy(plan.listing.mtimes, looked_ns)
        # A file that is too young may change and look the same, so the folder may.
        sure = settled and not (mtimes == UNSURE).any()
        fingerprint = pending.look.fingerprint if sure else b""
        folder_mtime = sure_mtime(pending.look.mtime_ns, looked_ns) if settled else UNSURE
        unchanged = (
            not plan.hashed.any()
            and int(plan.ours.sum()) == len(record)
            and (glance.folder_mtime_ns, glance.settled, glance.fingerprint)
            == (folder_mtime, settled, fingerprint)
        )
        if unchanged:
            return
        after = record_after(
            plan, np.where(plan.hashed, mtimes, plan.listing.mtimes), folder_mtime, settled
        )
        after = replace(after, fingerprint=fingerprint, extra=plan.extras)
        self.state.store(plan.variant, plan.bucket, after)
