"""What an audit found, as one page of HTML.

The page needs nothing but itself: style inside, pictures as ``data:`` URIs, no script; a policy in
its head forbids everything else.  All text from the tree is escaped and clipped.  However much was
found, the page stays below 5 MB: rows, ids and pictures each have a budget that findings share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files as package_files
from pathlib import Path

from manifests.units import format_count
from server.audit.auditing import AuditReport
from server.audit.findings import Finding, FindingKind, Item, Severity
from server.audit.thumbnails import Thumbnail, can_draw, thumbnail
from syncclient.tree import printable

# Budgets of the page, shared by its findings.
_MAX_ROWS = 1200
_MAX_ROWS_EACH = 100
_MAX_IDS = 60_000
_MAX_IDS_EACH = 10_000
_MAX_THUMBNAILS = 60
_MAX_THUMBNAILS_EACH = 12
_MAX_TEXT = 300
_HEX_WIDTH = 6
# A list this short is open from the start.
_OPEN_ROWS = 12

_TITLES = {
    FindingKind.TRUNCATED: "Cut-off and broken files",
    FindingKind.EMPTY_FILE: "Empty files",
    FindingKind.UNREADABLE_FILE: "Unreadable files",
    FindingKind.EXTENSION_CONTENT: "Extension against content",
    FindingKind.WRONG_BUCKET: "Files in the wrong bucket",
    FindingKind.DUPLICATE_ID: "One id, several files",
    FindingKind.CASE_TWIN: "Names that differ only in case",
    FindingKind.MISPLACED: "Names that cannot be published",
    FindingKind.POST_WITHOUT_FILE: "Posts without a file",
    FindingKind.FILE_WITHOUT_POST: "Files without a post",
    FindingKind.SIZE_METADATA: "Size against metadata",
    FindingKind.DIMENSIONS_METADATA: "Dimensions against metadata",
    FindingKind.UNREADABLE_ROW: "Unreadable rows of metadata",
    FindingKind.EXTENSION_METADATA: "Extension against metadata",
    FindingKind.DELETED_WITHOUT_FILE: "Deleted posts without a file",
    FindingKind.ROW_WITHOUT_ID: "Rows without an id",
    FindingKind.REPEATED_ROW: "Posts told of twice",
    FindingKind.ODD_NAME: "Odd names in buckets",
}
# Findings that a picture says something about.
_PICTURED = frozenset(
    {
        FindingKind.TRUNCATED,
        FindingKind.EXTENSION_CONTENT,
        FindingKind.DIMENSIONS_METADATA,
        FindingKind.SIZE_METADATA,
        FindingKind.FILE_WITHOUT_POST,
        FindingKind.WRONG_BUCKET,
        FindingKind.DUPLICATE_ID,
        FindingKind.CASE_TWIN,
    }
)


# --------------------------------------------------------------------------- page


def write_page(report: AuditReport, *, tree: Path, path: Path) -> None:
    """Write the page to ``path``, whole or not at all; OSError as writing raises it.

    Thumbnails are made from the files below ``tree``, if Pillow is there.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(render_page(report, tree=tree, made=datetime.now(UTC)), "utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def render_page(report: AuditReport, *, tree: Path, made: datetime) -> str:
    """The page as text, below 5 MB."""
    style = package_files("server.audit").joinpath("report.css").read_text("utf-8")
    shown = _thumbnail_share(report.findings)
    sections = [
        _section(finding, number, len(report.findings), tree, shown[number])
        for number, finding in enumerate(report.findings)
    ]
    name = _text(printable(os.fspath(tree)))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Consistency audit of {name}</title>",
            f"<style>\n{style}</style>\n</head>\n<body>\n<main>",
            "<h1>Consistency audit</h1>",
            f'<p class="soft"><span class="mono path">{name}</span>',
            f" · {made:%Y-%m-%d %H:%M} UTC</p>",
            _banner(report),
            _figures(report),
            _contents(report),
            *sections,
            _footer(report),
            "</main>\n</body>\n</html>\n",
        )
    )


def _text(value: str) -> str:
    """Text from anywhere, clipped and safe in HTML."""
    clipped = value if len(value) <= _MAX_TEXT else value[: _MAX_TEXT - 1] + "…"
    return escape(clipped, quote=True)


def _banner(report: AuditReport) -> str:
    calm = "notice" if report.findings else "good"
    sort = "error" if report.count(Severity.ERROR) else calm
    return f'<div class="verdict {sort}">{_text(report.verdict)}</div>'


def _figures(report: AuditReport) -> str:
    figures = [(f"files in {name}", count) for name, count in sorted(report.files.items())]
    if report.posts is not None:
        figures.append(("posts in the metadata", report.posts))
    cards = "".join(
        f'<div class="figure"><b>{format_count(count)}</b>'
        f'<span class="soft">{_text(what)}</span></div>'
        for what, count in figures
    )
    return f'<div class="figures">{cards}</div>'


def _contents(report: AuditReport) -> str:
    if not report.findings:
        return ""
    rows = "\n".join(
        f"<tr><td>{_badge(finding)}</td>"
        f'<td><a href="#finding-{number}">{_TITLES[finding.kind]}</a></td>'
        f"<td>{_text(finding.variant)}</td>"
        f'<td class="number">{format_count(finding.count)}</td>'
        f'<td class="soft">{_text(finding.meaning)}</td></tr>'
        for number, finding in enumerate(report.findings)
    )
    return (
        '<div class="contents"><table>\n<thead><tr><th>Severity</th><th>Finding</th>'
        '<th>Variant</th><th class="number">Count</th><th>Meaning</th></tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _badge(finding: Finding) -> str:
    return f'<span class="badge {finding.severity}">{finding.severity}</span>'


def _section(finding: Finding, number: int, of: int, tree: Path, pictures: int) -> str:
    where = f' <span class="soft">in {_text(finding.variant)}</span>' if finding.variant else ""
    return "\n".join(
        part
        for part in (
            f'<section id="finding-{number}">',
            f"<header>{_badge(finding)} <h2>{_TITLES[finding.kind]}</h2>{where}",
            f'<span class="soft">· {format_count(finding.count)}</span></header>',
            f"<p>{_text(finding.meaning)}</p>",
            _gallery(tree, list(finding.items(pictures))),
            _item_table(finding, min(_MAX_ROWS_EACH, max(5, _MAX_ROWS // of))),
            _id_list(finding, min(_MAX_IDS_EACH, _MAX_IDS // of)),
            "</section>",
        )
        if part
    )


def _item_table(finding: Finding, limit: int) -> str:
    items = list(finding.items(limit))
    if not items:
        return ""
    rows = "\n".join(
        f'<tr><td class="mono">{item.post_id or ""}</td>'
        f'<td class="mono path">{_text(item.path)}</td><td>{_text(item.detail)}</td></tr>'
        for item in items
    )
    state = " open" if len(items) <= _OPEN_ROWS else ""
    shown = f"The first {len(items):,}" if finding.count > len(items) else "All"
    return (
        f"<details{state}><summary>{shown}, one by one</summary><table><thead><tr><th>Id</th>"
        f"<th>Where</th><th>What</th></tr></thead><tbody>\n{rows}\n</tbody></table></details>"
    )


def _id_list(finding: Finding, limit: int) -> str:
    ids = finding.ids[:limit].tolist()
    if len(finding.ids) <= _OPEN_ROWS:
        return ""
    more = len(finding.ids) - len(ids)
    rest = f" … and {more:,} more: --json lists them" if more else ""
    listed = " ".join(map(str, ids))
    return (
        f"<details><summary>Ids for copying</summary>"
        f'<pre class="ids">{listed}{rest}</pre></details>'
    )


# --------------------------------------------------------------------------- pictures


def _thumbnail_share(findings: Sequence[Finding]) -> list[int]:
    """How many pictures each finding gets: errors only, one in turn until there are enough."""
    wanted = [
        min(_MAX_THUMBNAILS_EACH, finding.listed)
        if finding.kind in _PICTURED and finding.severity is Severity.ERROR
        else 0
        for finding in findings
    ]
    shares, left = [0] * len(wanted), _MAX_THUMBNAILS
    for _ in range(_MAX_THUMBNAILS_EACH):
        for number, want in enumerate(wanted):
            if left and shares[number] < want:
                shares[number] += 1
                left -= 1
    return shares


def _gallery(tree: Path, items: Sequence[Item]) -> str:
    figures = "\n".join(_figure(item, drawn) for item, drawn in _drawn(tree, items))
    return f'<div class="gallery">\n{figures}\n</div>' if figures else ""


def _drawn(tree: Path, items: Sequence[Item]) -> Iterator[tuple[Item, Thumbnail]]:
    for item in items:
        drawn = thumbnail(tree / item.path)
        if drawn is not None:
            yield item, drawn


def _figure(item: Item, drawn: Thumbnail) -> str:
    if drawn.uri:
        inside = f'<img src="{drawn.uri}" alt="" loading="lazy">'
    else:
        inside = f"<pre>{_hex_lines(drawn.first_bytes)}</pre>"
    name = item.path.rpartition("/")[2]
    return (
        f'<figure><div class="frame">{inside}</div><figcaption>'
        f'<span class="path" title="{_text(item.path)}">{_text(name)}</span>'
        f'<span class="soft">{_text(item.detail)}</span></figcaption></figure>'
    )


def _hex_lines(data: bytes) -> str:
    """The first bytes, some a line, as hexadecimal and as letters."""
    lines = (data[start : start + _HEX_WIDTH] for start in range(0, len(data), _HEX_WIDTH))
    return "\n".join(
        escape(f"{line.hex(' '):{3 * _HEX_WIDTH}} {_letters(line)}") for line in lines
    )


def _letters(data: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)  # noqa: PLR2004


def _footer(report: AuditReport) -> str:
    compared = f"Only {_text(report.primary)} is compared with metadata beyond its ids."
    if report.posts is None:
        compared = "No metadata was given: the files were judged by themselves."
    pictures = "The picture of a cut-off file shows what is left of it."
    if not can_draw():
        pictures = "Thumbnails need Pillow, which is not installed here."
    return (
        '<footer class="soft">Errors are what a release should wait for, notices are worth '
        f"knowing. {compared} {pictures} Made by bucketsync.</footer>"
    )
