"""Queries compared by what they mean: the same truth table over the same terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from manifests.query.ast import All, And, Node, Not, Nothing, Or, Wildcard, to_text
from manifests.query.normal import children_of, simplify

_OPERATORS = ("and", "or", "not")


def leaves_of(tree: Node) -> list[Node]:
    """The different leaves of a tree."""
    children = children_of(tree)
    if not children and not isinstance(tree, All | Nothing):
        return [tree]
    return list(dict.fromkeys(leaf for child in children for leaf in leaves_of(child)))


def terms_of(tree: Node) -> dict[str, Node]:
    """The leaves of a tree, by how an s-expression writes them."""
    return {_written(leaf): leaf for leaf in leaves_of(tree)}


def _written(leaf: Node) -> str:
    return f"(wildcard {leaf.pattern})" if isinstance(leaf, Wildcard) else to_text(leaf)


def holds(tree: Node, truths: Mapping[Node, bool]) -> bool:
    """Whether a tree without optional parts holds where its leaves are so."""
    match tree:
        case And(children):
            return all(holds(child, truths) for child in children)
        case Or(children):
            return any(holds(child, truths) for child in children)
        case Not(child):
            return not holds(child, truths)
        case All():
            return True
        case Nothing():
            return False
        case _:
            return truths[tree]


def table(tree: Node, leaves: list[Node]) -> list[bool]:
    """Whether a tree holds, for every way in which the leaves may."""
    simple = simplify(tree)
    rows = product((False, True), repeat=len(leaves))
    return [holds(simple, dict(zip(leaves, row, strict=True))) for row in rows]


def same_meaning(one: Node, other: Node) -> bool:
    """Whether two trees have the same leaves and the same truth table."""
    leaves = leaves_of(one)
    if set(leaves) != set(leaves_of(other)):
        return False
    return table(one, leaves) == table(other, leaves)


def read_expression(text: str, terms: Mapping[str, Node]) -> Node:
    """The tree of an s-expression over known terms, which may have parentheses of their own."""
    if text == "all":
        return All()
    for tree, end in _expressions(text, 0, terms):
        if end == len(text):
            return tree
    message = f"{text!r} is no expression of {sorted(terms)}"
    raise AssertionError(message)


def _expressions(text: str, at: int, terms: Mapping[str, Node]) -> Iterator[tuple[Node, int]]:
    """What may begin at a place, and where it would end."""
    for operator in _OPERATORS:
        if text.startswith(f"({operator} ", at):
            for children, end in _operands(text, at + len(operator) + 2, terms):
                yield _combined(operator, children), end
    for written, leaf in terms.items():
        if text.startswith(written, at):
            yield leaf, at + len(written)


def _operands(
    text: str, at: int, terms: Mapping[str, Node]
) -> Iterator[tuple[tuple[Node, ...], int]]:
    for first, end in _expressions(text, at, terms):
        if text.startswith(")", end):
            yield (first,), end + 1
        if text.startswith(" ", end):
            for rest, last in _operands(text, end + 1, terms):
                yield (first, *rest), last


def _combined(operator: str, children: tuple[Node, ...]) -> Node:
    if operator == "not":
        (child,) = children
        return Not(child)
    return And(children) if operator == "and" else Or(children)
