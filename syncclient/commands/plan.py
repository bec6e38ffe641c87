"""``plan [DIR] --out FILE``: what an upgrade would do, as a file to review and apply."""

from __future__ import annotations

import argparse
from pathlib import Path

from manifests.digest import Digest
from manifests.errors import ExitCode
from syncclient.commands.options import (
    add_common,
    add_deletion,
    add_selection,
    add_transport,
    add_tree,
    transport_of,
    with_selection,
)
from syncclient.commands.run import bring_about, run_async, wish_of
from syncclient.commands.upgrade import target_of
from syncclient.config import load_tree_config
from syncclient.events import Listener
from syncclient.look import Look
from syncclient.output import Output
from syncclient.planfile import write_plan
from syncclient.pool import in_thread
from syncclient.session import open_session


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("plan", help="write what an upgrade would do to a file")
    add_tree(parser)
    parser.add_argument("--to", metavar="R", help="the release (default: the newest)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the plan, one JSON object a line"
    )
    add_selection(parser)
    add_deletion(parser)
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Plan."""
    config = with_selection(args, load_tree_config(args.dir))

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        async with open_session(args.dir, config, transport, listen, args.state_dir) as session:
            descriptor, expired = await target_of(session, args.to)
            name = Digest.of(descriptor.encode()).hex

            async def write(look: Look) -> None:
                chosen = session.config.selection
                await in_thread(
                    lambda: write_plan(args.out, look, chosen, name, delete=args.delete)
                )

            wish = await wish_of(args, descriptor, session)
            code = await bring_about(session, wish, out, dry_run=True, between=write)
            if expired is not None:
                raise expired
            return code

    return run_async(body, out)
