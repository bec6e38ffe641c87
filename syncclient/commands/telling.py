"""What the verbs that change a tree tell: before, what is to be done, and after, what was."""

from __future__ import annotations

from collections.abc import Sized
from itertools import islice
from typing import Final

from manifests.units import counted, format_count, format_duration, format_size
from syncclient.look import Look, Report
from syncclient.output import Output
from syncclient.pool import in_thread
from syncclient.session import Session

_SHOWN_NAMES: Final = 20
# Lines of JSON about single files.
_EVENT_NAMES: Final = 10_000


def plan_summary(look: Look) -> dict[str, object]:
    """Summary fields of a plan that is only shown."""
    survey, assets, rows = look.survey, look.assets, look.rows
    new: tuple[Sized, ...] = (assets.added, assets.foreign, rows.added, rows.foreign)
    return {
        "release": look.report.release,
        "files_to_add": survey.added + survey.foreign + sum(map(len, new)),
        "files_to_change": survey.changed + len(assets.changed) + len(rows.changed),
        "files_to_remove": look.removals,
        "files_kept": look.report.files_kept,
        "files_unavailable": survey.unavailable,
        "bytes_to_fetch": survey.fetch_bytes + assets.fetch_bytes + rows.fetch_bytes,
        "scan": survey.scan,
    }


async def tell_plan(session: Session, look: Look, out: Output) -> None:
    """What is to be done: one line, then what is to be fetched and what is not selected."""
    plan = plan_summary(look)
    out.event("plan", **plan)
    parts = [
        f"{format_count(int(str(plan[key])))} {word}"
        for key, word in (
            ("files_kept", "files right"),
            ("files_to_add", "to add"),
            ("files_to_change", "to change"),
            ("files_to_remove", "not in the release or not selected"),
            ("files_unavailable", "unavailable"),
        )
        if plan[key]
    ]
    size = format_size(int(str(plan["bytes_to_fetch"])))
    out.say(f"{look.report.release}: {', '.join(parts) or 'nothing to do'}; {size} to fetch")
    if plan["bytes_to_fetch"]:
        await _tell_breakdown(session, look, out)
    _tell_dropped(look, out)


async def _tell_breakdown(session: Session, look: Look, out: Output) -> None:
    """By variant, extension and, where the tree is selected by a query, rating."""
    # Loaded where there is something to fetch, the tag index where there is a query.
    from syncclient.breakdown import breakdown  # noqa: PLC0415

    ratings = None
    if session.config.selection.query:
        from syncclient.searching import ratings_of  # noqa: PLC0415

        ratings = await ratings_of(session, look.view.descriptor)
    shares = await in_thread(lambda: breakdown(look.survey.works, ratings))
    for share in shares:
        out.event("share", by=share.by, value=share.name, files=share.files, bytes=share.bytes)
    rows = [
        [share.by, share.name, format_count(share.files), format_size(share.bytes)]
        for share in shares
    ]
    # Where every kind has one share, the line above said it all.
    if len(shares) > len({share.by for share in shares}):
        out.table("To fetch", ["by", "", "files", "bytes"], rows)


def _tell_dropped(look: Look, out: Output) -> None:
    """Name what is here and not in the release, or not selected any more."""
    names = (
        f"{work.variant}/{look.places.layout.bucket_name(work.bucket)}/{name}"
        for work in look.survey.works
        for name, _ in work.remove.files()
    )
    for number, name in enumerate(islice(names, _EVENT_NAMES)):
        out.event("dropped", path=name)
        if number < _SHOWN_NAMES:
            out.say(f"not in the release or not selected: {name}")
    if look.survey.removable > _SHOWN_NAMES:
        more = look.survey.removable - _SHOWN_NAMES
        out.say(f"... and {format_count(more)} more; `bucketsync plan` names all of them")


def tell_report(report: Report, look: Look, out: Output) -> None:
    """What was done, for people; problems by name."""
    for aside in report.asides:
        out.event("aside", path=aside.path, moved_to=aside.moved_to)
    for aside in report.asides[:_SHOWN_NAMES]:
        out.say(f"yours, moved aside: {aside.path} -> {aside.moved_to}")
    if len(report.asides) > _SHOWN_NAMES:
        out.say(f"... and {format_count(len(report.asides) - _SHOWN_NAMES)} more")
    for failure in report.failures:
        out.event("failed", path=failure.path, message=failure.text)
    for failure in report.failures[:_SHOWN_NAMES]:
        out.warn(failure.text)
    if look.removals and not report.files_removed and not report.files_failed:
        out.say(
            f"{counted(look.removals, 'file')} here, not in the release or not selected; "
            "--delete moves them to the trash"
        )
    rate = report.bytes_written / report.seconds if report.seconds else 0
    out.say(
        f"{report.release}: {format_count(report.files_added)} added, "
        f"{format_count(report.files_changed)} changed, "
        f"{format_count(report.files_removed)} removed, "
        f"{format_count(report.files_kept)} kept; {format_size(report.bytes_written)} "
        f"in {format_duration(report.seconds)} ({format_size(rate)}/s)"
    )
    if report.files_failed:
        out.warn(
            f"{counted(report.files_failed, 'file')} could not be had; the tree is "
            "incomplete. Run the same command again, or add a --mirror."
        )
    if report.files_left:
        out.warn(
            f"{counted(report.files_left, 'file')} of the release missing, which this run "
            "was not to fetch; bucketsync upgrade does."
        )
