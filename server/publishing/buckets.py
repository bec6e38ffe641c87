"""The unit of work of a publish: one bucket of one variant, in a worker process.

:func:`survey` lists a bucket and compares it with what is remembered and with the base release.
Where nothing is to be read or linked, that is all; else it says how much, and :func:`carry_out`
does it.  Both are functions of their argument and of the disk, so they run in any
``concurrent.futures.Executor``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np

from manifests.columns import I64, U8, Bools, Entries
from manifests.digest import DIGEST_BYTES
from manifests.errors import ManifestError, StoreError
from manifests.layers import Difference, Rows, diff, match, same_file
from manifests.torrents.grouping import SizeSums
from manifests.torrents.pieces import FileHashes
from server.publishing.hashing import Taken, Taker
from server.publishing.lineage import bucket_entries
from server.publishing.links import Links, Method, Placed, Stage, boot_id, disk_error, list_placed
from server.publishing.look import Look
from server.publishing.piecehashes import encode_hashes
from server.publishing.settled import file_table, open_bucket, settled_report
from server.publishing.work import (
    BucketReport,
    BucketTask,
    Counts,
    Placement,
    Sight,
    Workload,
)
from server.record import STAT_ROW, StatRows
from server.walk import walk_bucket
from syncclient.tree import FileStat, Listing

# A file takes whole blocks of its file system.
_BLOCK_BYTES: Final = 4096


def survey(task: BucketTask) -> BucketReport | Workload:
    """The finished report of a bucket in which nothing has to be read or linked, else how much."""
    settled = settled_report(task) if task.is_settled else None
    if settled is not None:
        return settled
    with _opened(task) as bucket:
        return bucket.report() if bucket.is_done else bucket.workload()


def carry_out(task: BucketTask) -> BucketReport:
    """Read what changed, put into a stage what the layer needs, and report.

    StoreError names the file that cannot be read, changed twice, or did not fit on the disk.
    """
    with _opened(task) as bucket:
        bucket.link_known()
        bucket.read_unknown()
        return bucket.report()


@contextmanager
def _opened(task: BucketTask) -> Iterator[_Bucket]:
    """The bucket of a task; errors that cannot travel between processes are translated."""
    folder_fd = -1
    stage = Stage(task.target, task.variant, task.folder_name) if task.target else None
    try:
        folder_fd = open_bucket(task)
        yield _Bucket(task, folder_fd, stage)
    except ManifestError as error:
        raise StoreError(f"{task.place}: {error}", hint=error.hint) from error
    except OSError as error:
        raise disk_error(task.place, error) from error
    finally:
        if folder_fd >= 0:
            os.close(folder_fd)
        if stage is not None:
            stage.close()


def _see(task: BucketTask, folder_fd: int) -> Sight:
    """What lies in the open folder of a bucket; a survey's sight of it, if that still holds."""
    sight = task.sight
    if sight is not None and sight.has_all_names(_mtime_ns(folder_fd)):
        return sight
    # The clock is read first: whatever changes after the listing has a later mtime.
    at_ns = time.time_ns()
    walk = walk_bucket(Path(task.tree), task.variant, task.folder_name, task.layout)
    return Sight(at_ns=at_ns, walk=walk)


def _mtime_ns(folder_fd: int) -> int:
    """The mtime of an open folder, as :class:`Listing` says it of one that is not there."""
    return os.fstat(folder_fd).st_mtime_ns if folder_fd >= 0 else -1


class _Bucket:
    """One bucket while it is worked on; arrays are by row of its look, n rows by ascending id."""

    def __init__(self, task: BucketTask, folder_fd: int, stage: Stage | None) -> None:
        self._task = task
        self._stage = stage
        self._taker = Taker(folder_fd, task.place, stage, task.pieces)
        self._pieces: dict[int, FileHashes] = {}
        self._base = bucket_entries(task.lineage, task.bucket, task.layout.buckets)
        self._sight = _see(task, folder_fd)
        self._walk = self._sight.walk
        self._recall(self._walk.entries, self._sight.at_ns)
        self._compare()
        self._placed: dict[int, Placed] = {}
        self._recall_links()

    def _recall(self, listing: Listing, at_ns: int) -> None:
        """Begin the look with what is still known from the last one."""
        self._look = Look.of(listing, at_ns)
        self._unknown: Bools = np.ones(len(listing), np.bool_)
        self._chunks: dict[int, bytes] = {}
        self._is_news = True
        older = Look.decode(self._task.look)
        if older is not None:
            old, held = older.holding(listing)
            self._chunks = self._look.take_over(older, old, held)
            self._unknown[held] = False
            self._is_news = len(held) < max(len(older), len(listing))

    def _compare(self) -> None:
        """Pair rows with entries of the base at the same path; find known ones that differ."""
        entries = self._look.entries()
        base_rows, rows = match(self._base.ids, entries.ids)
        table = {name: code for code, name in enumerate(entries.extensions)}
        codes = np.array([table.get(name, -1) for name in self._base.extensions] or [-1], np.int64)
        same_path = codes[self._base.exts[base_rows]] == entries.exts[rows]
        self._base_row: I64 = np.full(len(entries), -1, np.int64)
        self._base_row[rows[same_path]] = base_rows[same_path]
        self._to_link: Bools = ~self._unknown
        self._to_link[rows[same_file(self._base, base_rows, entries, rows)]] = False

    def _recall_links(self) -> None:
        """Find what an interrupted run has put into the layer already, and if that is all.

        It is not where a file still has to be read.
        """
        task, target = self._task, self._task.target
        self._found: dict[int, Placed] = {}
        self._is_kept = False
        links = Links.decode(task.links)
        if target is None or links is None:
            return
        listing = list_placed(target, task.variant, task.folder_name)
        found = links.found(target, listing, self._look.entries())
        self._found = {row: placed for row, placed in found.items() if self._to_link[row]}
        dated = all(
            placed.method is Method.HARD or placed.mtime_ns == target.date_ns
            for placed in self._found.values()
        )
        alone = len(listing) == len(self._found) and not listing.others
        complete = not self._unknown.any() and 0 < len(self._found) == int(self._to_link.sum())
        self._is_kept = dated and alone and complete

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to read or link."""
        if self._unknown.any():
            return False
        return self._stage is None or self._is_kept or not self._to_link.any()

    @property
    def _is_shared(self) -> bool:
        """Whether the tree can change what will be served: then its stats must be recorded."""
        target = self._task.target
        return target is None or Method.HARD in target.methods

    def workload(self) -> Workload:
        """What is left to do; a file that has the size it has in the base counts as unchanged."""
        sizes, paired = self._look.sizes, self._base_row >= 0
        copied = self._unknown.copy()
        copied[paired] &= sizes[paired] != self._base.sizes[self._base_row[paired]]
        copied |= self._to_link
        copied[list(self._found)] = False
        blocks = -(-sizes[copied].astype(np.int64) // _BLOCK_BYTES)
        return Workload(
            variant=self._task.variant,
            bucket=self._task.bucket,
            read_files=int(self._unknown.sum()),
            read_bytes=int(sizes[self._unknown].sum()),
            copy_files=int(copied.sum()),
            copy_bytes=int(blocks.sum()) * _BLOCK_BYTES,
            sizes=SizeSums.of(sizes),
            sight=self._sight,
        )

    def link_known(self) -> None:
        """Put into the stage what the layer needs and what is known without reading."""
        stage, look = self._stage, self._look
        if stage is None:
            return
        names = look.names()
        for row in np.flatnonzero(self._to_link).tolist():
            if row in self._found:
                self._placed[row] = stage.reuse(names[row], self._found[row])
                continue
            expected = FileStat(int(look.sizes[row]), int(look.mtimes[row]), int(look.inodes[row]))
            placed = self._taker.place(names[row], stage, expected)
            if placed is None:
                self._unknown[row] = True
            else:
                self._placed[row] = placed

    def read_unknown(self) -> None:
        """Read every file whose digest is not known."""
        rows = np.flatnonzero(self._unknown)
        if not len(rows):
            return
        # Also where all were known, and one changed before it was linked.
        self._is_news = True
        names, take = self._look.names(), self._taker.take
        digests = self._base.digests
        columns = (self._base_row, self._look.sizes, self._look.mtimes, self._look.inodes)
        numbers = zip(rows.tolist(), *(column[rows].tolist() for column in columns), strict=True)
        taken = []
        for row, base_row, *listed in numbers:
            digest = digests[base_row].tobytes() if base_row >= 0 else None
            taken.append(take(names[row], digest, FileStat(*listed)))
            if (placed := taken[-1].placed) is not None:
                self._placed[row] = placed
        self._note(rows, taken)

    def _note(self, rows: Rows, taken: list[Taken]) -> None:
        """Write what was read into the look; a file may have changed since it was listed."""
        look, places = self._look, rows.tolist()
        digests, chunks, contents, stats, _, pieces = zip(*taken, strict=True)
        look.digests[rows] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)
        # Inode numbers have up to 64 bits, and mtimes a sign.
        look.sizes[rows], look.mtimes[rows], look.inodes[rows] = zip(*stats, strict=True)
        look.kinds[rows], look.widths[rows], look.heights[rows], look.problems[rows] = _columns(
            contents
        )
        self._chunks.update(zip(places, chunks, strict=True))
        if self._task.pieces is not None:
            self._pieces.update(zip(places, pieces, strict=True))

    def report(self) -> BucketReport:
        """What became of the bucket; all rows are known by now."""
        task, look = self._task, self._look.with_chunks(self._chunks)
        changes = diff(self._base, look.entries())
        rows = np.sort(np.concatenate([changes.added, changes.changed_new]))
        placement = Placement.STAGED if self._placed else Placement.EMPTY
        if self._is_kept:
            self._placed, placement = self._found, Placement.KEPT
        placed = [self._placed[row] for row in rows.tolist()] if self._stage else []
        put = look.entries().take(rows)
        methods = np.array([item.method for item in placed], np.uint8)
        stats = self._stats(look, rows, placed)
        return BucketReport(
            variant=task.variant,
            bucket=task.bucket,
            put=put,
            removed=np.sort(self._base.ids[changes.removed]),
            stats=stats if self._is_shared else stats[:0],
            files=file_table(look),
            counts=self._counts(changes, put, methods),
            placement=placement,
            assets=self._walk.assets,
            strays=self._walk.strays,
            look=look.encode() if self._is_news else None,
            links=_links(put, stats, methods) if placement is Placement.STAGED else None,
            pieces=self._hashes(put, rows),
        )

    def _hashes(self, put: Entries, rows: Rows) -> bytes | None:
        """The hashes of what is put into the layer; none if not all of it was read just now."""
        plan, hashes = self._task.pieces, self._pieces
        if plan is None or not len(rows) or not all(row in hashes for row in rows.tolist()):
            return None
        return encode_hashes([hashes[row] for row in rows.tolist()], put, plan)

    def _stats(self, look: Look, rows: Rows, placed: list[Placed]) -> StatRows:
        """Rows of the served record: of the files of the layer, or in place those of the tree."""
        stats = np.empty(len(rows), STAT_ROW)
        stats["bucket"] = self._task.bucket
        stats["id"] = look.ids[rows]
        stats["ext"] = np.array(look.extensions or ("",), "S16")[look.exts[rows]]
        stats["size"] = look.sizes[rows]
        stats["mtime_ns"] = [item.mtime_ns for item in placed] if placed else look.mtimes[rows]
        stats["inode"] = [item.inode for item in placed] if placed else look.inodes[rows]
        return stats

    def _counts(self, changes: Difference, put: Entries, methods: U8) -> Counts:
        look, unknown = self._look, self._unknown
        made = np.bincount(methods, minlength=len(Method)).tolist()
        return Counts(
            files=len(look),
            file_bytes=int(look.sizes.sum()),
            added=len(changes.added),
            changed=len(changes.changed_new),
            removed=len(changes.removed),
            hashed=int(unknown.sum()),
            hashed_bytes=int(look.sizes[unknown].sum()),
            linked_bytes=put.file_bytes if len(methods) else 0,
            reflinks=made[Method.REFLINK],
            hard_links=made[Method.HARD],
            copies=made[Method.COPY],
        )


def _columns(tuples: Sequence[tuple[int, ...]]) -> I64:
    """The fields of tuples, at least one, as a row each."""
    numbers = np.fromiter(chain.from_iterable(tuples), np.int64)
    return numbers.reshape(len(tuples), -1).T


def _links(put: Entries, stats: StatRows, methods: U8) -> bytes:
    return Links(
        boot=boot_id(),
        extensions=put.extensions,
        ids=put.ids,
        exts=put.exts,
        digests=put.digests,
        sizes=put.sizes,
        mtimes=np.ascontiguousarray(stats["mtime_ns"]),
        inodes=np.ascontiguousarray(stats["inode"]),
        methods=methods,
    ).encode()
