"""Bytes that the publisher's tree has lost since they were published.

Only layers that share their bytes with a tree can lose any: those published with ``--in-place``
and those of hard links (:mod:`server.record`).  Each of their files is compared with its record;
one that differs is *overwritten*, one that is not there is *gone*, and both become a signed
notice, so that clients wait for neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from manifests.columns import U32
from manifests.notices import Absence, Notices
from manifests.paths import Layout
from server.crew import Crew
from server.record import ServedRecord, StatRows
from syncclient.tree import Listing, list_bucket

OVERWRITTEN: Final = "overwritten"
GONE: Final = "gone"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GuardTask:
    """One bucket of a guarded layer: the folder of its variants, and what its files should be."""

    root: str
    layer: str
    variant: str
    folder_name: str
    expected: StatRows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lost:
    """Ids of one bucket that are lost, ascending."""

    layer: str
    variant: str
    overwritten: U32
    gone: U32


def find_lost(task: GuardTask) -> Lost:
    """Compare one bucket with its record, by the stats of its files."""
    try:
        listing = list_bucket(task.root, (task.variant, task.folder_name))
    except FileNotFoundError:
        listing = Listing()
    stats = zip(
        listing.sizes.tolist(), listing.mtimes.tolist(), listing.inodes.tolist(), strict=True
    )
    seen = {listing.name(row): stat for row, stat in enumerate(stats)}
    rows = task.expected
    found = [
        seen.get(f"{post_id}.{ext.decode()}")
        for post_id, ext in zip(rows["id"].tolist(), rows["ext"].tolist(), strict=True)
    ]
    wanted = zip(
        rows["size"].tolist(), rows["mtime_ns"].tolist(), rows["inode"].tolist(), strict=True
    )
    same = [stat == want for stat, want in zip(found, wanted, strict=True)]
    missing = np.array([stat is None for stat in found], np.bool_)
    ids = np.asarray(rows["id"], np.uint32)
    return Lost(
        layer=task.layer,
        variant=task.variant,
        overwritten=ids[~np.array(same, np.bool_) & ~missing],
        gone=ids[missing],
    )


def current_notices(
    crew: Crew, record: ServedRecord, layers: Iterable[str], layout: Layout, before: Notices
) -> Notices:
    """The notices ``before``, with those about guarded ``layers`` as they are now.

    A file that came back as it was, inode and all, is no longer absent.
    """
    guarded = [layer for layer in layers if record.source(layer) is not None]
    ids: defaultdict[tuple[str, str, str], list[U32]] = defaultdict(list)
    for lost in crew.run(find_lost, _tasks(record, guarded, layout)):
        ids[lost.layer, lost.variant, OVERWRITTEN].append(lost.overwritten)
        ids[lost.layer, lost.variant, GONE].append(lost.gone)
    kept = [
        absence
        for absence in before.absences
        if absence.layer not in guarded or absence.reason not in {OVERWRITTEN, GONE}
    ]
    found = [
        Absence(layer=layer, variant=variant, ids=np.sort(np.concatenate(parts)), reason=reason)
        for (layer, variant, reason), parts in ids.items()
        if any(len(part) for part in parts)
    ]
    return Notices(absences=tuple(sorted(kept + found, key=lambda absence: absence.order)))


def _tasks(record: ServedRecord, layers: Iterable[str], layout: Layout) -> Iterator[GuardTask]:
    for layer in layers:
        source = record.source(layer)
        if source is None:
            continue
        for variant in record.variants(layer):
            for bucket in record.buckets(layer, variant):
                yield GuardTask(
                    root=str(source.folder),
                    layer=layer,
                    variant=variant,
                    folder_name=layout.bucket_name(bucket),
                    expected=np.array(record.expected(layer, variant, bucket)),
                )
