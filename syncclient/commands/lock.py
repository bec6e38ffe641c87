"""``lock [DIR] --out FILE``: freeze what the tree selects of its release."""

from __future__ import annotations

import argparse
from pathlib import Path

from manifests.errors import ConfigError, ExitCode
from manifests.units import counted
from syncclient.commands.options import add_common, add_transport, add_tree, transport_of
from syncclient.commands.run import run_async, wish_of
from syncclient.config import load_tree_config
from syncclient.events import Listener, Phase
from syncclient.lockfile import write_lock
from syncclient.output import Output
from syncclient.pool import in_thread
from syncclient.release import ReleaseView
from syncclient.session import open_session


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("lock", help="freeze a selection: every file with its digest")
    add_tree(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the lock file to write"
    )
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Lock."""
    config = load_tree_config(args.dir)

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        async with open_session(args.dir, config, transport, listen, args.state_dir) as session:
            descriptor = session.stored_descriptor(config.release)
            if descriptor is None:
                message = f"the descriptor of {config.release} is not stored in this tree"
                raise ConfigError(message, hint="Run `bucketsync upgrade` to fetch it.")
            wish = await wish_of(args, descriptor, session)
            listen(Phase(name="manifests"))
            notices, cache = session.notices(), session.folders.cache
            view = ReleaseView(descriptor, notices, wish.selection, cache)
            try:
                await view.open(session.hosts)
                lock, digest = await in_thread(
                    lambda: write_lock(args.out, view, config.root_fingerprint)
                )
            finally:
                view.close()
            out.summary(ids=len(lock.ids), digest=digest.hex, release=descriptor.release)
            out.result(digest.hex)
            out.say(f"{counted(len(lock.ids), 'post')} of {descriptor.release} in {args.out}")
            return ExitCode.COMPLETE

    return run_async(body, out)
