"""Bytes that the publisher's tree has lost since they were published.

Only layers that share their bytes with a tree can lose any: those published with ``--in-place``
and those of hard links (:mod:`server.record`).  Each of their files is compared with its record;
one that differs is *overwritten*, one that is not there is *gone*, and both become a signed
notice, so that clients wait for neither.  Most buckets have been found intact
when the tree was looked at (:mod:`server.publishing.guards`); this is about all others.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct

from manifests.columns import U32
from manifests.notices import Absence, Notices
from manifests.paths import Layout
from server.publishing.crew import Crew
from server.publishing.guards import GuardTask, is_as_recorded, opened
from server.record import ServedRecord, StatRows
from syncclient.tree import Listing, list_bucket

OVERWRITTEN: Final = "overwritten"
GONE: Final = "gone"
# Fewer folders are looked at before other processes have started.
_ALONE_FOLDERS: Final = 50
# Folders that a worker looks at for one message.
_BATCH: Final = 8
_MOUNTS: Final = Path("/proc/self/mountinfo")

_Name = tuple[int, bytes]
_Stat = tuple[int, int, int]


class Lost(Struct, frozen=True, kw_only=True, eq=False):
    """Ids of one bucket that a layer has lost, ascending."""

    layer: str
    variant: str
    overwritten: U32
    gone: U32


def find_lost(task: GuardTask) -> list[Lost]:
    """Compare one bucket folder with the record of each layer, by the stats of its files."""
    try:
        unlike = _unlike(task)
        parts = (task.variant, task.folder_name)
        seen = _seen(list_bucket(task.root, parts)) if unlike else {}
    except FileNotFoundError:
        unlike, seen = task.expected, {}
    return [_lost(task, layer, rows, seen) for layer, rows in unlike.items()]


def _unlike(task: GuardTask) -> Mapping[str, StatRows]:
    """What is expected of those layers of which not all is as expected: mostly of none."""
    with opened(task) as folder_fd:
        return {
            layer: rows
            for layer, rows in task.expected.items()
            if not is_as_recorded(rows, folder_fd)
        }


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


class Guard:
    """Looks after the guarded ones of ``layers``: whether they still have what was published."""

    def __init__(self, record: ServedRecord, layers: Iterable[str], layout: Layout) -> None:
        self._record = record
        self._layers = sorted(layers)
        self._layout = layout

    def tasks(self, variant: str, bucket: int) -> tuple[GuardTask, ...] | None:
        """What there is to look at of one bucket; None if a listing cannot be trusted there.

        It does not tell of what is mounted over a file.
        """
        roots = self._places.get((variant, bucket), {})
        if not self._mounted.isdisjoint(roots):
            return None
        return tuple(self._task(root, variant, bucket, layers) for root, layers in roots.items())

    def notices(self, crew: Crew, before: Notices, intact: Iterable[tuple[str, int]]) -> Notices:
        """The notices ``before``, with those about guarded layers as they are now.

        Buckets that a survey has found ``intact`` are not looked at.
        A file that came back as it was, inode and all, is no longer absent.
        """
        ids: defaultdict[tuple[str, str, str], list[U32]] = defaultdict(list)
        known = frozenset(intact)
        places = [
            (root, *place, layers)
            for place, roots in self._places.items()
            if place not in known
            for root, layers in roots.items()
        ]
        tasks = (self._task(*place) for place in places)
        alone = len(places) < _ALONE_FOLDERS
        for found in crew.run(find_lost, tasks, here=alone, batch=_BATCH):
            for lost in found:
                ids[lost.layer, lost.variant, OVERWRITTEN].append(lost.overwritten)
                ids[lost.layer, lost.variant, GONE].append(lost.gone)
        kept = [
            absence
            for absence in before.absences
            if absence.layer not in self._sources or absence.reason not in {OVERWRITTEN, GONE}
        ]
        news = [
            Absence(
                layer=layer, variant=variant, ids=np.sort(np.concatenate(parts)), reason=reason
            )
            for (layer, variant, reason), parts in ids.items()
            if any(len(part) for part in parts)
        ]
        return Notices(absences=tuple(sorted(kept + news, key=lambda absence: absence.order)))

    @cached_property
    def _sources(self) -> dict[str, str]:
        """Where the files of each guarded layer lie."""
        sources = {layer: self._record.source(layer) for layer in self._layers}
        return {
            layer: str(source.folder) for layer, source in sources.items() if source is not None
        }

    @cached_property
    def _places(self) -> dict[tuple[str, int], dict[str, list[str]]]:
        """By variant and bucket the roots of guarded layers with files there, and these layers.

        Layers published from one tree share its folders, and each folder is looked at once.
        """
        places: dict[tuple[str, int], dict[str, list[str]]] = {}
        for layer, root in self._sources.items():
            for variant in self._record.variants(layer):
                for bucket in self._record.buckets(layer, variant):
                    places.setdefault((variant, bucket), {}).setdefault(root, []).append(layer)
        return places

    @cached_property
    def _mounted(self) -> frozenset[str]:
        """The roots of guarded layers that have mounts in them."""
        return frozenset(root for root in set(self._sources.values()) if has_mounts(root))

    def _task(self, root: str, variant: str, bucket: int, layers: Iterable[str]) -> GuardTask:
        rows = {layer: self._record.expected(layer, variant, bucket) for layer in layers}
        return GuardTask(
            root=root,
            variant=variant,
            folder_name=self._layout.bucket_name(bucket),
            # Copies, since a map of a whole file would be sent with each task.
            expected={layer: np.array(part) for layer, part in rows.items() if part is not None},
        )


def has_mounts(folder: str, table: Path = _MOUNTS) -> bool:
    """Whether something is mounted below a folder, or may be: where the system does not tell."""
    # proc_pid_mountinfo(5): the fifth field, with these bytes as octal numbers, and no others: a
    # carriage return ends no line.
    path = os.fsencode(os.path.realpath(folder))
    inside = re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % ord(found[0]), path) + b"/"
    try:
        with table.open("rb") as lines:
            return any(line.split(b" ", 5)[4].startswith(inside) for line in lines)
    except OSError:
        return True
