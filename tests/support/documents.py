"""The project's documents as tests read them: blocks, commands, links, headings, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^( *)```(.*)$")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_PROMPT = "$ "
_MORE = "> "


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: what follows the fence (``console run``), its text, its first line."""

    info: str
    text: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command as a reader types it, what the document shows of its output, and its line."""

    text: str
    output: str
    line: int


def documents() -> list[Path]:
    """Every document of the project: the top folder's and all below docs/."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a document."""
    info, start, held = "", 0, list[str]()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if fence and not start:
            info, start = fence[2].strip(), number
        elif fence:
            yield Block(info=info, text="\n".join(held), line=start)
            start, held = 0, []
        elif start:
            held.append(line)


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    inside, kept = False, list[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def commands(block: Block) -> list[Command]:
    """The commands of a console block; lines after ``> `` belong to the one before."""
    found: list[Command] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith(_PROMPT):
            found.append(Command(text=line.removeprefix(_PROMPT), output="", line=number))
        elif found and line.startswith(_MORE) and not found[-1].output:
            more = line.removeprefix(_MORE)
            found[-1] = replace(found[-1], text=f"{found[-1].text}\n{more}")
        elif found:
            found[-1] = replace(found[-1], output=f"{found[-1].output}{line}\n")
    return found


def links(path: Path) -> list[str]:
    """The targets of a document's links, in the order they stand."""
    return _LINK.findall(prose(path))


def anchors(path: Path) -> set[str]:
    """What may follow ``#`` in a link to a document: its headings as GitHub writes them."""
    found = set()
    for heading in _HEADING.findall(prose(path)):
        plain = re.sub(r"[^\w\- ]", "", _LINK.sub("", heading).lower())
        found.add(plain.strip().replace(" ", "-"))
    return found


def section(path: Path, heading: str) -> str:
    """What stands below a heading, up to the next one of any depth; KeyError without it."""
    text = path.read_text(encoding="utf-8")
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL
    )
    if found is None:
        raise KeyError(heading)
    return found[1]


def table_rows(text: str) -> list[dict[str, str]]:
    """The rows of all tables in a text: each cell, without its code marks, by the head above."""
    found, head = list[dict[str, str]](), list[str]()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" |")]
        if not line.startswith("|"):
            head = []
        elif not head:
            head = cells
        elif not set(line) <= set("|-: "):
            found.append({name: _bare(cell) for name, cell in zip(head, cells, strict=True)})
    return found


def _bare(cell: str) -> str:
    """A cell without the code marks around it, if they are around all of it."""
    inside = cell.removeprefix("`").removesuffix("`")
    return cell if "`" in inside else inside


def first_column(text: str) -> list[str]:
    """The first cell of each row of the tables in a text, without code marks and head."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [row.split("|")[1].strip() for row in rows]
    heads = {place - 1 for place, cell in enumerate(cells) if cell and set(cell) <= {"-", ":"}}
    return [
        cell.strip("`")
        for place, cell in enumerate(cells)
        if place not in heads and place - 1 not in heads
    ]
