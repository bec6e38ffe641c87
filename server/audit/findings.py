"""What an audit can find, and how much of it is kept.

A finding is one sort of trouble in one variant: how often, at which ids, and on demand one
:class:`Item` for each place.  Ids are an array, sentences are made when they are asked for, so a
finding about a million posts costs four megabytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

import numpy as np
from msgspec import Struct, field

from manifests.columns import U32
from server.walk import Stray, StrayKind

# So many strays of one sort are kept with their paths; of the others only the ids.
MAX_STRAYS = 100_000


class Severity(StrEnum):
    """Whether a release should wait for it."""

    ERROR = "error"
    NOTICE = "notice"


class FindingKind(StrEnum):
    """The sorts of trouble, in the order that a reader should meet them."""

    TRUNCATED = "truncated"
    EMPTY_FILE = "empty-file"
    UNREADABLE_FILE = "unreadable-file"
    EXTENSION_CONTENT = "extension-content"
    WRONG_BUCKET = "wrong-bucket"
    DUPLICATE_ID = "duplicate-id"
    CASE_TWIN = "case-twin"
    MISPLACED = "misplaced"
    POST_WITHOUT_FILE = "post-without-file"
    FILE_WITHOUT_POST = "file-without-post"
    SIZE_METADATA = "size-metadata"
    DIMENSIONS_METADATA = "dimensions-metadata"
    UNREADABLE_ROW = "unreadable-row"
    EXTENSION_METADATA = "extension-metadata"
    DELETED_WITHOUT_FILE = "deleted-without-file"
    ROW_WITHOUT_ID = "row-without-id"
    REPEATED_ROW = "repeated-row"
    ODD_NAME = "odd-name"


_ORDER = {kind: place for place, kind in enumerate(FindingKind)}


class Item(Struct, frozen=True, kw_only=True):
    """One place of a finding: id (0 if none), path below the tree or file:line, and why."""

    post_id: int
    path: str
    detail: str


class Finding(Struct, frozen=True, kw_only=True, eq=False):
    """One sort of trouble in one variant (empty for the metadata itself).

    ``count`` places have it, ``ids`` are those that have an id, ascending; the first ``listed`` of
    the places can be described.  ``meaning`` is a sentence or two for people.
    """

    kind: FindingKind
    severity: Severity
    variant: str
    meaning: str
    ids: U32
    count: int
    listed: int
    describe: Callable[[int], Item]

    def items(self, limit: int) -> Iterator[Item]:
        """The first places, at most ``limit``."""
        return map(self.describe, range(min(limit, self.listed)))

    @property
    def order(self) -> tuple[bool, int, str]:
        """Errors first, then by kind and variant."""
        return self.severity is Severity.NOTICE, _ORDER[self.kind], self.variant


_STRAYS = {
    StrayKind.WRONG_BUCKET: (
        FindingKind.WRONG_BUCKET,
        Severity.ERROR,
        "Named like a post's file, but outside its bucket, where nobody looks for it.",
    ),
    StrayKind.CASE_TWIN: (
        FindingKind.CASE_TWIN,
        Severity.ERROR,
        "A twin differs only in case; Windows and macOS cannot hold both.",
    ),
    StrayKind.DUPLICATE_ID: (
        FindingKind.DUPLICATE_ID,
        Severity.ERROR,
        "Another file of the variant has the same id.",
    ),
    StrayKind.MISPLACED: (
        FindingKind.MISPLACED,
        Severity.ERROR,
        "Left out of a release: links, devices, and names that some systems refuse.",
    ),
    StrayKind.ODD_NAME: (
        FindingKind.ODD_NAME,
        Severity.NOTICE,
        "In bucket folders, but not named ID.EXT; published as they are.",
    ),
}


def id_finding(  # noqa: PLR0913 (the fields of a finding)
    kind: FindingKind,
    severity: Severity,
    variant: str,
    meaning: str,
    ids: U32,
    describe: Callable[[int], Item],
) -> Iterator[Finding]:
    """A finding of which every place has an id, unless there are none."""
    if len(ids):
        yield Finding(
            kind=kind,
            severity=severity,
            variant=variant,
            meaning=meaning,
            ids=np.ascontiguousarray(ids),
            count=len(ids),
            listed=len(ids),
            describe=describe,
        )


class _Kept(Struct):
    ids: array[int] = field(default_factory=lambda: array("I"))
    strays: list[Stray] = field(default_factory=list)
    count: int = 0


class StrayLog:
    """Strays as they come in, bucket by bucket, in bounded memory."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, StrayKind], _Kept] = {}

    def add(self, variant: str, strays: Iterable[Stray]) -> None:
        """Take the strays of one folder of a variant."""
        for stray in strays:
            kept = self._kept.setdefault((variant, stray.kind), _Kept())
            kept.count += 1
            if stray.post_id:
                kept.ids.append(stray.post_id)
            if len(kept.strays) < MAX_STRAYS:
                kept.strays.append(stray)

    def findings(self) -> Iterator[Finding]:
        """One finding for each variant and sort."""
        for (variant, sort), kept in self._kept.items():
            kind, severity, meaning = _STRAYS[sort]
            strays = sorted(kept.strays, key=lambda stray: (stray.post_id, stray.path))
            yield Finding(
                kind=kind,
                severity=severity,
                variant=variant,
                meaning=meaning,
                ids=np.sort(np.array(kept.ids, np.uint32)),
                count=kept.count,
                listed=len(strays),
                describe=_stray_items(strays),
            )


def _stray_items(strays: list[Stray]) -> Callable[[int], Item]:
    def describe(place: int) -> Item:
        stray = strays[place]
        return Item(post_id=stray.post_id, path=stray.path, detail=stray.reason)

    return describe
