"""Metadata against files: the consistency audit of a tree that is to be published.

Pure: tables in, findings out.  What can be judged from the files alone (cut off, empty, wrong
extension, out of place) is judged for every variant.  Against metadata, ids are compared for every
variant, but sizes, dimensions and extensions only for the *primary* one: a variant such as
``512px`` is made anew from the original, so its files differ from metadata by design.

Metadata tells of files as they were uploaded.  A dataset whose files were optimised afterwards
disagrees with it nearly everywhere, and that is how it was made, not damage: a disagreement of the
majority is a notice, one of a few is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
from msgspec import Struct

from manifests.metadata.faults import RowFault
from manifests.paths import Layout
from manifests.units import counted
from server.audit.checks import (
    VariantFiles,
    agreeing_pixels,
    check_agreement,
    check_content,
    check_presence,
)
from server.audit.findings import (
    Finding,
    FindingKind,
    Item,
    Severity,
    StrayLog,
    id_finding,
)
from server.audit.inspection import FileTable
from server.audit.posts import PostTable

PRIMARY_VARIANT = "original"


class AuditReport(Struct, frozen=True, kw_only=True, eq=False):
    """Everything that was found, errors first.

    ``files`` counts the files of each variant; ``posts`` is None where no metadata was given;
    ``primary`` is the variant that was compared with metadata in full.
    """

    findings: tuple[Finding, ...]
    files: Mapping[str, int]
    posts: int | None
    primary: str

    def count(self, severity: Severity) -> int:
        """Places with a finding of this severity."""
        return sum(f.count for f in self.findings if f.severity is severity)

    @property
    def verdict(self) -> str:
        """``3 errors and 1 notice``, for a title."""
        if not self.findings:
            return "Nothing was found."
        errors, notices = self.count(Severity.ERROR), self.count(Severity.NOTICE)
        return f"{counted(errors, 'error')} and {counted(notices, 'notice')}"

    @property
    def counts(self) -> dict[str, int]:
        """Places by kind, over all variants."""
        totals: Counter[str] = Counter()
        for finding in self.findings:
            totals[finding.kind.value] += finding.count
        return dict(totals)


def audit_files(
    files: Mapping[str, FileTable], posts: PostTable | None, strays: StrayLog, layout: Layout
) -> AuditReport:
    """Compare the files of every variant with themselves and, if given, with metadata."""
    variants = [
        VariantFiles(name=name, files=table, layout=layout)
        for name, table in sorted(files.items())
    ]
    primary = _primary(variants, posts)
    found = list(strays.findings())
    for variant in variants:
        found += check_content(variant)
        if posts is not None:
            found += check_presence(variant, posts, primary=variant.name == primary)
        if posts is not None and variant.name == primary:
            found += check_agreement(variant, posts)
    if posts is not None:
        found += _row_findings(posts)
    return AuditReport(
        findings=tuple(sorted(found, key=lambda finding: finding.order)),
        files={name: len(table) for name, table in files.items()},
        posts=None if posts is None else len(posts),
        primary=primary,
    )


def _primary(variants: list[VariantFiles], posts: PostTable | None) -> str:
    """``original``, or the variant whose dimensions agree with most posts, or the first."""
    names = [variant.name for variant in variants]
    if PRIMARY_VARIANT in names or posts is None:
        return PRIMARY_VARIANT if PRIMARY_VARIANT in names else next(iter(names), "")
    return max(variants, key=lambda variant: agreeing_pixels(variant, posts)).name


def _row_findings(posts: PostTable) -> Iterator[Finding]:
    """What cannot be read, hidden posts, and posts told of twice."""
    hidden = posts.faults.get(RowFault.NO_ID, 0)
    bad = sum(posts.faults.values()) - hidden
    if bad:
        yield Finding(
            kind=FindingKind.UNREADABLE_ROW,
            severity=Severity.ERROR,
            variant="",
            meaning="Metadata that cannot be read: lines, or fields, which count as not stated.",
            ids=np.empty(0, np.uint32),
            count=bad,
            listed=len(posts.bad_rows),
            describe=lambda place: _bad_row_item(posts, place),
        )
    if hidden:
        yield Finding(
            kind=FindingKind.ROW_WITHOUT_ID,
            severity=Severity.NOTICE,
            variant="",
            meaning="Rows of metadata that hide their id (banned or gold-only posts).",
            ids=np.empty(0, np.uint32),
            count=hidden,
            listed=0,
            describe=lambda _: Item(post_id=0, path="", detail=""),
        )
    yield from _repeated(posts)


def _bad_row_item(posts: PostTable, place: int) -> Item:
    row = posts.bad_rows[place]
    where = f"{row.file}:{row.line}" if row.line else row.file
    return Item(post_id=0, path=where, detail=row.problem)


def _repeated(posts: PostTable) -> Iterator[Finding]:
    ids = np.sort(posts.superseded)
    yield from id_finding(
        FindingKind.REPEATED_ROW,
        Severity.NOTICE,
        "",
        "Rows about a post that a later row tells of again; the later one is used.",
        ids,
        lambda place: Item(post_id=int(ids[place]), path="", detail="a later row is used"),
    )
