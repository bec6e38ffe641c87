"""``clone URL DIR``: start a tree and fill it; in its own tree, go on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from manifests.digest import Digest
from manifests.errors import ConfigError, ExitCode, TransferError
from manifests.model import Descriptor
from manifests.paths import PRIVATE_FOLDER
from syncclient.commands.options import (
    add_common,
    add_selection,
    add_transport,
    transport_of,
    with_selection,
)
from syncclient.commands.run import bring_about, run_async, wish_of, workers_likely
from syncclient.config import CONFIG_NAME, TreeConfig, check_url, load_tree_config, private_folder
from syncclient.events import Listener
from syncclient.look import Look
from syncclient.output import Output
from syncclient.pool import in_thread
from syncclient.selection import Selection
from syncclient.session import Session, open_session
from syncclient.signed import ExpiredError

if TYPE_CHECKING:
    from syncclient.lockfile import Lock


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("clone", help="start a tree and fill it")
    parser.add_argument("url", metavar="URL", help="the repository's address")
    parser.add_argument("dir", type=Path, metavar="DIR", help="the tree: a new or empty folder")
    add_start(parser)
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="fetch the very files that a lock file names"
    )
    add_selection(parser)
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def add_start(parser: argparse.ArgumentParser) -> None:
    """Flags of the verbs that begin a tree."""
    parser.add_argument("--release", metavar="R", help="the release (default: the newest)")
    parser.add_argument(
        "--trust-root",
        metavar="FILE_OR_FINGERPRINT",
        help="the publisher's root: a copy of 1.root.json, or its SHA-256",
    )


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Clone."""
    check_url(args.url)
    if not (private_folder(args.dir) / CONFIG_NAME).exists():
        refuse_occupied(args.dir)
    lock = None if args.lock is None else _read_lock(args)

    async def body(listen: Listener) -> ExitCode:
        config = starting_config(args)
        transport = transport_of(args, config.transport)
        async with open_session(args.dir, config, transport, listen, args.state_dir) as session:
            if not args.dry_run:
                await session.nest.fill(workers_likely(config.selection, transport.jobs))
            if lock is None:
                settings, descriptor = await begin(session, args.release, args.trust_root)
            else:
                settings, descriptor = await begin_locked(session, lock, args.trust_root)
            await session.keep(settings, dry_run=args.dry_run)
            wish = await wish_of(args, descriptor, session)

            async def check(look: Look) -> None:
                if lock is not None:
                    from syncclient.lockfile import check_lock  # noqa: PLC0415 (see _read_lock)

                    await look.open()
                    await in_thread(lambda: check_lock(lock, args.lock, look.view))

            return await bring_about(session, wish, out, dry_run=args.dry_run, between=check)

    return run_async(body, out)


def _read_lock(args: argparse.Namespace) -> Lock:
    """The lock file; it names release, variants and ids by itself."""
    # What reads it loads numpy, which a clone needs when its first requests are long under way.
    from syncclient.lockfile import read_lock  # noqa: PLC0415

    lock = read_lock(args.lock)
    flags = ("release", "variant", "bucket", "ids", "select")
    given = next((flag for flag in flags if getattr(args, flag) is not None), None)
    if given is not None:
        message = f"--{given} cannot stand beside --lock, which names all that is to be fetched"
        raise ConfigError(message)
    return lock


def refuse_occupied(folder: Path) -> None:
    """ConfigError unless a folder is new or empty."""
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is a file, expected a new or empty folder"
        raise ConfigError(message)
    names = {item.name for item in folder.iterdir()} if folder.exists() else set()
    if names - {PRIVATE_FOLDER, "lost+found"}:
        message = f"{folder} is not empty and not a bucketsync tree"
        raise ConfigError(
            message,
            hint="To take over the files that are there: bucketsync adopt URL DIR",
        )


def starting_config(args: argparse.Namespace) -> TreeConfig:
    """Settings of a tree about to be begun, or those of the one that was begun before."""
    url = check_url(args.url)
    if (private_folder(args.dir) / CONFIG_NAME).exists():
        kept = load_tree_config(args.dir)
        if url not in kept.urls:
            message = f"{args.dir} is a tree of {kept.urls[0]}, not of {url}"
            raise ConfigError(message, hint="Use --mirror to add another host of the same data.")
        return with_selection(args, kept)
    fresh = TreeConfig(
        dataset="", urls=(url,), root_fingerprint="", release="", selection=Selection()
    )
    return with_selection(args, fresh)


async def begin(
    session: Session, release: str | None, trust_root: str | None
) -> tuple[TreeConfig, Descriptor]:
    """Pin the root and find the release: the settings to keep, and the release's descriptor.

    A release whose descriptor is stored already needs no host for that.
    """
    config = session.config
    release, fingerprint = release or config.release, config.root_fingerprint
    descriptor = session.stored_descriptor(release) if release == config.release else None
    if descriptor is None or trust_root or session.trust.pinned_root() is None:
        fingerprint = (await session.pin(trust_root)).fingerprint
        signed = await session.refresh()
        descriptor = await session.descriptor(signed, release or signed.newest())
    config.selection.variants_of(descriptor.variants)
    config.selection.bucket_numbers(descriptor.layout.buckets)
    settings = replace(
        config,
        dataset=descriptor.dataset,
        release=descriptor.release,
        root_fingerprint=fingerprint,
    )
    return settings, descriptor


async def begin_locked(
    session: Session, lock: Lock, trust_root: str | None
) -> tuple[TreeConfig, Descriptor]:
    """Begin with the release that a lock file names; no signature has to be valid any more.

    The publisher's root is pinned all the same, if a host has it: for later releases.
    """
    descriptor = session.stored_descriptor(lock.release)
    if descriptor is None or Digest.of(descriptor.encode()) != lock.descriptor:
        descriptor = await session.locked_descriptor(lock)
    fingerprint = lock.root
    try:
        fingerprint = (await session.pin(trust_root or lock.root or None)).fingerprint
        await session.refresh()
    except (ExpiredError, TransferError) as error:
        session.notice(f"{error.message}; the lock file is proof in itself", warning=True)
    # What a lock does not name is the user's to say: whether the rows of metadata come too.
    metadata = session.config.selection.metadata
    settings = replace(
        session.config,
        dataset=descriptor.dataset,
        release=descriptor.release,
        root_fingerprint=fingerprint,
        selection=Selection(variants=lock.variants, ids=lock.ids, metadata=metadata),
    )
    return settings, descriptor
