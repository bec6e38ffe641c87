"""``search QUERY``: the ids of posts that match, on a server, in a tree, or in files of JSON."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from manifests.errors import ConfigError, ExitCode
from manifests.query.parser import parse
from manifests.query.search import check
from manifests.units import counted, format_count, format_duration, format_size
from syncclient.commands.clone import add_start
from syncclient.commands.options import add_common, add_transport, transport_of
from syncclient.commands.run import run_async
from syncclient.config import load_tree_config
from syncclient.events import Listener
from syncclient.output import Output
from syncclient.searching import Question
from syncclient.searchplaces import Answer, Asking, Place, in_files, in_tree, on_server

# Bad rows that are named; all are counted.
_SHOWN_FAULTS = 20


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser(
        "search", help="ids of the posts that match, on a server, in a tree or in JSON lines"
    )
    parser.add_argument(
        "query",
        metavar="QUERY",
        nargs="?",
        help="in Danbooru's language; one that begins with - follows --",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help="ask a repository")
    where.add_argument("--dir", type=Path, metavar="DIR", help="ask in a tree (default: here)")
    where.add_argument(
        "--metadata",
        type=Path,
        nargs="+",
        action="extend",
        metavar="PATH",
        help="ask in a file of posts, or a folder of posts and their tables (repeatable)",
    )
    add_start(parser)
    parser.add_argument("--count", action="store_true", help="print how many match, not which")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N ids")
    parser.add_argument(
        "--bytes", action="store_true", help="add up the sizes of their files (on a server)"
    )
    parser.add_argument(
        "--tz", default="UTC", metavar="ZONE", help="where days begin, such as Europe/Berlin"
    )
    parser.add_argument(
        "--now",
        metavar="TIME",
        help="what ages count from, such as 2021-01-31 or 2021-01-31T12:00+01:00 "
        "(default: the release's date; in files, this moment)",
    )
    parser.add_argument(
        "--seed", default="", metavar="TEXT", help="decides what random: and order:random draw"
    )
    add_transport(parser)
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Search."""
    _take_query(args)
    # What is wrong with it is said before anything is asked or read.
    check(parse(args.query))
    if args.limit is not None and args.limit < 0:
        message = f"--limit {args.limit}: expected a number of ids"
        raise ConfigError(message)
    zone = _zone(args.tz)
    question = Question(
        query=args.query,
        zone=zone,
        now=None if args.now is None else _moment(args.now, zone),
        seed=args.seed,
        limit=args.limit,
    )
    started_s = time.monotonic()

    async def body(listen: Listener) -> ExitCode:
        answer = await _place(args, listen)(question)
        _tell(answer, args, time.monotonic() - started_s, out)
        return ExitCode.COMPLETE

    return run_async(body, out)


def _take_query(args: argparse.Namespace) -> None:
    """A query that follows the paths of ``--metadata`` was read as one of them."""
    paths = args.metadata or []
    if args.query is None and len(paths) > 1 and not paths[-1].exists():
        args.query = str(paths.pop())
    if args.query is None:
        raise ConfigError(
            "a QUERY is missing", hint="One that begins with - follows --; '' finds every post."
        )


def _place(args: argparse.Namespace, listen: Listener) -> Place:
    if args.metadata:
        return in_files(args.metadata)
    tree = args.dir or Path()
    kept = {} if args.url else load_tree_config(tree).transport
    how = Asking(
        transport=transport_of(args, kept),
        listen=listen,
        release=args.release,
        state_dir=args.state_dir,
    )
    if args.url:
        return on_server(args.url, how, trust_root=args.trust_root, with_bytes=args.bytes)
    return in_tree(tree, how)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        message = f"--tz {name}: no time zone of this name"
        raise ConfigError(message, hint="Such as UTC or Europe/Berlin.") from error


def _moment(text: str, zone: ZoneInfo) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        message = f"--now {text}: expected a time such as 2021-01-31T12:00"
        raise ConfigError(message) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)


def _tell(answer: Answer, args: argparse.Namespace, seconds: float, out: Output) -> None:
    for fault in answer.faults[:_SHOWN_FAULTS]:
        out.warn(f"{fault.file}:{fault.line}: {fault.problem}")
    if len(answer.faults) > _SHOWN_FAULTS:
        out.warn(f"... and {format_count(len(answer.faults) - _SHOWN_FAULTS)} more")
    ids = [] if args.count else answer.ids.tolist()
    found = len(answer.ids)
    if args.count:
        out.result(str(found))
    elif ids and not out.json:
        out.result("\n".join(map(str, ids)))
    stated = {} if args.count else {"ids": ids}
    sizes = answer.bytes_by_variant
    size_bytes = None if sizes is None else sum(sizes.values())
    out.summary(
        **stated,
        count=found,
        bytes=size_bytes,
        bytes_received=answer.received_bytes,
        requests=answer.requests,
        seconds=round(seconds, 3),
        release=answer.release,
        rows_faulty=len(answer.faults),
    )
    size = "" if size_bytes is None else f", {format_size(size_bytes)}"
    received = f"{format_size(answer.received_bytes)} in {counted(answer.requests, 'request')}, "
    traffic = received if answer.requests else ""
    out.say(f"{counted(found, 'post')}{size}; {traffic}{format_duration(seconds)}")
