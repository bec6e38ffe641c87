"""``checkout RELEASE DEST``: a past release beside today's tree, mostly without a download."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from msgspec.structs import replace

from manifests.errors import ConfigError, ExitCode, StoreError
from syncclient.commands.clone import begin, refuse_occupied
from syncclient.commands.options import (
    add_common,
    add_selection,
    add_transport,
    transport_of,
    with_selection,
)
from syncclient.commands.run import bring_about, run_async, wish_of
from syncclient.config import CONFIG_NAME, load_tree_config, private_folder
from syncclient.documents import replace_durably
from syncclient.events import Listener
from syncclient.folders import Folders, folders_of
from syncclient.look import Look
from syncclient.output import Output
from syncclient.pool import in_thread
from syncclient.session import open_session


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser(
        "checkout", help="make a past release by reflink, hard link or copy of today's tree"
    )
    parser.add_argument("release", metavar="RELEASE", help="the release")
    parser.add_argument("dest", type=Path, metavar="DEST", help="a new or empty folder")
    parser.add_argument(
        "--tree", type=Path, default=Path(), metavar="DIR", help="today's tree (default: here)"
    )
    add_selection(parser)
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Check out."""
    source = load_tree_config(args.tree)
    begun = (private_folder(args.dest) / CONFIG_NAME).exists()
    if not begun:
        refuse_occupied(args.dest)
    elif load_tree_config(args.dest).release != args.release:
        message = f"{args.dest} is a tree of another release"
        raise ConfigError(message, hint="Name a new folder.")
    config = with_selection(args, replace(source, release=args.release, variant_dirs={}))

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        if not begun:
            mine = folders_of(args.tree, args.state_dir)
            theirs = folders_of(args.dest, args.state_dir)
            await in_thread(lambda: _share_records(mine, theirs))
        async with open_session(args.dest, config, transport, listen, args.state_dir) as session:
            settings, descriptor = await begin(session, args.release, None)
            await session.keep(settings, dry_run=args.dry_run)
            wish = replace(
                await wish_of(args, descriptor, session),
                locals=(args.tree.absolute(), *map(Path, transport.locals)),
                local_variants=source.variant_dirs,
                hard_link=True,
            )
            found: list[Look] = []

            async def keep(look: Look) -> None:
                found.append(look)

            try:
                return await bring_about(session, wish, out, dry_run=args.dry_run, between=keep)
            finally:
                for look in found:
                    _tell(look, out)

    return run_async(body, out)


def _tell(look: Look, out: Output) -> None:
    report = look.report
    placed = report.files_added + report.files_changed
    out.summary(
        files_linked=report.files_linked,
        files_fetched=placed - report.files_linked,
        links=report.links,
    )


def _share_records(source: Folders, dest: Folders) -> None:
    """Give the new tree the old one's root, descriptors and manifests: it works offline."""
    try:
        for old, new, copy in (
            (source.trust, dest.trust, _copy_durably),
            (source.releases, dest.releases, _copy_durably),
            (source.cache, dest.cache, _link_or_copy),
        ):
            # Half a copy, of a run that was interrupted, is begun again.
            if new.exists():
                shutil.rmtree(new)
            if old.exists():
                shutil.copytree(old, new, symlinks=True, copy_function=copy)
        notices = source.records / "notices"
        if notices.exists():
            _copy_durably(str(notices), str(dest.records / "notices"))
    except (OSError, shutil.Error) as error:
        message = f"{dest.records}: the records of {source.records} cannot be copied ({error})"
        raise StoreError(message) from error


def _copy_durably(old: str, new: str) -> None:
    """Copy a small file that must be whole, or not there, when the power fails."""
    replace_durably(Path(new), [Path(old).read_bytes()])


def _link_or_copy(old: str, new: str) -> None:
    """Share what the cache holds: a sparse file that would lose its holes, and is never changed.

    Whoever fills a hole has checked the bytes, and whoever reads checks them again.
    """
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)
