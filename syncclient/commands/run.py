"""What the verbs that change a tree have in common: open, survey, guard, carry out, report."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from manifests.errors import ExitCode
from manifests.model import Descriptor
from manifests.units import format_count, format_duration, format_size
from syncclient.commands.options import deletion_limits
from syncclient.display import Display
from syncclient.events import Listener
from syncclient.output import Output
from syncclient.session import Session
from syncclient.sync import Report, Sync, Wish

_SHOWN_NAMES = 20


def run_async(body: Callable[[Listener], Coroutine[Any, Any, ExitCode]], out: Output) -> ExitCode:
    """Run a verb's body with a display; SIGTERM ends it like Ctrl-C."""
    display = Display(out, terminal=sys.stderr.isatty())

    async def main() -> ExitCode:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        with suppress(NotImplementedError):
            if task is not None:
                loop.add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            return await body(display)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    try:
        return asyncio.run(main())
    finally:
        display.close()


def wish_of(args: argparse.Namespace, descriptor: Descriptor, session: Session) -> Wish:
    """What a verb's flags ask for."""
    share, count = deletion_limits(args.max_delete)
    return Wish(
        descriptor=descriptor,
        selection=session.config.selection,
        delete=getattr(args, "delete", False),
        max_delete_share=share,
        max_delete_files=count,
        quick=args.quick,
        refetch=args.yes,
        locals=tuple(Path(folder) for folder in session.transport.locals),
    )


Between = Callable[[Sync], Awaitable[None]]


async def bring_about(
    session: Session,
    wish: Wish,
    out: Output,
    *,
    dry_run: bool,
    between: Between | None = None,
) -> ExitCode:
    """Survey, tell, guard, carry out; the summary is kept in ``out``.

    ``between`` is called when the survey is done.  What is wished becomes the tree's own setting
    when the guards have let it pass.
    """
    async with Sync(session, wish) as sync:
        await sync.look()
        if between is not None:
            await between(sync)
        tell_plan(sync, out)
        if dry_run:
            out.summary(**plan_summary(sync))
            return ExitCode.COMPLETE
        sync.check_guards()
        await session.keep(replace(session.config, release=wish.descriptor.release))
        try:
            report = await sync.carry_out()
        finally:
            out.summary(**sync.report.summary())
        tell_report(report, sync, out)
        return report.exit_code


def plan_summary(sync: Sync) -> dict[str, object]:
    """Summary fields of a plan that is only shown."""
    survey, assets = sync.survey, sync.assets
    return {
        "release": sync.report.release,
        "files_to_add": survey.added + survey.foreign + len(assets.added) + len(assets.foreign),
        "files_to_change": survey.changed + len(assets.changed),
        "files_to_remove": sync.removals,
        "files_kept": sync.report.files_kept,
        "files_unavailable": survey.unavailable,
        "bytes_to_fetch": survey.fetch_bytes + assets.fetch_bytes,
        "scan": survey.scan,
    }


def tell_plan(sync: Sync, out: Output) -> None:
    """One line on what is to be done."""
    plan = plan_summary(sync)
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
    out.say(f"{sync.report.release}: {', '.join(parts) or 'nothing to do'}; {size} to fetch")


def tell_report(report: Report, sync: Sync, out: Output) -> None:
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
    if sync.removals and not report.files_removed and not report.files_failed:
        out.say(
            f"{format_count(sync.removals)} files here are not in the release or not selected; "
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
            f"{format_count(report.files_failed)} files could not be had; the tree is "
            "incomplete. Run the same command again, or add a --mirror."
        )
    if report.files_left:
        out.warn(
            f"{format_count(report.files_left)} files of the release are missing, which this run "
            "was not to fetch; bucketsync upgrade does."
        )
