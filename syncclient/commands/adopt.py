"""``adopt URL DIR``: take over a tree that rsync or anything else made."""

from __future__ import annotations

import argparse
from pathlib import Path

from msgspec.structs import replace

from manifests.errors import ConfigError, ExitCode
from syncclient.commands.clone import add_start, begin, starting_config
from syncclient.commands.options import (
    add_common,
    add_selection,
    add_transport,
    transport_of,
)
from syncclient.commands.run import bring_about, run_async, wish_of
from syncclient.config import TreeConfig
from syncclient.events import Listener
from syncclient.look import Look
from syncclient.output import Output
from syncclient.session import Session, open_session


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser(
        "adopt", help="take over files that rsync or anything else put there"
    )
    parser.add_argument("url", metavar="URL", help="the repository's address")
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder with the files")
    add_start(parser)
    parser.add_argument(
        "--no-fetch", action="store_true", help="only look at what is there; fetch nothing"
    )
    add_selection(parser)
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Adopt."""
    if not args.dir.is_dir():
        message = f"{args.dir} is not a folder"
        raise ConfigError(message, hint="To start with nothing: bucketsync clone URL DIR")

    async def body(listen: Listener) -> ExitCode:
        config = starting_config(args)
        transport = transport_of(args, config.transport)
        async with open_session(args.dir, config, transport, listen, args.state_dir) as session:
            settings, descriptor = await begin(session, args.release, args.trust_root)
            settings = _select_what_exists(settings, session, descriptor.variants)
            await session.keep(settings, dry_run=args.dry_run)
            await _learn_the_past(session)
            wish = replace(await wish_of(args, descriptor, session), fetch=not args.no_fetch)

            async def tell(look: Look) -> None:
                kept = len(look.assets.kept) + len(look.rows.kept)
                out.summary(files_adopted=look.survey.adopted + kept)

            return await bring_about(session, wish, out, dry_run=args.dry_run, between=tell)

    return run_async(body, out)


def _select_what_exists(
    config: TreeConfig, session: Session, available: tuple[str, ...]
) -> TreeConfig:
    """Without a wish for variants: those whose folders are there."""
    if config.selection.variants is not None:
        return config
    there = _folders_there(config, session.tree, available)
    if not there:
        message = f"{session.tree} has no folder of a variant: {', '.join(available)}"
        raise ConfigError(message, hint="To start with nothing: bucketsync clone URL DIR")
    if there == available:
        return config
    absent = ", ".join(sorted(set(available) - set(there)))
    session.notice(f"Not selected, since there is no such folder: {absent}")
    return replace(config, selection=replace(config.selection, variants=there))


def _folders_there(config: TreeConfig, tree: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    folders = [(name, Path(config.variant_dirs.get(name, tree / name))) for name in names]
    return tuple(name for name, folder in folders if folder.is_dir())


async def _learn_the_past(session: Session) -> None:
    """Fetch the descriptors of all releases: an asset of an older one is ours, not the user's."""
    signed = session.stored()
    for target in signed.by_date():
        await session.descriptor(signed, target.name)
