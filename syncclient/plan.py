"""Wanted minus have: what must happen in some buckets.  Pure; columns in, row numbers out.

A file on disk is one of

* *known*: our record of its size and mtime holds, so its digest is known without reading it;
* *unknown*: it must be read before anything is decided, unless its size already tells;
* *foreign*: read, and its digest is that of no layer's entry at this path.  It is the user's.

:func:`compare` decides all that needs no reading and names what to read; :func:`settle` takes the
digests and finishes.  The same two functions serve clone, upgrade, adopt, status and apply.

Numpy takes some microseconds a call however few the rows are, so small buckets are compared many
at a time.  An id has one bucket, so rows of several are told apart by the id alone; a file that
stands in the folder of another bucket must be left out before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import I64, U32, U64, Bools, Entries, among, distinct
from manifests.digest import DIGEST_BYTES
from syncclient.records import Record, joined
from syncclient.release import BucketView
from syncclient.tree import FileStat, Listing

Rows = npt.NDArray[np.intp]


class Comparison(Struct, frozen=True, kw_only=True, eq=False):
    """Buckets before unknown files are read.

    ``wanted_at`` (wanted rows,) is the listing row of each wanted file, -1 for none.  ``known``
    (listing rows,) is the record row that holds, -1 for none.  ``unread`` are listing rows to be
    hashed.
    """

    view: BucketView
    listing: Listing
    record: Record
    wanted_at: Rows
    known: Rows
    unread: Rows

    def unread_names(self) -> list[str]:
        """Names of the files to be hashed."""
        return [self.listing.name(int(row)) for row in self.unread]


class Plan(Struct, frozen=True, kw_only=True, eq=False, dict=True):
    """What is to do in some buckets.

    Rows of ``view.wanted``: ``keep`` is right as it is; ``add`` is not there; ``change`` stands
    there in a version of ours; ``foreign`` is taken by a file of the user's; ``unavailable`` is
    not there and can be had nowhere.  Rows of ``listing``: ``remove`` is ours and no longer
    wanted, ``extra`` is the user's.  ``digests`` (listing rows, 32) are known where ``ours`` is
    true.
    """

    view: BucketView
    listing: Listing
    keep: Rows
    add: Rows
    change: Rows
    foreign: Rows
    unavailable: Rows
    remove: Rows
    extra: Rows
    wanted_at: Rows
    ours: Bools
    digests: npt.NDArray[np.uint8]
    hashed: Bools

    @cached_property
    def fetch(self) -> Rows:
        """Wanted rows whose bytes are needed, ascending."""
        return np.sort(np.concatenate([self.add, self.change, self.foreign]))

    @property
    def fetch_bytes(self) -> int:
        """Bytes of those."""
        return int(self.view.wanted.sizes[self.fetch].sum())

    @cached_property
    def replaces(self) -> list[FileStat | None]:
        """What may be replaced under each name of ``fetch``: our own older or damaged file."""
        found: list[FileStat | None] = [None] * len(self.fetch)
        for place in np.flatnonzero(among(self.fetch, self.change)).tolist():
            found[place] = self.listing.stat(int(self.wanted_at[self.fetch[place]]))
        return found


def _keys(
    ids: U32, exts: npt.NDArray[np.integer[Any]], names: tuple[str, ...], table: dict[str, int]
) -> U64:
    """Id and extension as one number, with one numbering of extensions for all columns."""
    codes = np.array([table[name] for name in names] or [0], np.uint64)
    keys: U64 = (ids.astype(np.uint64) << np.uint64(32)) | codes[exts]
    return keys


def _find(needles: U64, hay: U64) -> Rows:
    """The place of each needle in ``hay`` (unique, any order), -1 for none."""
    if not len(hay):
        return np.full(len(needles), -1, np.intp)
    order = np.argsort(hay, kind="stable")
    place = np.minimum(np.searchsorted(hay, needles, sorter=order), len(hay) - 1)
    found = order[place]
    return np.where(hay[found] == needles, found, -1)


def _table(*parts: tuple[str, ...]) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: code for code, name in enumerate(names)}


def compare(view: BucketView, listing: Listing, record: Record) -> Comparison:
    """Match wanted, listed and recorded files by path; say which must be read."""
    wanted, history = view.wanted, view.history
    table = _table(wanted.extensions, listing.extensions, record.extensions, history.extensions)
    listed = _keys(listing.ids, listing.exts, listing.extensions, table)
    recorded = _keys(record.ids, record.exts, record.extensions, table)
    known = _find(listed, recorded)
    holds = known >= 0
    rows = known[holds]
    holds[holds] = (record.sizes[rows] == listing.sizes[holds]) & (
        record.mtimes[rows] == listing.mtimes[holds]
    )
    known = np.where(holds, known, -1)
    # What was found wrong once may have been put right since by a run that was killed.
    doubted = known >= 0
    doubted[doubted] = ~record.digests[known[doubted]].any(axis=1)
    unknown = np.flatnonzero(~holds)
    if len(unknown):
        once = _mix(_keys(history.ids, history.exts, history.extensions, table), history.sizes)
        here = _mix(listed[unknown], listing.sizes[unknown])
        unknown = unknown[among(here, np.sort(once))]
    return Comparison(
        view=view,
        listing=listing,
        record=record,
        wanted_at=_find(_keys(wanted.ids, wanted.exts, wanted.extensions, table), listed),
        known=known,
        unread=distinct(np.append(unknown, np.flatnonzero(doubted))),
    )


def _mix(keys: U64, sizes: U64) -> U64:
    """Path and size as one number.  Two pairs that meet by chance cost a reading, nothing else."""
    mixed: U64 = keys * np.uint64(0x9E3779B97F4A7C15) ^ sizes
    return mixed


def settle(comparison: Comparison, digests: dict[int, bytes]) -> Plan:
    """Finish a comparison with the digests of its unread rows.

    A row that is missing there (it could not be read, or vanished) counts as foreign.
    """
    view, listing = comparison.view, comparison.listing
    known = comparison.known >= 0
    found = np.zeros((len(listing), DIGEST_BYTES), np.uint8)
    found[known] = comparison.record.digests[comparison.known[known]]
    hashed = np.zeros(len(listing), np.bool_)
    for row, digest in digests.items():
        found[row] = np.frombuffer(digest, np.uint8)
        hashed[row] = True
    once = np.zeros(len(listing), np.bool_)
    once[hashed] = _in_history(view.history, listing, np.flatnonzero(hashed), found)
    ours = known | once
    # Damage stays in doubt: what mends it next may have the very size and time of it.
    found[hashed & ~once] = 0
    at = comparison.wanted_at
    there = at >= 0
    right = there.copy()
    right[there] = ours[at[there]] & (
        (found[at[there]] == view.wanted.digests[there]).all(axis=1)
        & (listing.sizes[at[there]] == view.wanted.sizes[there])
    )
    mine = there.copy()
    mine[there] = ours[at[there]]
    lost = view.absent & ~right
    wanted_rows = np.zeros(len(listing), np.bool_)
    wanted_rows[at[there]] = True
    return Plan(
        view=view,
        listing=listing,
        keep=np.flatnonzero(right),
        add=np.flatnonzero(~there & ~lost),
        change=np.flatnonzero(there & ~right & mine & ~lost),
        foreign=np.flatnonzero(there & ~right & ~mine & ~lost),
        unavailable=np.flatnonzero(lost),
        remove=np.flatnonzero(ours & ~wanted_rows),
        extra=np.flatnonzero(~ours & ~wanted_rows),
        wanted_at=at,
        ours=ours,
        digests=found,
        hashed=hashed,
    )


def _in_history(
    history: Entries, listing: Listing, rows: Rows, digests: npt.NDArray[np.uint8]
) -> Bools:
    """Whether each listed row has the digest of some layer's entry at its very path."""
    if not len(rows):
        return np.zeros(0, np.bool_)
    wide = np.dtype([("key", np.uint64), ("digest", f"V{DIGEST_BYTES}")])
    table = _table(listing.extensions, history.extensions)
    needles, hay = np.empty(len(rows), wide), np.empty(len(history), wide)
    needles["key"] = _keys(listing.ids[rows], listing.exts[rows], listing.extensions, table)
    needles["digest"] = np.ascontiguousarray(digests[rows]).view(f"V{DIGEST_BYTES}")[:, 0]
    hay["key"] = _keys(history.ids, history.exts, history.extensions, table)
    hay["digest"] = np.ascontiguousarray(history.digests).view(f"V{DIGEST_BYTES}")[:, 0]
    step, held, data = wide.itemsize, hay.tobytes(), needles.tobytes()
    known = {held[i : i + step] for i in range(0, len(held), step)}
    return np.array([data[i * step : (i + 1) * step] in known for i in range(len(rows))], np.bool_)


def record_after(plan: Plan, mtimes: I64, folder: slice) -> Record:
    """The record of one bucket as it was found, ``folder`` of the listing: every file of ours.

    ``mtimes`` (listing rows,) are what may be believed of them.
    """
    listing = plan.listing
    rows = np.flatnonzero(plan.ours[folder]) + folder.start
    codes, exts = np.unique(listing.exts[rows], return_inverse=True)
    return Record(
        extensions=tuple(listing.extensions[code] for code in codes.tolist()),
        ids=listing.ids[rows],
        exts=exts.astype(np.uint16),
        sizes=listing.sizes[rows],
        mtimes=mtimes[rows],
        digests=plan.digests[rows],
    )


def merge_placed(known: Sequence[Record], new: Record, places: Rows) -> list[Record]:
    """Records of some buckets, each with the files that were placed there since.

    ``places`` (len(new),) says in which of the buckets each file was placed.
    """
    old = joined(known)
    table = _table(old.extensions, new.extensions)
    old_keys = _keys(old.ids, old.exts, old.extensions, table)
    new_keys = _keys(new.ids, new.exts, new.extensions, table)
    stays = ~among(old_keys, np.sort(new_keys))
    held = np.repeat(np.arange(len(known)), [len(record) for record in known])
    bucket = np.concatenate([held[stays], places])
    order = np.argsort(bucket, kind="stable")
    codes = np.concatenate([old_keys[stays], new_keys]) & np.uint64(2**32 - 1)
    merged = Record(
        extensions=tuple(table),
        ids=np.concatenate([old.ids[stays], new.ids]),
        exts=codes.astype(np.uint16),
        sizes=np.concatenate([old.sizes[stays], new.sizes]),
        mtimes=np.concatenate([old.mtimes[stays], new.mtimes]),
        digests=np.concatenate([old.digests[stays], new.digests]),
    )
    bounds = np.searchsorted(bucket[order], np.arange(len(known) + 1)).tolist()
    return [merged.take(order[first:last]) for first, last in pairwise(bounds)]


def forget(record: Record, names: set[tuple[int, str]]) -> Record:
    """A record without some files, each an id and an extension."""
    pairs = zip(record.ids.tolist(), record.exts.tolist(), strict=True)
    stay = [(post_id, record.extensions[ext]) not in names for post_id, ext in pairs]
    return record.take(np.array(stay, np.bool_))
