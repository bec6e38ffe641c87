"""Files against themselves and against metadata: what is found, how grave, and at which ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from manifests.metadata.faults import BadRow, RowFault
from manifests.paths import Layout
from server.audit.auditing import AuditReport, audit_files
from server.audit.content import Kind, Problem
from server.audit.findings import MAX_STRAYS, Finding, FindingKind, Severity, StrayLog
from server.audit.inspection import FileTable
from server.audit.posts import PostTable
from server.audit.tables import FILE_ROW
from server.walk import Stray, StrayKind
from tests.support import metadata
from tests.support.metadata import post_table

LAYOUT = Layout(buckets=10, digits=2)
SIZE, WIDTH, HEIGHT = 100, 30, 20


def files(extensions: Mapping[int, str], **columns: Mapping[int, int]) -> FileTable:
    """Whole JPEGs of 100 bytes and 30 x 20 pixels, but for what ``columns`` say by id."""
    ids = sorted(extensions)
    table = tuple(sorted(set(extensions.values())))
    defaults = {"size": SIZE, "width": WIDTH, "height": HEIGHT, "kind": Kind.JPEG, "problem": 0}
    rows = np.zeros(len(ids), FILE_ROW)
    rows["id"] = ids
    rows["ext"] = [table.index(extensions[post_id]) for post_id in ids]
    for name, default in defaults.items():
        rows[name] = [columns.get(name, {}).get(post_id, default) for post_id in ids]
    return FileTable(rows=rows, extensions=table)


def jpegs(ids: Iterable[int], **columns: Mapping[int, int]) -> FileTable:
    return files(dict.fromkeys(ids, "jpg"), **columns)


def post(post_id: int, **fields: object) -> bytes:
    told = {"file_size": SIZE, "image_width": WIDTH, "image_height": HEIGHT}
    return metadata.post(post_id, **(told | fields))


def posts(ids: Iterable[int], **fields: object) -> PostTable:
    return post_table(post(post_id, **fields) for post_id in ids)


def audit(
    original: FileTable, told: PostTable | None = None, **others: FileTable
) -> dict[tuple[str, str], Finding]:
    return by_kind(audit_files({"original": original, **others}, told, StrayLog(), LAYOUT))


def by_kind(report: AuditReport) -> dict[tuple[str, str], Finding]:
    return {(finding.variant, finding.kind.value): finding for finding in report.findings}


def items(finding: Finding) -> list[tuple[int, str, str]]:
    return [(item.post_id, item.path, item.detail) for item in finding.items(100)]


def test_nothing_is_found_where_everything_agrees() -> None:
    assert audit(jpegs(range(1, 9)), posts(range(1, 9)), small=jpegs(range(1, 9))) == {}


def test_files_are_judged_without_metadata_too() -> None:
    kinds = {2: Kind.EMPTY, 3: Kind.PNG, 5: Kind.UNKNOWN}
    problems = {4: Problem.NO_END, 5: Problem.UNREADABLE}
    found = audit(jpegs(range(1, 7), kind=kinds, problem=problems, size={2: 0}))
    assert {kind: items(finding) for (_, kind), finding in found.items()} == {
        "empty-file": [(2, "original/02/2.jpg", "0 bytes")],
        "extension-content": [(3, "original/03/3.jpg", "named .jpg, holds PNG")],
        "truncated": [(4, "original/04/4.jpg", "JPEG: its end is missing")],
        "unreadable-file": [(5, "original/05/5.jpg", "the file cannot be read")],
    }
    assert {finding.severity for finding in found.values()} == {Severity.ERROR}


@pytest.mark.parametrize(
    ("extension", "kind", "agrees"),
    [
        ("jpg", Kind.JPEG, True),
        ("JPEG", Kind.JPEG, True),
        ("png", Kind.JPEG, False),
        ("zip", Kind.ZIP, True),
        ("mp4", Kind.WEBM, False),
        ("gif", Kind.UNKNOWN, False),
        ("txt", Kind.UNKNOWN, True),
        ("dat", Kind.PNG, True),
        ("png", Kind.HTML, False),
    ],
)
def test_extension_against_content(extension: str, kind: Kind, *, agrees: bool) -> None:
    found = audit(files({1: extension, 2: "jpg"}, kind={1: kind}))
    assert (("original", "extension-content") not in found) is agrees


def test_posts_without_a_file_and_files_without_a_post() -> None:
    told = post_table(
        [*map(post, (1, 2, 3, 9)), post(4, is_deleted=True), post(6, is_banned=True)]
    )
    found = audit(jpegs([1, 2, 5]), told)
    missing = found["original", "post-without-file"]
    assert missing.ids.tolist() == [3, 9]
    assert missing.severity is Severity.ERROR
    assert "6 posts" in missing.meaning
    assert "1 of them come after the last file (5)" in missing.meaning
    gone = found["original", "deleted-without-file"]
    assert (gone.ids.tolist(), gone.severity) == ([4, 6], Severity.NOTICE)
    orphan = found["original", "file-without-post"]
    assert items(orphan) == [(5, "original/05/5.jpg", "no post has this id")]
    assert orphan.severity is Severity.ERROR


def test_rows_without_an_id_may_explain_files_without_a_post() -> None:
    hidden = BadRow(file="posts.json", line=7, fault=RowFault.NO_ID, problem="hidden")
    found = audit(jpegs([1, 2]), post_table([post(1)], [hidden]))
    assert "rows without an id (1)" in found["original", "file-without-post"].meaning
    row = found["", "row-without-id"]
    assert (row.count, row.severity, items(row)) == (1, Severity.NOTICE, [])


@pytest.mark.parametrize(("held", "severity"), [(99, Severity.ERROR), (95, Severity.NOTICE)])
def test_a_further_variant_may_be_made_for_a_part_of_the_posts(
    held: int, severity: Severity
) -> None:
    every = range(1, 101)
    found = audit(jpegs(every), posts(every), small=jpegs(range(1, held + 1)))
    missing = found["small", "post-without-file"]
    assert (missing.count, missing.severity) == (100 - held, severity)
    assert ("original", "post-without-file") not in found


@pytest.mark.parametrize(("wrong", "severity"), [(4, Severity.ERROR), (5, Severity.NOTICE)])
def test_a_majority_that_disagrees_is_a_notice(wrong: int, severity: Severity) -> None:
    sizes = dict.fromkeys(range(1, wrong + 1), 7)
    found = audit(jpegs(range(1, 9), size=sizes), posts(range(1, 9)))
    assert found["original", "size-metadata"].severity is severity


def test_few_sizes_that_disagree_are_errors() -> None:
    found = audit(jpegs(range(1, 9), size={3: 7}), posts(range(1, 9)))
    sizes = found["original", "size-metadata"]
    assert items(sizes) == [(3, "original/03/3.jpg", "7 bytes, metadata says 100")]
    assert sizes.severity is Severity.ERROR


def test_sizes_that_mostly_disagree_are_how_the_dataset_was_made() -> None:
    found = audit(jpegs(range(1, 9), size=dict.fromkeys(range(1, 6), 7)), posts(range(1, 9)))
    sizes = found["original", "size-metadata"]
    assert (sizes.count, sizes.severity) == (5, Severity.NOTICE)
    assert "62% of 8" in sizes.meaning
    assert "optimised" in sizes.meaning


def test_dimensions_that_disagree() -> None:
    table = jpegs(range(1, 9), width={2: 31, 3: HEIGHT, 4: HEIGHT}, height={3: WIDTH, 4: WIDTH})
    table.rows["kind"][3] = Kind.PNG
    found = audit(table, posts(range(1, 9)))
    pixels = found["original", "dimensions-metadata"]
    assert items(pixels) == [
        (2, "original/02/2.jpg", "31 x 20 pixels, metadata says 30 x 20"),
        (4, "original/04/4.jpg", "20 x 30 pixels, metadata says 30 x 20"),
    ]
    assert pixels.severity is Severity.ERROR


def test_what_is_not_stated_does_not_disagree() -> None:
    unknown = dict.fromkeys(range(1, 4), 0)
    told = posts(range(1, 9), file_size=0, file_ext="")
    assert audit(jpegs(range(1, 9), width=unknown, height=unknown), told) == {}
    assert audit(jpegs(range(1, 9)), posts(range(1, 9), image_width=0)) == {}


def test_another_extension_than_metadata_says_is_a_notice() -> None:
    told = post_table([post(1, file_ext="png"), post(2, file_ext="JPG"), post(3)])
    found = audit(jpegs([1, 2, 3]), told)
    other = found["original", "extension-metadata"]
    assert items(other) == [(1, "original/01/1.jpg", "metadata says .png")]
    assert other.severity is Severity.NOTICE


def test_only_the_primary_variant_is_compared_in_full() -> None:
    every = range(1, 9)
    scaled = jpegs(every, size=dict.fromkeys(every, 5), width=dict.fromkeys(every, 3))
    assert audit(jpegs(every), posts(every), small=scaled) == {}


def test_without_an_original_the_variant_that_agrees_is_primary() -> None:
    every = range(1, 9)
    scaled = jpegs(every, width=dict.fromkeys(every, 3))
    report = audit_files({"a": scaled, "b": jpegs(every)}, posts(every), StrayLog(), LAYOUT)
    assert (report.primary, report.findings) == ("b", ())
    report = audit_files({"a": scaled}, posts(every), StrayLog(), LAYOUT)
    assert report.primary == "a"
    assert [finding.severity for finding in report.findings] == [Severity.NOTICE]


def test_rows_that_cannot_be_read_are_named() -> None:
    broken = BadRow(file="posts.json", line=7, fault=RowFault.FIELD, problem="id: no number")
    lost = BadRow(file="x.gz", line=0, fault=RowFault.FILE, problem="cut off")
    found = audit(jpegs([1]), post_table([post(1)], [broken, lost]))
    row = found["", "unreadable-row"]
    assert items(row) == [(0, "posts.json:7", "id: no number"), (0, "x.gz", "cut off")]
    assert (row.count, row.severity) == (2, Severity.ERROR)


def test_a_post_told_of_twice_is_a_notice() -> None:
    found = audit(jpegs([1]), post_table([post(1, file_size=5), post(1)]))
    assert [finding.kind for finding in found.values()] == [FindingKind.REPEATED_ROW]
    assert items(found["", "repeated-row"]) == [(1, "", "a later row is used")]


def test_strays_are_findings_by_variant_and_sort() -> None:
    log = StrayLog()
    for post_id in (12, 2):
        path = f"small/01/{post_id}.jpg"
        stray = Stray(kind=StrayKind.WRONG_BUCKET, path=path, reason="why", post_id=post_id)
        log.add("small", [stray])
    log.add("original", [Stray(kind=StrayKind.ODD_NAME, path="original/01/x", reason="odd")])
    found = by_kind(audit_files({}, None, log, LAYOUT))
    assert items(found["small", "wrong-bucket"]) == [
        (2, "small/01/2.jpg", "why"),
        (12, "small/01/12.jpg", "why"),
    ]
    assert found["small", "wrong-bucket"].ids.tolist() == [2, 12]
    odd = found["original", "odd-name"]
    assert (odd.severity, odd.count, odd.ids.tolist()) == (Severity.NOTICE, 1, [])


def test_of_many_strays_all_are_counted_and_the_first_are_kept() -> None:
    log = StrayLog()
    many = (
        Stray(kind=StrayKind.CASE_TWIN, path=f"a/{n}", reason="", post_id=n)
        for n in range(1, MAX_STRAYS + 11)
    )
    log.add("a", many)
    (finding,) = log.findings()
    assert (finding.count, finding.listed) == (MAX_STRAYS + 10, MAX_STRAYS)
    assert len(finding.ids) == MAX_STRAYS + 10


def test_errors_come_first_and_are_counted() -> None:
    told = post_table([post(1), post(1), post(2), post(3)])
    small = jpegs([1, 2, 3], problem={2: Problem.NO_END})
    original = jpegs([1, 2], kind={2: Kind.EMPTY})
    report = audit_files({"original": original, "small": small}, told, StrayLog(), LAYOUT)
    assert [(finding.kind.value, finding.variant) for finding in report.findings] == [
        ("truncated", "small"),
        ("empty-file", "original"),
        ("post-without-file", "original"),
        ("repeated-row", ""),
    ]
    assert (report.count(Severity.ERROR), report.count(Severity.NOTICE)) == (3, 1)
    assert report.verdict == "3 errors and 1 notice"
    assert report.counts == {
        "truncated": 1,
        "empty-file": 1,
        "post-without-file": 1,
        "repeated-row": 1,
    }
    assert (dict(report.files), report.posts) == ({"original": 2, "small": 3}, 3)


def test_an_empty_variant_lacks_every_post() -> None:
    found = audit(jpegs([]), posts([4, 5]))
    assert found["original", "post-without-file"].ids.tolist() == [4, 5]
    assert "come after" not in found["original", "post-without-file"].meaning
