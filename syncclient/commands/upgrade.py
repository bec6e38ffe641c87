"""``upgrade [DIR]``: bring a tree to the newest or a named release, or finish it."""

from __future__ import annotations

import argparse

from manifests.errors import ExitCode
from manifests.model import Descriptor
from syncclient.commands.options import (
    add_common,
    add_deletion,
    add_selection,
    add_transport,
    add_tree,
    transport_of,
    with_selection,
)
from syncclient.commands.run import bring_about, run_async, wish_of, workers_needed
from syncclient.config import load_tree_config
from syncclient.events import Listener
from syncclient.output import Output
from syncclient.session import Session, open_session
from syncclient.signed import ExpiredError


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("upgrade", help="bring a tree to the newest release")
    add_tree(parser)
    parser.add_argument("--to", metavar="R", help="the release (default: the newest)")
    add_selection(parser)
    add_deletion(parser)
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Upgrade."""
    config = with_selection(args, load_tree_config(args.dir))

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        async with open_session(args.dir, config, transport, listen, args.state_dir) as session:
            descriptor, expired = await target_of(session, args.to)
            wish = await wish_of(args, descriptor, session)
            if not args.dry_run:
                here = session.config.release
                await session.nest.fill(workers_needed(wish, transport.jobs, here))
            code = await bring_about(session, wish, out, dry_run=args.dry_run)
            if expired is not None:
                raise expired
            return code

    return run_async(body, out)


async def target_of(session: Session, named: str | None) -> tuple[Descriptor, ExpiredError | None]:
    """The release to bring the tree to.

    A named release whose descriptor is stored needs no host.  Where the signatures have expired
    the tree's present release is finished, and the refusal to learn a newer one is returned to be
    raised.
    """
    if named and (known := session.stored_descriptor(named)) is not None:
        return known, None
    try:
        signed = await session.refresh()
    except ExpiredError as error:
        present = session.stored_descriptor(session.config.release)
        if named or present is None:
            raise
        return present, error
    return await session.descriptor(signed, named or signed.newest()), None
