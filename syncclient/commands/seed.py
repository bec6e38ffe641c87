"""``seed [DIR]``: share what the tree holds until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from contextlib import AsyncExitStack, suppress
from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from manifests.errors import ConfigError, ExitCode, SyncError
from manifests.units import format_count, format_size, parse_size
from syncclient.commands.options import (
    add_common,
    add_transport,
    add_tree,
    transport_of,
    with_folders,
)
from syncclient.commands.run import run_async
from syncclient.config import load_tree_config, private_folder
from syncclient.events import Listener
from syncclient.output import Output
from syncclient.release import ReleaseView
from syncclient.searching import resolve
from syncclient.session import Session, visit
from syncclient.torrents.finding import PeerFinder
from syncclient.torrents.holdings import Holdings
from syncclient.torrents.joining import swarm_settings
from syncclient.torrents.runs import runs_of
from syncclient.torrents.schedule import Hours, parse_hours
from syncclient.torrents.seeding import LOOK_S, Limits, Seeder, Seeding, Source
from syncclient.torrents.swarm import Swarm

_HOURS_CHECK_S = 5.0


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser(
        "seed",
        help="share what the tree holds with peers, until interrupted",
        description="Offer the files of the tree to BitTorrent peers, from where they lie. "
        "--bwlimit and --upload-limit bound what is sent.",
    )
    add_tree(parser)
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        default="512M",
        help="for torrents in memory; those beyond take turns (default: 512M; 0: all at once)",
    )
    parser.add_argument(
        "--ratio",
        type=float,
        default=0.0,
        metavar="R",
        help="end when R times the bytes of the tree have been sent (default: never)",
    )
    parser.add_argument(
        "--hours", metavar="HH:MM-HH:MM", help="share only at these hours of the day"
    )
    parser.add_argument(
        "--look-every",
        type=float,
        default=LOOK_S,
        metavar="SECONDS",
        help="look for files that came or went (default: %(default)g; files that were written to "
        "in place are noticed within 15 minutes)",
    )
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Seed until SIGINT or SIGTERM, which end it with exit code 0."""
    config = with_folders(args, load_tree_config(args.dir))
    hours = None if args.hours is None else parse_hours(args.hours)
    limits = Limits(
        memory_bytes=parse_size(args.memory),
        ratio=args.ratio,
        look_s=args.look_every,
    )

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        upload = transport.upload_limit or transport.bwlimit
        settings = swarm_settings(replace(transport, upload_limit=upload), fetches=False)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            opened = visit(args.dir, config, transport, listen, args.state_dir)
            session = await stack.enter_async_context(opened)
            sources = await _sources(session, stack)
            swarm = await stack.enter_async_context(Swarm(settings))
            seeder = Seeder(
                swarm,
                sources,
                session.hosts,
                PeerFinder(session.hosts, swarm.port),
                session.folders.cache,
                limits,
                listen,
                lambda now: _tell(now, out),
            )
            await _seed(seeder, swarm, stop, hours, out)
        return ExitCode.COMPLETE

    return run_async(body, out)


async def _seed(
    seeder: Seeder, swarm: Swarm, stop: asyncio.Event, hours: Hours | None, out: Output
) -> None:
    beginning = asyncio.ensure_future(seeder.begin())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({beginning, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done():
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
    else:
        stopping.cancel()
        beginning.result()
        out.event("seeding", port=swarm.port, torrents=len(seeder.offers), files=seeder.files)
        out.say(
            f"Sharing {format_count(seeder.files)} files in {format_count(len(seeder.offers))} "
            f"torrents on port {swarm.port} (Ctrl-C stops it)"
        )
        if hours is not None:
            await _mind(hours, seeder, out)
        keeping_hours = asyncio.ensure_future(_keep_hours(hours, seeder, out))
        try:
            await seeder.keep(stop)
        finally:
            keeping_hours.cancel()
            await asyncio.gather(keeping_hours, return_exceptions=True)
            await seeder.leave()
    await seeder.refresh()
    out.summary(
        torrents=len(seeder.offers), files_seeded=seeder.files, bytes_sent=seeder.sent_bytes
    )
    out.say(f"Sent {format_size(seeder.sent_bytes)}.")


async def _keep_hours(hours: Hours | None, seeder: Seeder, out: Output) -> None:
    while hours is not None:
        await asyncio.sleep(_HOURS_CHECK_S)
        await _mind(hours, seeder, out)


async def _mind(hours: Hours, seeder: Seeder, out: Output) -> None:
    """Leave the swarms outside the hours, and join them again within."""
    now = datetime.now().astimezone()
    paused = not hours.holds(now.hour * 60 + now.minute)
    if paused != seeder.paused:
        await seeder.pause(paused=paused)
        out.say("outside the hours: nothing is shared" if paused else "sharing again")


async def _sources(session: Session, stack: AsyncExitStack) -> list[Source]:
    """The torrents of every release whose descriptor is here, the tree's own release first."""
    stored = session.stored_descriptors()
    stored.sort(key=lambda found: found.release != session.config.release)
    if not stored or stored[0].release != session.config.release:
        message = f"the descriptor of {session.config.release} is not stored in this tree"
        raise ConfigError(message, hint="Run `bucketsync upgrade` to fetch it.")
    sources: list[Source] = []
    known: set[bytes] = set()
    for descriptor in stored:
        runs = runs_of(descriptor, session.config.selection.variants_of(descriptor.variants))
        runs = [run for run in runs if run.key not in known]
        if not runs:
            continue
        try:
            selection = await resolve(session, descriptor, session.config.selection)
            view = ReleaseView(descriptor, session.notices(), selection, session.folders.cache)
            stack.callback(view.close)
            await view.open(session.hosts)
        except SyncError as error:
            session.notice(f"{descriptor.release}: not shared: {error.message}", warning=True)
            continue
        known |= {run.key for run in runs}
        places = session.places(descriptor)
        sources.append(
            Source(
                runs=runs,
                holdings=Holdings(view, places, session.state),
                roots=lambda variant: _root(session, variant),
            )
        )
    if not sources:
        raise ConfigError(
            "no release of this tree has torrents",
            hint="The publisher made none (--no-torrents), or no host has what names them.",
        )
    return sources


def _root(session: Session, variant: str) -> Path:
    """The folder that holds the variant under its own name, as torrents have it."""
    elsewhere = session.config.variant_dirs.get(variant)
    if elsewhere is None:
        return session.tree.absolute()
    folder = private_folder(session.tree).absolute() / "peers"
    link = folder / variant
    folder.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        if os.readlink(link) == elsewhere:  # noqa: PTH115 (a string to compare)
            return folder
        link.unlink()
    link.symlink_to(elsewhere)
    return folder


def _tell(now: Seeding, out: Output) -> None:
    out.event(
        "status",
        torrents=now.torrents,
        active=now.active,
        files=now.files,
        peers=now.peers,
        upload_rate=now.upload_rate,
        bytes_sent=now.sent_bytes,
        rarest=now.rarest,
        copies=now.copies,
    )
    if now.peers:
        rarest = f"; rarest: {now.rarest}, offered by {now.copies}" if now.rarest else ""
        out.detail(
            f"{format_count(now.peers)} peers, {format_size(now.upload_rate)}/s, "
            f"{format_size(now.sent_bytes)} sent{rarest}"
        )
