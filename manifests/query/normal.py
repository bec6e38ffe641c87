"""From the tree that was typed to the query that is answered.

Aliases and abbreviations take effect, ``~`` becomes ``or``, lists of one and lists within lists of
their kind go, and what asks for an order or a number of results leaves the filter.  That is asked
once (the same again does no harm), and never of a part: not under ``-`` or ``or``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from manifests.query.ast import All, And, Metatag, Node, Not, Nothing, Opt, Or, Tag, Wildcard
from manifests.query.errors import QueryError
from manifests.query.metatags import ORDERS, Kind, Order, parse_order
from manifests.query.numbers import BadValueError, read_integer
from manifests.query.parser import lower
from manifests.query.values import read_condition

# One order of results can be had, whichever of these asks for it.
_ORDER_NAMES = frozenset({"order", "ordpool", "ordfav", "ordfavgroup"})
_ONCE_NAMES = _ORDER_NAMES | {"limit", "random"}
NEWEST_FIRST = Order()


class Query(Struct, frozen=True, kw_only=True):
    """What is asked for: posts that meet ``filter``, in an order.

    ``limit`` is how many at most, ``random`` how many to draw before that; None is no limit.
    ``custom_ids`` is the order of ``order:custom``: the list of the only ``id:`` of the filter, or
    nothing, in which case nothing matches.
    """

    filter: Node
    order: Order = NEWEST_FIRST
    limit: int | None = None
    random: int | None = None
    custom_ids: tuple[int, ...] = ()


def _itself(name: str) -> str:
    return name


def normalize(
    tree: Node,
    *,
    alias: Callable[[str], str] = _itself,
    abbreviation: Callable[[str], str] = _itself,
) -> Query:
    """The query of a tree.

    ``alias`` gives the name that a tag goes by; ``abbreviation`` the tag meant by a name that
    begins with ``/``; each the name itself if there is none.  QueryError, with the place, where an
    order or a number of results is asked for twice, or of a part of the query, or where no release
    has what is to be ordered by.
    """

    def tag_name(name: str) -> str:
        found = alias(name)
        return abbreviation(found) if found.startswith("/") else found

    whole = simplify(resolve(tree, tag_name))
    found = _asked_once(whole)
    order = _order_of(found)
    filtering = _without_results(whole)
    return Query(
        filter=filtering,
        order=order,
        limit=_count_of(found, "limit"),
        random=_count_of(found, "random"),
        custom_ids=_listed_ids(filtering) if order.name == "custom" else (),
    )


def resolve(tree: Node, tag_name: Callable[[str], str]) -> Node:
    """The tree with every tag under its own name; ``unaliased:x`` is the tag x, as it is typed."""
    match tree:
        case Tag(name):
            return Tag(tag_name(name), position=tree.position)
        case Metatag("unaliased", value):
            return Tag(lower(value), position=tree.position)
        case _:
            return _with_children(tree, [resolve(child, tag_name) for child in children_of(tree)])


def simplify(tree: Node) -> Node:
    """The same meaning without ``Opt``, lists of one, and lists within lists of their kind."""
    children = [simplify(child) for child in children_of(tree)]
    match tree:
        case Opt():
            return children[0]
        case And() | Or():
            return _joined(tree, children)
        case _:
            return _with_children(tree, children)


def children_of(node: Node) -> tuple[Node, ...]:
    """The nodes right below."""
    match node:
        case And(children) | Or(children):
            return children
        case Not(child) | Opt(child):
            return (child,)
        case _:
            return ()


def _with_children(node: Node, children: list[Node]) -> Node:
    match node:
        case And():
            return And(tuple(children), position=node.position)
        case Or():
            return Or(tuple(children), position=node.position)
        case Not():
            return Not(children[0], position=node.position)
        case Opt():
            return Opt(children[0], position=node.position)
        case All() | Nothing() | Tag() | Wildcard() | Metatag():
            return node


def _joined(node: And | Or, children: list[Node]) -> Node:
    """A list of simple children: those that were optional are alternatives of one another."""
    pairs = list(zip(node.children, children, strict=True))
    optional = [child for typed, child in pairs if isinstance(typed, Opt)]
    parts = [child for typed, child in pairs if not isinstance(typed, Opt)]
    if optional:
        parts.insert(0, _flat(Or, optional, optional[0].position))
    return _flat(type(node), parts, node.position)


def _flat(kind: type[And | Or], children: Sequence[Node], position: int) -> Node:
    if len(children) == 1:
        return children[0]
    parts: list[Node] = []
    for child in children:
        parts += children_of(child) if isinstance(child, kind) else (child,)
    return kind(tuple(parts), position=position)


def _asked_once(tree: Node) -> dict[str, Metatag]:
    """What asks about results, by name, ``order`` for all that ask for an order."""
    found: dict[str, Metatag] = {}
    for metatag, whole in _results_of(tree, whole=True):
        if not whole:
            expected = f"{metatag.name}: for the whole query"
            hint = "Take it out of the - or the or."
            raise QueryError(metatag.position, expected, "it for a part", hint)
        key = "order" if metatag.name in _ORDER_NAMES else metatag.name
        first = found.setdefault(key, metatag)
        if (first.name, first.value.lower()) != (metatag.name, metatag.value.lower()):
            got = f"another, {metatag.name}:{metatag.value}"
            hint = f"{first.name}:{first.value} stands at position {first.position}; keep one."
            raise QueryError(metatag.position, f"{key} once", got, hint)
    return found


def _results_of(tree: Node, *, whole: bool) -> Iterator[tuple[Metatag, bool]]:
    """What asks about results, and whether it does so for the whole query."""
    if isinstance(tree, Metatag) and tree.name in _ONCE_NAMES:
        yield tree, whole
    for child in children_of(tree):
        yield from _results_of(child, whole=whole and isinstance(tree, And))


def _order_of(found: dict[str, Metatag]) -> Order:
    match found.get("order"):
        case Metatag("order") as metatag:
            return _known_order(metatag)
        case Metatag("ordpool", value):
            return Order("pool", pool=value)
        case _:
            return NEWEST_FIRST


def _known_order(metatag: Metatag) -> Order:
    order = parse_order(metatag.value)
    lacks = ORDERS[order.name].lacks
    if lacks:
        expected, got = "an order of what a release has", f"order:{metatag.value}"
        raise QueryError(metatag.position, expected, got, f"A release does not have {lacks}.")
    return order


def _count_of(found: dict[str, Metatag], name: str) -> int | None:
    if name not in found:
        return None
    metatag = found[name]
    try:
        count = read_integer(metatag.value)
    except BadValueError:
        count = -1
    if count < 0:
        expected = f"a whole number after {name}:"
        raise QueryError(metatag.position, expected, repr(metatag.value), f"Write {name}:100.")
    return count


def _without_results(tree: Node) -> Node:
    """The filter alone.  ``ordpool`` also asks for the posts of its pool.

    Those that ask for an order no dataset has (``ordfav``) stay, for the evaluator to refuse.
    """
    match tree:
        case Metatag("order" | "limit" | "random"):
            return All(position=tree.position)
        case Metatag("ordpool", value, quoted):
            return Metatag("pool", value, quoted, position=tree.position)
        case And(children):
            parts = [part for part in map(_without_results, children) if not isinstance(part, All)]
            return _flat(And, parts, tree.position) if parts else All(position=tree.position)
        case _:
            return tree


def _listed_ids(tree: Node) -> tuple[int, ...]:
    parts = tree.children if isinstance(tree, And) else (tree,)
    ids = [part for part in parts if isinstance(part, Metatag) and part.name == "id"]
    if len(ids) != 1:
        return ()
    epoch = datetime.fromtimestamp(0, UTC)
    condition = read_condition(Kind.INTEGER, ids[0].value, now=epoch, tz=UTC)
    if condition.spans:
        return ()
    return tuple(int(point) for point in condition.points)
