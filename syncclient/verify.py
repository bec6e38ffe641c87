"""Every byte against the manifests: what is missing, damaged or changed, bucket by bucket.

Works offline.  A round can be cut short by time and resumed where it was: each bucket that is done
is noted in the state.  A sample reads a random share of the files, drawn anew each time.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
from msgspec import Struct, field

from manifests.columns import Bools, Entries
from manifests.model import Asset
from manifests.paths import SafePath
from syncclient.events import Listener, Phase, Progress
from syncclient.places import Places
from syncclient.pool import Pool, Promise
from syncclient.release import ReleaseView
from syncclient.rowfiles import RowFile, RowFiles
from syncclient.state import State
from syncclient.tasks import CheckTask, HashTask, Wrong, check_task, hash_task

# Files and bytes of one task: a process is busy with it for a moment, not for minutes.
_TASK_FILES = 256
_TASK_BYTES = 64 * 2**20
# So many for each process before the first is finished: they read while entries are composed.
_TASKS_AHEAD = 16
_NAMED_FINDINGS = 100_000


class Finding(Struct, frozen=True, kw_only=True):
    """One file that is not what the release says: ``damaged`` or ``missing``."""

    path: str
    kind: str


class Verification(Struct, kw_only=True):
    """Counts of one round; ``finished`` unless time ran out before every bucket was read.

    ``findings`` names the first ones only: an emptied tree may lack millions of files.
    """

    checked: int = 0
    checked_bytes: int = 0
    damaged: int = 0
    missing: int = 0
    unavailable: int = 0
    repaired: int = 0
    finished: bool = True
    findings: list[Finding] = field(default_factory=list)

    def note(self, path: str, kind: str) -> None:
        """Count one file that is ``damaged`` or ``missing``."""
        if kind == "damaged":
            self.damaged += 1
        else:
            self.missing += 1
        if len(self.findings) < _NAMED_FINDINGS:
            self.findings.append(Finding(path=path, kind=kind))


class _Task(Struct, frozen=True, kw_only=True, eq=False):
    """Wanted files of one bucket being read, piece by piece."""

    variant: str
    bucket: int
    entries: Entries
    absent: Bools
    pieces: tuple[tuple[slice, Promise[Wrong]], ...]


class _Single(NamedTuple):
    """A file outside the buckets; the digest is empty if nobody here can know it."""

    path: SafePath
    digest: bytes
    size_bytes: int
    doubt: Callable[[str], None]


class Verifier(Struct, frozen=True, kw_only=True):
    """One round of verification; blocking, for a worker thread.

    ``sample`` is the share of files to read, ``deadline_s`` a point of ``time.monotonic``.
    ``stop``, once set, ends the round with CancelledError; what was read stays noted.
    """

    view: ReleaseView
    places: Places
    state: State
    row_files: RowFiles
    listen: Listener
    sample: float = 1.0
    deadline_s: float | None = None
    resume: bool = False
    jobs: int = 0
    stop: Event = field(default_factory=Event)

    def run(self, assets: list[Asset], rows: list[RowFile]) -> Verification:
        """Read and compare; damage is recorded by forgetting what was believed of the file."""
        result = Verification()
        if not self.resume and self.sample >= 1:
            self.state.forget_verified()
        done = self.state.verified() if self.resume else set()
        totals = self.view.descriptor.totals
        files = int(sum(totals[v].files for v in self.view.variants) * self.sample)
        size_bytes = int(sum(totals[v].file_bytes for v in self.view.variants) * self.sample)
        whole = self.view.wish.whole and not done
        self.listen(
            Phase(
                name="verify",
                total_files=files if whole else 0,
                total_bytes=size_bytes if whole else 0,
            )
        )
        with Pool(files, self.jobs, self.stop) as pool:
            self._check_singles(self._singles(assets, rows), pool, result)
            with self.state.steadily() as written:
                self._check_buckets(pool, result, done, written)
        if result.finished and self.sample >= 1:
            self.state.forget_verified()
        return result

    def _check_buckets(
        self,
        pool: Pool,
        result: Verification,
        done: set[tuple[str, int]],
        written: Callable[[], None],
    ) -> None:
        waiting: deque[_Task] = deque()
        pieces = 0
        for variant, bucket, entries, absent in self._wanted(done):
            if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
                result.finished = False
                break
            waiting.append(self._begin(variant, bucket, entries, absent, pool))
            pieces += len(waiting[-1].pieces)
            while pieces > _TASKS_AHEAD * pool.jobs:
                pieces -= len(waiting[0].pieces)
                self._finish(waiting.popleft(), result)
                written()
        while waiting:
            self._finish(waiting.popleft(), result)
            written()

    def _wanted(self, done: set[tuple[str, int]]) -> Iterator[tuple[str, int, Entries, Bools]]:
        """What is to be read, bucket by bucket: its entries, and which of them nobody has."""
        for variant in self.view.variants:
            left = [bucket for bucket in self.view.buckets if (variant, bucket) not in done]
            step = self.view.buckets_at_once(variant)
            for some in (left[first : first + step] for first in range(0, len(left), step)):
                view = self.view.several(variant, some)
                entries, absent = view.wanted, view.absent
                if self.sample < 1:
                    chosen = np.random.default_rng().random(len(entries)) < self.sample
                    entries, absent = entries.take(chosen), absent[chosen]
                bucket_of = entries.ids % np.uint32(self.places.layout.buckets)
                bounds = np.searchsorted(bucket_of, np.array([*some, 2**32 - 1], np.uint32))
                for bucket, (start, stop) in zip(some, pairwise(bounds.tolist()), strict=True):
                    rows = slice(start, stop)
                    yield variant, bucket, entries.take(rows), absent[rows]

    def _begin(
        self, variant: str, bucket: int, entries: Entries, absent: Bools, pool: Pool
    ) -> _Task:
        return _Task(
            variant=variant,
            bucket=bucket,
            entries=entries,
            absent=absent,
            pieces=tuple(
                (rows, pool.submit(check_task, self._check(variant, bucket, entries, rows)))
                for rows in _slices(entries)
            ),
        )

    def _check(self, variant: str, bucket: int, entries: Entries, rows: slice) -> CheckTask:
        return CheckTask(
            str(self.places.root(variant)),
            self.places.folder(variant, bucket),
            entries.extensions,
            entries.ids[rows].tobytes(),
            entries.exts[rows].tobytes(),
            entries.digests[rows].tobytes(),
        )

    def _finish(self, task: _Task, result: Verification) -> None:
        entries, wrong = task.entries, list[int]()
        right, missing = np.ones(len(entries), np.bool_), result.missing
        for rows, piece in task.pieces:
            for row, is_there in piece.result():
                at = rows.start + row
                right[at] = False
                if is_there:
                    wrong.append(at)
                    result.note(self._path(task, at), "damaged")
                elif task.absent[at]:
                    result.unavailable += 1
                else:
                    result.note(self._path(task, at), "missing")
        result.checked += len(entries)
        result.checked_bytes += int(entries.sizes[right].sum())
        doubted = [(int(entries.ids[at]), entries.extension(at)) for at in wrong]
        self._remember(task, doubted, clean=not wrong and result.missing == missing)
        self.listen(Progress(files=result.checked, bytes=result.checked_bytes))

    def _path(self, task: _Task, row: int) -> str:
        name = f"{task.entries.ids[row]}.{task.entries.extension(row)}"
        return f"{task.variant}/{self.places.layout.bucket_name(task.bucket)}/{name}"

    def _remember(self, task: _Task, wrong: list[tuple[int, str]], *, clean: bool) -> None:
        """Doubt what is wrong; a bucket that was right need not be read by a resumed round."""
        if wrong:
            self.state.doubt(task.variant, task.bucket, wrong)
        if self.sample >= 1 and clean:
            self.state.mark_verified(task.variant, task.bucket)

    def _singles(self, assets: list[Asset], rows: list[RowFile]) -> list[_Single]:
        """Assets and files of metadata, with what each must hold."""
        singles = [
            _Single(asset.path, asset.digest.raw, asset.size_bytes, self.state.doubt_asset)
            for asset in assets
        ]
        for file in rows:
            right = self.row_files.right(file)
            digest, size = (b"", 0) if right is None else (right.digest, right.size_bytes)
            singles.append(_Single(file.path, digest, size, self.state.doubt_made))
        return singles

    def _check_singles(self, singles: list[_Single], pool: Pool, result: Verification) -> None:
        tasks = []
        for single in singles:
            root, folder = self.places.asset(single.path)
            tasks.append(HashTask(str(root), folder, [single.path.parts[-1]]))
        for single, digests in zip(singles, pool.map(hash_task, tasks), strict=True):
            result.checked += 1
            if digests[0] == single.digest:
                result.checked_bytes += single.size_bytes
                continue
            root, folder = self.places.asset(single.path)
            there = os.path.lexists(Path(root, *folder, single.path.parts[-1]))
            result.note(single.path.text, "damaged" if there else "missing")
            if there:
                single.doubt(single.path.text)


def _slices(entries: Entries) -> Iterator[slice]:
    """Cut entries into tasks of bounded files and bytes."""
    if not len(entries):
        return
    sums = np.cumsum(entries.sizes.astype(np.int64))
    first = 0
    while first < len(entries):
        before = int(sums[first - 1]) if first else 0
        full = int(np.searchsorted(sums, before + _TASK_BYTES, "right"))
        last = min(max(full, first + 1), first + _TASK_FILES)
        yield slice(first, last)
        first = last
