"""What an audit found, on the terminal: a table for people, JSON events for scripts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from manifests.units import format_count
from server.audit.auditing import AuditReport
from server.audit.findings import Finding
from syncclient.metadata import unnamed_metadata
from syncclient.output import Output
from syncclient.tree import printable

MAX_EVENTS = 100_000
_FIRST_IDS = 4
# Places told to people of a finding whose places have no id, and with -v of any.
_FIRST_PLACES = 3
_MORE_PLACES = 100


def tell_no_metadata(tree: Path, variants: Collection[str], out: Output) -> None:
    """Say that there is none, or what looks like some and was not named."""
    lost = unnamed_metadata(tree, variants)
    if lost is None:
        out.say("no metadata given: the files are audited by themselves")
    else:
        where = printable(str(lost))
        out.warn(f"no metadata given, but {where} looks like some: --metadata {where} reads it")


def show_findings(report: AuditReport, out: Output, *, places: int = MAX_EVENTS) -> None:
    """One row a finding for people; for scripts an event a place, then one a finding.

    ``finding`` events come for at most ``places`` places of each finding; the ``findings`` event
    that closes it has the whole ``count`` and, as ``truncated``, how many were left out.
    """
    if out.json:
        _events(report, out, places)
    elif report.findings:
        columns = ("severity", "finding", "variant", "count", "first ids")
        out.table(report.verdict, columns, map(_table_row, report.findings))
        told = set[tuple[str, str]]()
        for finding in report.findings:
            if (finding.kind, finding.meaning) not in told:
                out.say(f"{finding.kind}: {finding.meaning}")
            told.add((finding.kind, finding.meaning))
            _tell_places(finding, out)
    else:
        out.say(report.verdict)


def _tell_places(finding: Finding, out: Output) -> None:
    """Where it is, for what the ids in the table cannot tell."""
    first = _FIRST_PLACES if len(finding.ids) < finding.count else 0
    limit = _MORE_PLACES if out.verbosity > 0 else first
    items = list(finding.items(limit))
    for item in items:
        out.say(f"  {item.path}: {item.detail}")
    if items and len(items) < finding.count:
        more = format_count(finding.count - len(items))
        out.say(f"  ... and {more} more; `bucketsync-server audit --json` names all")


def _table_row(finding: Finding) -> tuple[str, ...]:
    ids = " ".join(map(str, finding.ids[:_FIRST_IDS].tolist()))
    more = " …" if len(finding.ids) > _FIRST_IDS else ""
    count = format_count(finding.count)
    return finding.severity, finding.kind, finding.variant, count, ids + more


def _events(report: AuditReport, out: Output, places: int) -> None:
    for finding in report.findings:
        about = {"kind": finding.kind, "severity": finding.severity, "variant": finding.variant}
        for item in finding.items(places):
            post_id = item.post_id or None
            out.event("finding", **about, id=post_id, path=item.path, detail=item.detail)
        out.event(
            "findings",
            **about,
            count=finding.count,
            truncated=finding.count - min(finding.listed, places),
            meaning=finding.meaning,
        )
