"""What an audit found, on the terminal: a table for people, JSON events for scripts."""

from __future__ import annotations

from manifests.units import format_count
from server.audit.auditing import AuditReport
from server.audit.findings import Finding
from syncclient.output import Output

MAX_EVENTS = 100_000
_FIRST_IDS = 4


def show_findings(report: AuditReport, out: Output) -> None:
    """One row a finding for people; for scripts an event a place, then one a finding.

    ``finding`` events come for at most MAX_EVENTS places of each finding; the ``findings`` event
    that closes it has the whole ``count`` and, as ``truncated``, how many were left out.
    """
    if out.json:
        _events(report, out)
    elif report.findings:
        columns = ("severity", "finding", "variant", "count", "first ids")
        out.table(report.verdict, columns, map(_table_row, report.findings))
        for kind, meaning in dict.fromkeys((f.kind, f.meaning) for f in report.findings):
            out.say(f"{kind}: {meaning}")
    else:
        out.say(report.verdict)


def _table_row(finding: Finding) -> tuple[str, ...]:
    ids = " ".join(map(str, finding.ids[:_FIRST_IDS].tolist()))
    more = " …" if len(finding.ids) > _FIRST_IDS else ""
    count = format_count(finding.count)
    return finding.severity, finding.kind, finding.variant, count, ids + more


def _events(report: AuditReport, out: Output) -> None:
    for finding in report.findings:
        about = {"kind": finding.kind, "severity": finding.severity, "variant": finding.variant}
        for item in finding.items(MAX_EVENTS):
            post_id = item.post_id or None
            out.event("finding", **about, id=post_id, path=item.path, detail=item.detail)
        out.event(
            "findings",
            **about,
            count=finding.count,
            truncated=finding.count - min(finding.listed, MAX_EVENTS),
            meaning=finding.meaning,
        )
