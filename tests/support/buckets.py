"""One bucket as a client sees it: what is wanted, what is there, what is remembered.

Files are few words here, ``{"11.png": b"bytes"}``, and become the columns that plans work on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from manifests.columns import Entries, concat, empty
from manifests.digest import digest_bytes
from manifests.paths import parse_entry_name
from syncclient.plan import Comparison, compare, settle
from syncclient.plan import Plan as RawPlan
from syncclient.records import EMPTY_RECORD, Record
from syncclient.release import BucketView
from syncclient.tree import Listing
from tests.support.releases import entries_of

S = 10**9


@dataclass(frozen=True, kw_only=True)
class There:
    """A file on disk."""

    data: bytes
    mtime_ns: int = 50 * S
    inode: int = 1


def _parsed(name: str) -> tuple[int, str]:
    found = parse_entry_name(name)
    assert found is not None
    return found


def to_entries(files: Mapping[str, bytes]) -> Entries:
    """Entries of some names; an id has one name."""
    parsed = {_parsed(name): data for name, data in files.items()}
    return entries_of({number: (ext, data) for (number, ext), data in parsed.items()})


def to_view(
    wanted: Mapping[str, bytes],
    past: Sequence[Mapping[str, bytes]] = (),
    absent: Collection[str] = (),
) -> BucketView:
    """A bucket that wants some files, and whose layers also held those of the past."""
    entries = to_entries(wanted)
    return BucketView(
        wanted=entries,
        absent=np.array([name in absent for name in entries.names()], np.bool_),
        history=concat([entries, *map(to_entries, past)]) if wanted or past else empty(),
    )


def to_listing(files: Mapping[str, There]) -> Listing:
    """What a folder holds."""
    rows = sorted((*_parsed(name), there) for name, there in files.items())
    table = list(dict.fromkeys(ext for _, ext, _ in rows))
    return Listing(
        extensions=tuple(table),
        ids=np.array([number for number, _, _ in rows], np.uint32),
        exts=np.array([table.index(ext) for _, ext, _ in rows], np.uint32),
        sizes=np.array([len(there.data) for _, _, there in rows], np.uint64),
        mtimes=np.array([there.mtime_ns for _, _, there in rows], np.int64),
        inodes=np.array([there.inode for _, _, there in rows], np.uint64),
        folder_mtime_ns=40 * S,
    )


def to_record(files: Mapping[str, There]) -> Record:
    """What is remembered of files as they were."""
    if not files:
        return EMPTY_RECORD
    listing = to_listing(files)
    digests = [digest_bytes(files[listing.name(row)].data) for row in range(len(listing))]
    return Record(
        extensions=listing.extensions,
        ids=listing.ids,
        exts=listing.exts.astype(np.uint16),
        sizes=listing.sizes,
        mtimes=listing.mtimes,
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
    )


def forged(record: Record, name: str) -> Record:
    """A record whose digest of one file is that of no file: it was found damaged."""
    number, _ = _parsed(name)
    digests = record.digests.copy()
    digests[record.ids == number] = 0
    return replace(record, digests=digests)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan by names."""

    keep: set[str]
    add: set[str]
    change: set[str]
    foreign: set[str]
    unavailable: set[str]
    remove: set[str]
    extra: set[str]
    read: set[str]
    raw: RawPlan
    comparison: Comparison


def plan_of(view: BucketView, files: Mapping[str, There], record: Record) -> Plan:
    """Compare, read what has to be read, and settle."""
    listing = to_listing(files)
    comparison = compare(view, listing, record)
    read = comparison.unread_names()
    digests = [digest_bytes(files[name].data) for name in read]
    rows = comparison.unread.tolist()
    raw = settle(comparison, dict(zip(rows, digests, strict=True)))
    names = view.wanted.names()

    def wanted(rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> set[str]:
        return {names[row] for row in rows.tolist()}

    def listed(rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> set[str]:
        return {listing.name(row) for row in rows.tolist()}

    return Plan(
        keep=wanted(raw.keep),
        add=wanted(raw.add),
        change=wanted(raw.change),
        foreign=wanted(raw.foreign),
        unavailable=wanted(raw.unavailable),
        remove=listed(raw.remove),
        extra=listed(raw.extra),
        read=set(read),
        raw=raw,
        comparison=comparison,
    )
