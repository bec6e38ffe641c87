"""``verify [DIR]``: every byte against the manifests, and repair."""

from __future__ import annotations

import argparse
import time

from manifests.errors import ConfigError, ExitCode, TransferError
from manifests.units import counted, format_count, format_size, parse_duration, parse_percent
from syncclient.assets import wanted_assets
from syncclient.commands.options import (
    add_common,
    add_transport,
    add_tree,
    transport_of,
    with_folders,
)
from syncclient.commands.run import run_async, wish_of
from syncclient.commands.telling import tell_report
from syncclient.config import load_tree_config
from syncclient.events import Listener
from syncclient.look import Look
from syncclient.output import Output
from syncclient.pool import in_thread
from syncclient.session import open_session
from syncclient.verify import Verification, Verifier

_SHOWN = 50


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("verify", help="check every byte, and repair")
    add_tree(parser)
    parser.add_argument(
        "--repair", action="store_true", help="fetch again what is damaged or missing"
    )
    parser.add_argument("--sample", metavar="P%", help="read only a random share of the files")
    parser.add_argument(
        "--max-duration", metavar="T", help="stop after that time, such as 8h; go on with --resume"
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out what the last round has already read"
    )
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Verify."""
    config = with_folders(args, load_tree_config(args.dir))
    sample = parse_percent(args.sample) if args.sample else 1.0
    deadline_s = None
    if args.max_duration:
        deadline_s = time.monotonic() + parse_duration(args.max_duration)

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        async with open_session(args.dir, config, transport, listen, args.state_dir) as session:
            descriptor = session.stored_descriptor(config.release)
            if descriptor is None:
                message = f"the descriptor of {config.release} is not stored in this tree"
                raise ConfigError(message, hint="Run `bucketsync upgrade` to fetch it.")
            async with Look(session, await wish_of(args, descriptor, session)) as look:
                verifier = Verifier(
                    view=look.view,
                    places=look.places,
                    state=session.state,
                    row_files=look.row_files,
                    listen=listen,
                    sample=sample,
                    deadline_s=deadline_s,
                    resume=args.resume,
                    jobs=transport.jobs,
                )
                assets = wanted_assets(
                    descriptor, look.view.variants, whole=config.selection.whole
                )
                await look.open()
                started_s = time.monotonic()
                rows = await in_thread(look.wanted_rows)
                result = await in_thread(lambda: verifier.run(assets, rows), verifier.stop)
                _tell(result, time.monotonic() - started_s, out)
                repaired = True
                if args.repair and not args.dry_run and (result.damaged or result.missing):
                    repaired = await _repair(look, result, out)
                _summarise(result, out)
                return _exit_code(result, repaired=args.repair and not args.dry_run and repaired)

    return run_async(body, out)


async def _repair(look: Look, result: Verification, out: Output) -> bool:
    """Fetch again what is wrong; whether all of it is right now."""
    await look.look()
    look.check_guards()
    try:
        report = await look.carry_out()
    except TransferError as error:
        out.error(error)
        return False
    tell_report(report, look, out)
    result.repaired = report.files_added + report.files_changed
    out.say(f"{format_count(result.repaired)} repaired")
    out.summary(bytes_received=report.bytes_received, requests=report.requests)
    return not report.files_failed


def _tell(result: Verification, seconds: float, out: Output) -> None:
    for finding in result.findings:
        out.event(finding.kind, path=finding.path)
    for finding in result.findings[:_SHOWN]:
        out.result(f"{finding.kind}: {finding.path}")
    if len(result.findings) > _SHOWN:
        out.result(f"... and {format_count(len(result.findings) - _SHOWN)} more")
    rate = result.checked_bytes / seconds if seconds else 0
    out.say(
        f"{counted(result.checked, 'file')} checked, {format_size(result.checked_bytes)} "
        f"({format_size(rate)}/s): {format_count(result.damaged)} damaged, "
        f"{format_count(result.missing)} missing"
    )
    if not result.finished:
        out.say("time is up; `bucketsync verify --resume` goes on from here")


def _summarise(result: Verification, out: Output) -> None:
    out.summary(
        files_checked=result.checked,
        bytes_checked=result.checked_bytes,
        files_damaged=result.damaged,
        files_missing=result.missing,
        files_repaired=result.repaired,
        files_unavailable=result.unavailable,
        finished=result.finished,
    )


def _exit_code(result: Verification, *, repaired: bool) -> ExitCode:
    if not repaired and result.damaged:
        return ExitCode.DAMAGED
    if not repaired and result.missing:
        return ExitCode.INCOMPLETE
    return ExitCode.COMPLETE if result.finished else ExitCode.LIMIT
