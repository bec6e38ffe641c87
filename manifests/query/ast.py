"""The tree of a query, and its two printed forms: nested lists for programs, text for people.

``position`` is the index of a node's first character in the query, for messages; two nodes that
mean the same are equal wherever they stand, which is why they are dataclasses: a ``Struct`` of
msgspec, as records are elsewhere, compares every field.

``and`` and ``or`` have two children or more, with one exception: ``~a`` means something only among
its siblings (*one of those marked*), so a list of a single optional child stays a list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

# What ends a word: Unicode's white space without the four separators U+001C to U+001F, which
# Python's \s has besides.
SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACE = re.compile(f"([{SPACE}])")


@dataclass(frozen=True, slots=True)
class All:
    """Every post: a query of no words."""

    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Nothing:
    """No post."""

    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Tag:
    """Posts with a tag; ``name`` in lower case."""

    name: str
    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Wildcard:
    """Posts with any tag that matches; ``pattern`` in lower case, has at least one ``*``."""

    pattern: str
    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Metatag:
    """``name:value``, the name canonical, the value as typed without its quotes and escapes."""

    name: str
    value: str
    quoted: bool = False
    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class And:
    """Posts that match every child; of those children that are optional, one at least."""

    children: tuple[Node, ...]
    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Or:
    """Posts that match a child at least."""

    children: tuple[Node, ...]
    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Not:
    """Posts that do not match the child."""

    child: Node
    position: int = field(default=0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Opt:
    """``~child``: one of the optional children of a list has to match."""

    child: Node
    position: int = field(default=0, compare=False, kw_only=True)


Node: TypeAlias = All | Nothing | Tag | Wildcard | Metatag | And | Or | Not | Opt


def to_list(node: Node) -> list[Any]:  # noqa: PLR0911 (a case for each node)
    """Nested lists, as ``explain`` prints them: ``["and", ["tag", "a"], ["not", …]]``."""
    match node:
        case All():
            return ["all"]
        case Nothing():
            return ["none"]
        case Tag(name):
            return ["tag", name]
        case Wildcard(pattern):
            return ["wildcard", pattern]
        case Metatag(name, value):
            return ["metatag", name, value]
        case And(children):
            return ["and", *map(to_list, children)]
        case Or(children):
            return ["or", *map(to_list, children)]
        case Not(child):
            return ["not", to_list(child)]
        case Opt(child):
            return ["opt", to_list(child)]


def to_text(node: Node, *, grouped: bool = False) -> str:  # noqa: PLR0911 (a case for each node)
    """The query as text, every list within another in parentheses; ``grouped`` if it is in some.

    It parses to the same meaning, unless a tag's own parentheses are not paired (``a)``): among
    the printed ones there may be no way to write such a name.
    """
    match node:
        case All():
            return ""
        case Nothing():
            return "none"
        case Tag(name):
            return name
        case Wildcard(pattern):
            return pattern
        case Metatag():
            return _metatag_text(node, grouped=grouped)
        case And(children):
            return " ".join(_within((And, Or), child, grouped=grouped) for child in children)
        case Or(children):
            return " or ".join(_within((And, Or), child, grouped=grouped) for child in children)
        case Not(child):
            return "-" + _within((And, Or, Not, Opt), child, grouped=grouped)
        case Opt(child):
            return "~" + _within((And, Or, Not, Opt), child, grouped=grouped)


def _within(kinds: tuple[type[Node], ...], node: Node, *, grouped: bool) -> str:
    """A child as text, in parentheses if it is of these kinds; a prefix takes no second one."""
    if isinstance(node, kinds):
        return f"({to_text(node, grouped=True)})"
    return to_text(node, grouped=grouped)


def _metatag_text(node: Metatag, *, grouped: bool) -> str:
    # Quotes know one escape, that of a quote, so a value with a backslash stays outside of them.
    awkward = _SPACE.search(node.value) is not None or (grouped and node.value.endswith(")"))
    if (node.quoted or awkward) and "\\" not in node.value:
        quoted = node.value.replace('"', '\\"')
        return f'{node.name}:"{quoted}"'
    escaped = _SPACE.sub(r"\\\1", node.value)
    # A backslash at the end would escape the space that follows.
    return f"({node.name}:{escaped})" if escaped.endswith("\\") else f"{node.name}:{escaped}"
