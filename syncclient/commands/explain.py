"""``explain QUERY``: how a query is understood, without a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from manifests.errors import ExitCode
from manifests.query.ast import Node, to_list
from manifests.query.errors import QueryError
from manifests.query.parser import parse
from manifests.query.search import check
from syncclient.commands.options import add_common
from syncclient.output import Output

# Characters of the query that are shown before and after the place of an error.
_AROUND = 50


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb's command line."""
    parser = verbs.add_parser("explain", help="show how a query is understood")
    parser.add_argument(
        "query", metavar="QUERY", help="the query; one that begins with - follows --"
    )
    add_common(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Show the tree of a query, or the place where it stops being one."""
    try:
        parsed = parse(args.query)
    except QueryError as error:
        out.summary(error={"position": error.position, "message": error.message})
        out.say(pointing(args.query, error.position))
        raise
    tree = to_list(parsed)
    _warn_of_refusal(parsed, out)
    out.summary(tree=tree)
    out.result("\n".join(outline(tree)))
    return ExitCode.COMPLETE


def _warn_of_refusal(parsed: Node, out: Output) -> None:
    """Say what a search would not accept of a query that parses, such as two orders."""
    try:
        check(parsed)
    except QueryError as error:
        out.warn(f"a search refuses this {error.message}. {error.hint}")


def pointing(query: str, position: int) -> str:
    """The query, or what of it is near a place, with a mark below that place."""
    start = max(0, position - _AROUND)
    # White space of any kind as one character, or the mark would miss its place.
    shown = "".join(c if c.isprintable() else " " for c in query[start : position + _AROUND])
    return f"{shown}\n{' ' * (position - start)}^"


def outline(tree: list[Any], depth: int = 0) -> Iterator[str]:
    """One line a node, its children indented below it."""
    indent = "  " * depth
    match tree:
        case ["tag" | "wildcard" as kind, str(name)]:
            yield f"{indent}{kind} {name}"
        case ["metatag", str(name), str(value)]:
            yield f"{indent}metatag {name}: {value!r}"
        case [kind, *children]:
            yield f"{indent}{kind}"
            for child in children:
                yield from outline(child, depth + 1)
