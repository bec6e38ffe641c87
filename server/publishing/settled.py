"""Buckets that are as the base release holds them: what most buckets of a publish are.

They cost a listing and a comparison with what is remembered, and a listing of each guarded layer
that has files of them.
"""

from __future__ import annotations

import os

import numpy as np

from manifests.columns import empty
from server.audit.inspection import FileTable
from server.audit.tables import FILE_ROW
from server.publishing.guards import is_intact
from server.publishing.links import disk_error
from server.publishing.look import Found, Look
from server.publishing.work import BucketReport, BucketTask, Counts, Placement
from server.record import STAT_ROW
from syncclient.tree import open_below


def settled_report(task: BucketTask) -> BucketReport | None:
    """The report of a bucket that is as the base holds it; None if that takes a closer look."""
    look = Look.decode(task.look)
    if look is None:
        return None
    try:
        found = _find_just(task, look)
    except OSError as error:
        raise disk_error(task.place, error) from error
    if found is None:
        return None
    guarded = task.guarded
    intact = guarded is not None and all(is_intact(part, found) for part in guarded)
    return _unchanged_report(task, look, intact=intact)


def _find_just(task: BucketTask, look: Look) -> Found | None:
    folder_fd = open_bucket(task)
    if folder_fd < 0:
        return None
    try:
        return look.find_all(folder_fd)
    finally:
        os.close(folder_fd)


def _unchanged_report(task: BucketTask, look: Look, *, intact: bool) -> BucketReport:
    return BucketReport(
        variant=task.variant,
        bucket=task.bucket,
        put=empty(),
        removed=np.empty(0, np.uint32),
        stats=np.empty(0, STAT_ROW),
        files=file_table(look),
        counts=Counts(files=len(look), file_bytes=int(look.sizes.sum())),
        placement=Placement.EMPTY,
        assets=(),
        strays=(),
        look=None,
        links=None,
        pieces=None,
        is_intact=intact,
    )


def open_bucket(task: BucketTask) -> int:
    """The folder of a bucket, or -1 if there is none."""
    root_fd = os.open(task.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_below(root_fd, (task.variant, task.folder_name))
    except FileNotFoundError:
        return -1
    finally:
        os.close(root_fd)


def file_table(look: Look) -> FileTable:
    """What the audit wants to know of the files that were looked at."""
    rows = np.empty(len(look), FILE_ROW)
    rows["id"], rows["size"], rows["ext"] = look.ids, look.sizes, look.exts
    rows["width"], rows["height"] = look.widths, look.heights
    rows["kind"], rows["problem"] = look.kinds, look.problems
    return FileTable(rows=rows, extensions=look.extensions)
