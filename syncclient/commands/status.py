"""``status [DIR]``: tell whether the tree is complete and a newer release is there."""

from __future__ import annotations

import argparse

from msgspec.structs import replace

from manifests.errors import ConfigError, ExitCode, SyncError
from manifests.units import format_count
from syncclient.commands.options import (
    add_common,
    add_transport,
    add_tree,
    transport_of,
    with_folders,
)
from syncclient.commands.run import run_async, wish_of
from syncclient.config import load_tree_config
from syncclient.events import Listener
from syncclient.look import Look
from syncclient.output import Output
from syncclient.session import Session, open_session

_ONE_TRY = 1


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("status", help="is the tree complete, is there a newer release")
    add_tree(parser)
    parser.add_argument("--offline", action="store_true", help="do not ask for newer releases")
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Tell the status."""
    config = with_folders(args, load_tree_config(args.dir))

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        async with open_session(args.dir, config, transport, listen, args.state_dir) as session:
            found = None if args.offline else await _newest(session)
            descriptor = session.stored_descriptor(config.release)
            if descriptor is None:
                message = f"the descriptor of {config.release} is not stored in this tree"
                raise ConfigError(message, hint="Run `bucketsync upgrade` to fetch it.")
            # Nothing is written, so a disk that is not there may be told as files missing.
            wish = replace(await wish_of(args, descriptor, session), refetch=True)
            async with Look(session, wish) as look:
                await look.look()
            return _tell(look, found, session, out)

    return run_async(body, out)


async def _newest(session: Session) -> str | None:
    try:
        return (await session.refresh(tries=_ONE_TRY)).newest()
    except SyncError as error:
        session.notice(f"newer releases are not known: {error.message}")
        return None


def _tell(look: Look, found: str | None, session: Session, out: Output) -> ExitCode:
    survey, singles = look.survey, (look.assets, look.rows)
    ok = survey.kept + sum(len(found.kept) for found in singles)
    missing = survey.added + sum(len(found.added) for found in singles)
    changed = survey.changed + survey.foreign
    changed += sum(len(found.changed) + len(found.foreign) for found in singles)
    release = look.report.release
    out.summary(
        files_ok=ok,
        files_missing=missing,
        files_changed=changed,
        files_extra=survey.extra + look.removals,
        files_unavailable=survey.unavailable,
        release=release,
        newest=found,
        selection=session.config.selection.describe(),
        scan=survey.scan,
    )
    if missing or changed:
        state = f"missing {format_count(missing)}, changed {format_count(changed)}"
    elif survey.unavailable:
        state = f"complete, less {format_count(survey.unavailable)} that the release itself lacks"
    else:
        state = "complete"
    out.result(f"{release}: {state} ({format_count(ok)} files right)")
    out.result(f"selection: {session.config.selection.describe()}")
    if found is None:
        out.result("newest release: not known")
    elif found == release:
        out.result("this is the newest release")
    else:
        out.result(f"newest release: {found} (bucketsync upgrade)")
    if changed:
        return ExitCode.DAMAGED
    return ExitCode.INCOMPLETE if missing else ExitCode.COMPLETE
