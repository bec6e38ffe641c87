"""``releases URL_OR_DIR``: what was published, with counts, bytes, dates and bases."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manifests.errors import ExitCode, SyncError
from manifests.units import format_count, format_size
from syncclient.commands.options import add_common, add_transport, transport_of
from syncclient.commands.run import run_async
from syncclient.config import TreeConfig, check_url, load_tree_config
from syncclient.events import Listener
from syncclient.output import Output
from syncclient.selection import Selection
from syncclient.session import open_session
from syncclient.signed import ReleaseTarget, Signed


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("releases", help="list what was published")
    parser.add_argument("where", metavar="URL_OR_DIR", help="a repository's address, or a tree")
    parser.add_argument("--trust-root", metavar="FILE_OR_FINGERPRINT", help="the publisher's root")
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """List releases."""
    remote = "://" in args.where

    async def body(listen: Listener) -> ExitCode:
        if remote:
            with tempfile.TemporaryDirectory() as scratch:
                signed = await _ask(args, Path(scratch), _nameless(args.where), listen)
        else:
            tree = Path(args.where)
            signed = await _ask(args, tree, load_tree_config(tree), listen)
        _tell(signed, out)
        return ExitCode.COMPLETE

    return run_async(body, out)


def _nameless(url: str) -> TreeConfig:
    return TreeConfig(
        dataset="",
        urls=(check_url(url),),
        root_fingerprint="",
        release="",
        selection=Selection(),
    )


async def _ask(
    args: argparse.Namespace, tree: Path, config: TreeConfig, listen: Listener
) -> Signed:
    transport = transport_of(args, config.transport)
    async with open_session(tree, config, transport, listen, args.state_dir) as session:
        if config.dataset and not args.trust_root:
            try:
                return await session.refresh()
            except SyncError as error:
                session.notice(f"{error.message}; showing what was learned before", warning=True)
                return session.stored()
        await session.pin(args.trust_root)
        return await session.refresh()


def _tell(signed: Signed, out: Output) -> None:
    ordered = signed.by_date()
    out.summary(releases=[_fields(target) for target in ordered])
    rows = []
    for target in ordered:
        custom = target.custom
        created = custom.get("created", 0)
        date = time.strftime("%Y-%m-%d", time.gmtime(created if isinstance(created, int) else 0))
        for name, totals in sorted(_variants(target).items()):
            files, size_bytes = int(totals.get("files", 0)), int(totals.get("bytes", 0))
            base = str(custom.get("base") or "")
            rows.append(
                [target.name, date, base, name, format_count(files), format_size(size_bytes)]
            )
    for row in rows:
        out.result("\t".join(row))


def _variants(target: ReleaseTarget) -> Mapping[str, Any]:
    variants = target.custom.get("variants", {})
    return variants if isinstance(variants, Mapping) else {}


def _fields(target: ReleaseTarget) -> dict[str, Any]:
    return {
        "name": target.name,
        "base": target.custom.get("base"),
        "created": target.custom.get("created"),
        "variants": dict(_variants(target)),
        "descriptor_sha256": target.sha256,
    }
