"""Write ``docs/reference/cli.md`` from the two command lines themselves.

    python docs/generate_reference.py [--check]

With ``--check`` nothing is written; exit code 1 says that the file is not what it should be.  The
text depends on the parsers alone, not on the version of Python or the width of a terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from server.cli import build_parser as publisher_parser
from syncclient.cli import build_parser as client_parser

PATH = Path(__file__).parent / "reference" / "cli.md"
HEAD = """\
# Command line

This page is made from the programs by `make docs`; do not edit it. The fields of `--json` are in
[summary.md](summary.md), exit codes in [exit-codes.md](exit-codes.md), lasting settings in
[settings.md](settings.md). `bucketsync VERB --help` prints the same.

Sizes and rates are written like `4MiB`, `1.5G` or `2M`; durations like `90`, `15m`, `2h`, `30d` or
`5y`; shares like `5%`.
"""

# A table: for each argument how it is written, and what it does.
Rows = tuple[tuple[str, str], ...]


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb, by name."""
    for action in parser._actions:  # noqa: SLF001 (argparse has no other way to look inside)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def purposes(parser: argparse.ArgumentParser) -> dict[str, str]:
    """What each verb is for, by name."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return {item.dest: item.help or "" for item in action._choices_actions}  # noqa: SLF001
    return {}


def written(action: argparse.Action) -> str:
    """How an argument is typed: ``DIR``, or ``-n, --dry-run``, or ``--jobs N``."""
    value = _value(action)
    if not action.option_strings:
        return value
    return ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 else "")


def _value(action: argparse.Action) -> str:
    name = action.metavar or action.dest.upper()
    if action.choices is not None and action.metavar is None:
        name = "|".join(map(str, action.choices))
    shown = name if isinstance(name, str) else " ".join(name)
    return {"?": f"[{shown}]", "+": f"{shown} [{shown} ...]"}.get(str(action.nargs), shown)


def explained(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help of an argument, with its default where the help names it."""
    return (action.help or "") % {**vars(action), "prog": parser.prog}


def groups_of(parser: argparse.ArgumentParser) -> dict[str, Rows]:
    """The tables of one verb by title; that of the verb's own arguments has none."""
    found: dict[str, Rows] = {}
    for group in parser._action_groups:  # noqa: SLF001
        title = group.title or ""
        own = title in {"positional arguments", "options"}
        rows = tuple(
            (written(action), explained(parser, action))
            for action in group._group_actions  # noqa: SLF001
            if action.dest != "help"
        )
        if rows:
            found["" if own else title] = found.get("" if own else title, ()) + rows
    return found


def program(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The chapter of one program: its verbs, and the tables that several of them share."""
    tables = {name: groups_of(verb) for name, verb in verbs_of(parser).items()}
    tables = dict(zip(tables, _with_common(list(tables.values())), strict=True))
    uses = Counter((title, rows) for held in tables.values() for title, rows in held.items())
    shared = {title: rows for (title, rows), count in uses.items() if title and count > 1}
    yield f"## {parser.prog}\n"
    yield f"{parser.description}\n"
    what = purposes(parser)
    for name in tables:
        yield f"- [`{name}`](#{parser.prog}-{name}): {what[name]}"
    yield ""
    for name, held in tables.items():
        yield from _verb(parser.prog, name, verbs_of(parser)[name], held, shared)
    for title, rows in shared.items():
        yield f"### {_title(parser.prog, title)}\n"
        yield from _table(rows)


def _with_common(tables: list[dict[str, Rows]]) -> list[dict[str, Rows]]:
    """The tables of all verbs, with the arguments that all of them have in one of its own."""
    own = [set(held.get("", ())) for held in tables]
    common = set.intersection(*own)
    split = []
    for held in tables:
        rows = held.get("", ())
        everywhere = tuple(row for row in rows if row in common)
        rest = {"": tuple(row for row in rows if row not in common)}
        split.append(held | rest | ({"everywhere": everywhere} if everywhere else {}))
    return split


def _title(prog: str, title: str) -> str:
    return f"Flags of {prog}: {title}"


def _verb(
    prog: str,
    name: str,
    verb: argparse.ArgumentParser,
    held: Mapping[str, Rows],
    shared: Mapping[str, Rows],
) -> Iterator[str]:
    yield f"### {prog} {name}\n"
    if verb.description:
        yield f"{verb.description}\n"
    places = [written(a) for a in verb._actions if not a.option_strings]  # noqa: SLF001
    needed = [written(a) for a in verb._actions if a.option_strings and a.required]  # noqa: SLF001
    yield "```\n" + " ".join([prog, name, *places, *needed, "[FLAGS]"]) + "\n```\n"
    for title, rows in held.items():
        if rows and shared.get(title) != rows:
            yield from _table(rows)
    also = [title for title, rows in held.items() if shared.get(title) == rows]
    if also:
        named = [f"[{title}](#{_anchor(_title(prog, title))})" for title in also]
        yield f"Also: {', '.join(named)}.\n"


def _anchor(heading: str) -> str:
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in "-_ ")
    return kept.replace(" ", "-")


def _table(rows: Rows) -> Iterator[str]:
    yield "| argument | what |"
    yield "|---|---|"
    for name, text in rows:
        yield f"| `{_cell(name)}` | {_cell(text)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def reference() -> str:
    """The whole page."""
    lines = [HEAD, *program(client_parser()), *program(publisher_parser())]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Write the page, or check it; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say if it is stale")
    args = parser.parse_args()
    text = reference()
    if not args.check:
        PATH.write_text(text, encoding="utf-8")
        return 0
    if PATH.is_file() and PATH.read_text(encoding="utf-8") == text:
        return 0
    print(f"{PATH} is not what the programs say: run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
