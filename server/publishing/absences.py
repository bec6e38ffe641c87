"""Bytes that the publisher's tree has lost since they were published.

Only layers that share their bytes with a tree can lose any: those published with ``--in-place``
and those of hard links (:mod:`server.record`).  Each of their files is compared with its record;
one that differs is *overwritten*, one that is not there is *gone*, and both become a signed
notice, so that clients wait for neither.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from manifests.columns import U32
from manifests.notices import Absence, Notices
from manifests.paths import Layout
from server.publishing.crew import Crew
from server.publishing.look import are_as_recorded
from server.record import ServedRecord, StatRows
from syncclient.tree import Listing, list_bucket, open_below

OVERWRITTEN: Final = "overwritten"
GONE: Final = "gone"
# Fewer folders are looked at before other processes have started.
_ALONE_FOLDERS: Final = 50
# Folders that a worker looks at for one message.
_BATCH: Final = 8

_Place = tuple[str, str, int]
_Name = tuple[int, bytes]
_Stat = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuardTask:
    """One bucket folder below ``root``, and by layer what its files in there should be."""

    root: str
    variant: str
    folder_name: str
    expected: Mapping[str, StatRows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lost:
    """Ids of one bucket that a layer has lost, ascending."""

    layer: str
    variant: str
    overwritten: U32
    gone: U32


def find_lost(task: GuardTask) -> list[Lost]:
    """Compare one bucket folder with the record of each layer, by the stats of its files."""
    parts = (task.variant, task.folder_name)
    try:
        unlike = _unlike(task, parts)
        seen = _seen(list_bucket(task.root, parts)) if unlike else {}
    except FileNotFoundError:
        unlike, seen = task.expected, {}
    return [_lost(task, layer, rows, seen) for layer, rows in unlike.items()]


def _unlike(task: GuardTask, parts: tuple[str, ...]) -> Mapping[str, StatRows]:
    """What is expected of those layers of which not all is as expected: mostly of none."""
    root_fd = os.open(task.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        folder_fd = open_below(root_fd, parts)
    finally:
        os.close(root_fd)
    try:
        return {
            layer: rows for layer, rows in task.expected.items() if not _is_as(rows, folder_fd)
        }
    finally:
        os.close(folder_fd)


def _is_as(rows: StatRows, folder_fd: int) -> bool:
    pairs = zip(rows["id"].tolist(), rows["ext"].tolist(), strict=True)
    names = [b"%d.%b" % pair for pair in pairs]
    return are_as_recorded(folder_fd, names, rows["size"], rows["mtime_ns"], rows["inode"])


def _seen(listing: Listing) -> dict[_Name, _Stat]:
    extensions = [name.encode() for name in listing.extensions]
    names = zip(listing.ids.tolist(), [extensions[code] for code in listing.exts], strict=True)
    stats = zip(
        listing.sizes.tolist(), listing.mtimes.tolist(), listing.inodes.tolist(), strict=True
    )
    return dict(zip(names, stats, strict=True))


def _lost(task: GuardTask, layer: str, rows: StatRows, seen: Mapping[_Name, _Stat]) -> Lost:
    ids = np.ascontiguousarray(rows["id"])
    columns = [rows[name].tolist() for name in ("id", "ext", "size", "mtime_ns", "inode")]
    found = [(seen.get(row[:2]), row[2:]) for row in zip(*columns, strict=True)]
    gone = np.array([stat is None for stat, _ in found], np.bool_)
    differs = np.array([stat != expected for stat, expected in found], np.bool_)
    return Lost(
        layer=layer, variant=task.variant, overwritten=ids[differs & ~gone], gone=ids[gone]
    )


def current_notices(
    crew: Crew, record: ServedRecord, layers: Iterable[str], layout: Layout, before: Notices
) -> Notices:
    """The notices ``before``, with those about guarded ``layers`` as they are now.

    A file that came back as it was, inode and all, is no longer absent.
    """
    guarded = [layer for layer in layers if record.source(layer) is not None]
    ids: defaultdict[tuple[str, str, str], list[U32]] = defaultdict(list)
    # Layers published from one tree share its folders, and each folder is listed once.
    places = _places(record, guarded)
    tasks = (_task(record, place, held, layout) for place, held in places.items())
    alone = len(places) < _ALONE_FOLDERS
    for found in crew.run(find_lost, tasks, here=alone, batch=_BATCH):
        for lost in found:
            ids[lost.layer, lost.variant, OVERWRITTEN].append(lost.overwritten)
            ids[lost.layer, lost.variant, GONE].append(lost.gone)
    kept = [
        absence
        for absence in before.absences
        if absence.layer not in guarded or absence.reason not in {OVERWRITTEN, GONE}
    ]
    news = [
        Absence(layer=layer, variant=variant, ids=np.sort(np.concatenate(parts)), reason=reason)
        for (layer, variant, reason), parts in ids.items()
        if any(len(part) for part in parts)
    ]
    return Notices(absences=tuple(sorted(kept + news, key=lambda absence: absence.order)))


def _places(record: ServedRecord, guarded: Iterable[str]) -> dict[_Place, list[str]]:
    """Root, variant and bucket of every folder with files of guarded layers, and these layers."""
    places: defaultdict[_Place, list[str]] = defaultdict(list)
    for layer in guarded:
        source = record.source(layer)
        root = str(source.folder) if source is not None else ""
        for variant in record.variants(layer):
            for bucket in record.buckets(layer, variant):
                places[root, variant, bucket].append(layer)
    return places


def _task(record: ServedRecord, place: _Place, layers: Iterable[str], layout: Layout) -> GuardTask:
    root, variant, bucket = place
    rows = {layer: record.expected(layer, variant, bucket) for layer in layers}
    return GuardTask(
        root=root,
        variant=variant,
        folder_name=layout.bucket_name(bucket),
        # Copies, since a map of a whole file would be sent with each task.
        expected={layer: np.array(part) for layer, part in rows.items() if part is not None},
    )
