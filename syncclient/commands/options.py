"""Flags that several verbs share, and what they mean together."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from manifests.errors import ConfigError
from manifests.paths import check_variant
from manifests.units import parse_percent
from syncclient.config import DELETE_SHARE, Transport, TreeConfig, check_url, merge_transport
from syncclient.selection import Selection, parse_buckets, parse_ids


def add_common(parser: argparse.ArgumentParser) -> None:
    """Flags of every verb; one that a verb has no use for changes nothing there."""
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--json", action="store_true", help="one JSON object a line on stdout, the summary last"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="print only warnings and errors")
    group.add_argument("-v", "--verbose", action="store_true", help="print more of what is done")
    group.add_argument("-n", "--dry-run", action="store_true", help="show what would be done")
    scan = group.add_mutually_exclusive_group()
    scan.add_argument(
        "--quick",
        action="store_true",
        help="believe folder times: finds files that came or went, not files edited in place",
    )
    scan.add_argument(
        "--scan", action="store_true", help="look at size and time of every file (the default)"
    )
    group.add_argument(
        "--max-delete",
        metavar="N|P%",
        default=f"{DELETE_SHARE:.0%}",
        help="stop if more files than that would be deleted (default 10%%)",
    )
    group.add_argument(
        "--allow-redirect",
        action="append",
        metavar="HOST",
        help="follow redirects to this other host (repeatable)",
    )
    group.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="keep state and trusted metadata there, for trees on exFAT or NFS",
    )
    group.add_argument(
        "--variant-dir",
        action="append",
        metavar="NAME=PATH",
        help="keep a variant in another folder, perhaps on another disk (repeatable)",
    )
    group.add_argument(
        "--yes",
        action="store_true",
        help="answer yes to questions; never widens what is deleted",
    )


def add_tree(parser: argparse.ArgumentParser) -> None:
    """The optional DIR."""
    parser.add_argument(
        "dir", nargs="?", type=Path, default=Path(), metavar="DIR", help="the tree (default: here)"
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """What of a release is wanted; kept with the tree."""
    group = parser.add_argument_group("selection (kept with the tree)")
    group.add_argument(
        "--variant", action="append", metavar="NAME", help="only this variant (repeatable)"
    )
    group.add_argument("--bucket", metavar="A..B", help="only these buckets, such as 0..99")
    group.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="only the ids (or paths) listed in FILE, one a line",
    )
    group.add_argument(
        "--select",
        metavar="QUERY",
        help="only posts that match, such as '1girl solo -comic'; '' for all again; a query that "
        "begins with - is joined by =, --select='-comic'",
    )
    group.add_argument(
        "--with-metadata",
        action="store_true",
        help="also write the publisher's lines about these posts to metadata/RELEASE/",
    )


def add_transport(parser: argparse.ArgumentParser) -> None:
    """How bytes travel."""
    group = parser.add_argument_group("transport")
    group.add_argument(
        "--source",
        choices=("auto", "http", "torrent"),
        help="where files come from: hosts, peers, or both (auto, the default)",
    )
    group.add_argument(
        "--mirror",
        action="append",
        dest="mirrors",
        metavar="URL",
        help="another host of the same repository (repeatable); it need not be trusted",
    )
    group.add_argument(
        "--local",
        action="append",
        dest="locals",
        metavar="DIR",
        help="another tree on this machine to take files from (repeatable)",
    )
    group.add_argument(
        "--jobs", type=int, metavar="N", help="worker processes (default: by the work)"
    )
    group.add_argument(
        "--bwlimit", metavar="RATE", help="bytes a second, such as 2M; 0 for no limit"
    )
    group.add_argument(
        "--min-rate",
        metavar="RATE",
        help="give up a host that brings less a second (default 1k; 0 for no such rule)",
    )
    group.add_argument("--connections", type=int, metavar="N", help="connections to each host")
    group.add_argument("--retries", type=int, metavar="N", help="tries before a host is given up")
    add_peering(group)
    group.add_argument(
        "--staging-memory",
        metavar="SIZE",
        help="memory in which small files from peers wait to be checked (default: 500M)",
    )
    group.add_argument(
        "--timeout", dest="timeout_s", type=float, metavar="SECONDS", help="wait for an answer"
    )


def add_peering(group: argparse._ArgumentGroup) -> None:
    """How peers are found and reached; what is not named here is in the tree's settings."""
    group.add_argument(
        "--peer",
        action="append",
        dest="peers",
        metavar="HOST:PORT",
        help="a peer to ask beside those that trackers name (repeatable)",
    )
    group.add_argument(
        "--listen",
        metavar="ADDRESS:PORT",
        help="where peers reach us; port 0, the default, picks one",
    )
    group.add_argument(
        "--upload-limit", metavar="RATE", help="bytes a second to peers; 0 for no limit"
    )
    for flag, text in (
        ("--dht", "find peers through the distributed hash table, too"),
        ("--lsd", "find peers on the local network, too"),
        ("--utp", "also use uTP, which gives way to other traffic and is slow"),
        ("--port-mapping", "ask the router to let peers in (UPnP, NAT-PMP)"),
    ):
        group.add_argument(flag, action="store_const", const=True, help=text)
    group.add_argument(
        "--no-pex",
        dest="pex",
        action="store_const",
        const=False,
        help="do not exchange addresses of other peers with peers",
    )
    group.add_argument(
        "--encryption",
        choices=("prefer", "require", "off"),
        help="of the connections to peers (default: prefer)",
    )


def add_deletion(parser: argparse.ArgumentParser) -> None:
    """Deleting what a release dropped."""
    parser.add_argument(
        "--delete",
        action="store_true",
        help="move files that the release dropped to .bucketsync/trash",
    )


def transport_of(args: argparse.Namespace, kept: Mapping[str, object]) -> Transport:
    """Transport settings of this run: defaults < tree < environment < flags."""
    flags = {name: getattr(args, name, None) for name in Transport.__struct_fields__}
    transport = merge_transport(kept, os.environ, flags)
    for url in transport.mirrors:
        check_url(url)
    return transport


def selection_of(args: argparse.Namespace, kept: Selection) -> Selection:
    """The kept selection with what the flags change."""
    chosen = kept
    if args.variant:
        chosen = replace(chosen, variants=tuple(dict.fromkeys(map(check_variant, args.variant))))
    if args.bucket:
        chosen = replace(chosen, buckets=parse_buckets(args.bucket))
    if args.ids:
        chosen = replace(chosen, ids=parse_ids(_read_text(args.ids), str(args.ids)))
    if args.select is not None and args.select.strip() != chosen.query:
        # The language takes a while to load, and most runs have no new query.
        from manifests.query.parser import parse  # noqa: PLC0415
        from manifests.query.search import check  # noqa: PLC0415

        # What is wrong with it is said before anybody is asked for anything.
        check(parse(args.select))
        chosen = replace(chosen, query=args.select.strip(), seed=os.urandom(8).hex())
    if args.with_metadata:
        chosen = replace(chosen, metadata=True)
    return chosen


def _read_text(path: Path) -> str:
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path}: cannot be read ({error})"
        raise ConfigError(message) from error


def variant_dirs_of(args: argparse.Namespace, kept: Mapping[str, str]) -> dict[str, str]:
    """The kept folders of variants with what the flags change; absolute paths."""
    found = dict(kept)
    for text in args.variant_dir or ():
        name, equals, path = text.partition("=")
        if not equals or not path:
            message = f"--variant-dir {text}: expected NAME=PATH"
            raise ConfigError(message)
        found[check_variant(name)] = str(Path(path).absolute())
    if len(set(found.values())) < len(found):
        raise ConfigError("--variant-dir: two variants cannot share a folder")
    return found


def with_selection(args: argparse.Namespace, config: TreeConfig) -> TreeConfig:
    """A tree's settings with the selection and the folders that the flags ask for."""
    return replace(with_folders(args, config), selection=selection_of(args, config.selection))


def with_folders(args: argparse.Namespace, config: TreeConfig) -> TreeConfig:
    """A tree's settings with the folders of variants that the flags ask for."""
    return replace(config, variant_dirs=variant_dirs_of(args, config.variant_dirs))


def deletion_limits(text: str) -> tuple[float, int | None]:
    """``--max-delete``: a share from ``10%``, or a number of files."""
    if text.endswith("%"):
        return parse_percent(text), None
    if not text.isdigit():
        message = f"--max-delete {text}: expected a number of files or a percentage"
        raise ConfigError(message)
    return 1.0, int(text)
