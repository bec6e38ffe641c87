"""``trash list|restore|empty [DIR]``: what deletions put aside."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from manifests.errors import ExitCode
from manifests.units import counted, format_size, parse_duration
from syncclient import trash
from syncclient.commands.options import add_common, add_tree, with_folders
from syncclient.config import load_tree_config
from syncclient.folders import locked
from syncclient.output import Output


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("trash", help="list, restore or empty what was put aside")
    parser.add_argument("action", choices=("list", "restore", "empty"))
    add_tree(parser)
    parser.add_argument(
        "--older-than",
        metavar="T",
        default="0",
        help="only what was put aside that long ago (30d)",
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Look after the trash."""
    config = with_folders(args, load_tree_config(args.dir))
    roots = list(dict.fromkeys([args.dir, *map(Path, config.variant_dirs.values())]))
    age_s = parse_duration(args.older_than)

    async def body() -> ExitCode:
        async with locked(args.dir):
            return await asyncio.to_thread(_act, args, roots, age_s, out)

    return asyncio.run(body())


def _act(args: argparse.Namespace, roots: list[Path], age_s: float, out: Output) -> ExitCode:
    files = size_bytes = occupied = 0
    for item in trash.listing(roots, age_s):
        taken = False
        if args.action == "restore" and not args.dry_run:
            taken = not trash.restore(item)
        out.event("file", path=item.path, kind=item.kind, run=item.run, bytes=item.size_bytes)
        if taken:
            occupied += 1
            out.warn(f"{item.path} was left in the trash: something else stands there now")
            continue
        files, size_bytes = files + 1, size_bytes + item.size_bytes
        if args.action == "list":
            out.result(f"{item.run}\t{item.kind}\t{item.size_bytes}\t{item.path}")
    if not args.dry_run:
        for root in roots:
            if args.action == "empty":
                trash.empty(root, age_s)
            elif args.action == "restore":
                trash.remove_empty_folders(root)
    out.summary(files=files, bytes=size_bytes)
    done = {"list": "in the trash", "restore": "restored", "empty": "deleted for good"}
    would = "would be " if args.dry_run and args.action != "list" else ""
    out.say(f"{counted(files, 'file')}, {format_size(size_bytes)} {would}{done[args.action]}")
    return ExitCode.INCOMPLETE if occupied else ExitCode.COMPLETE
