"""``apply FILE``: carry out a plan that was reviewed, and nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from msgspec.structs import replace

from manifests.digest import Digest
from manifests.errors import ConfigError, ExitCode
from manifests.units import counted
from syncclient.commands.options import (
    add_common,
    add_transport,
    transport_of,
    with_folders,
)
from syncclient.commands.run import bring_about, run_async, wish_of
from syncclient.commands.upgrade import target_of
from syncclient.config import load_tree_config
from syncclient.events import Listener
from syncclient.look import Look
from syncclient.output import Output
from syncclient.planfile import PlanFile, read_plan, restrict
from syncclient.session import open_session


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("apply", help="carry out a plan")
    parser.add_argument("file", type=Path, metavar="FILE", help="made by `bucketsync plan`")
    parser.add_argument(
        "dir", nargs="?", type=Path, metavar="DIR", help="the tree (default: that of the plan)"
    )
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Apply."""
    plan = read_plan(args.file)
    tree = args.dir or plan.tree
    config = replace(with_folders(args, load_tree_config(tree)), selection=plan.selection)
    if plan.dataset != config.dataset:
        message = f"{args.file} is a plan for {plan.dataset}, this is a tree of {config.dataset}"
        raise ConfigError(message)
    stale = 0

    async def body(listen: Listener) -> ExitCode:
        transport = transport_of(args, config.transport)
        async with open_session(tree, config, transport, listen, args.state_dir) as session:
            descriptor, _ = await target_of(session, plan.release)
            _check_release(plan, Digest.of(descriptor.encode()).hex)

            async def cut(look: Look) -> None:
                nonlocal stale
                stale = restrict(look, plan)

            wish = replace(await wish_of(args, descriptor, session), delete=plan.delete)
            code = await bring_about(session, wish, out, dry_run=args.dry_run, between=cut)
            out.summary(steps=plan.count, steps_stale=stale)
            if stale and not args.dry_run:
                out.warn(
                    f"{counted(stale, 'step')} left out: the tree changed since the plan. "
                    "Make a new plan for them."
                )
                return ExitCode.INCOMPLETE
            return code

    return run_async(body, out)


def _check_release(plan: PlanFile, descriptor: str) -> None:
    if plan.descriptor != descriptor:
        message = f"the plan is for another {plan.release}: {plan.descriptor}, not {descriptor}"
        raise ConfigError(message, hint="Make a new plan.")
