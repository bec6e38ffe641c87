"""Finds the checks of a module, and how each can be taken away: one changed source text at a time.

What counts as a check: the condition of an ``if`` that raises, each part of that condition that
stands by ``and`` or ``or``, each bound in it (``<`` for ``<=``), the condition of a last ``if``
before a ``raise``, a call of a function that is named after checking, and an entry of a table
of rules.  (``|`` counts as ``or``: columns are compared by it.)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

_NAMED_CHECK = re.compile(r"(^|\.)_*(check|require|refuse|expect|verify)")
_TABLES = {"rules", "checks", "sums"}
_BOUNDS: dict[type[ast.cmpop], ast.cmpop] = {
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A module with one check less; ``what`` names it without a line number."""

    what: str
    line: int
    source: bytes


def mutants_of(source: bytes, *, every_if: bool) -> Iterator[Mutant]:
    """Each way to take one check of a module away; ``every_if``: those that raise nothing too."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for scope, node, text in _changes(ast.parse(source), "module", every_if=every_if):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        what = f"{scope}: {ast.unparse(node)} -> {text}"
        changed = source[:begin] + text.encode() + source[end:]
        yield Mutant(what=what, line=node.lineno, source=changed)


def _changes(
    node: ast.AST, scope: str, *, every_if: bool
) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """Scope, node and the text to put in its place."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        scope = node.name if scope == "module" else f"{scope}.{node.name}"
    changes = [
        change
        for block in _blocks(node)
        for here, after in zip_longest(block, block[1:])
        for change in _weaker_statement(here, after, every_if=every_if)
    ]
    if every_if and isinstance(node, ast.IfExp):
        changes += [(node.test, "False"), (node.test, "True"), *_parts(node.test)]
    yield from ((scope, part, text) for part, text in changes)
    for child in ast.iter_child_nodes(node):
        yield from _changes(child, scope, every_if=every_if)


def _weaker_statement(
    here: ast.stmt, after: ast.stmt | None, *, every_if: bool
) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    if isinstance(here, ast.If):
        last = here.orelse[-1] if here.orelse else after
        yield from _weaker(here, last, every_if=every_if)
    elif isinstance(here, ast.Expr) and isinstance(here.value, ast.Call):
        if _NAMED_CHECK.search(ast.unparse(here.value.func)):
            yield here, "pass"
            for argument in here.value.args:
                yield from _parts(argument)
    elif isinstance(here, ast.Assign) and ast.unparse(here.targets[0]) in _TABLES:
        yield from _less(here.value)


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block


def _weaker(
    here: ast.If, last: ast.stmt | None, *, every_if: bool
) -> Iterator[tuple[ast.expr, str]]:
    """What can be made of a condition; ``last`` stands at the end of the other way."""
    if isinstance(here.body[-1], ast.Raise):
        yield here.test, "False"
    elif isinstance(here.body[-1], ast.Return | ast.Continue) and isinstance(last, ast.Raise):
        yield here.test, "True"
    elif every_if:
        yield here.test, "False"
        yield here.test, "True"
    else:
        return
    yield from _parts(here.test)


def _less(rules: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """A table of rules without one of them, or with another bound in it."""
    for rule in rules.elts if isinstance(rules, ast.Tuple) else ():
        yield rule, "*()"
        yield from _parts(rule)


def _parts(test: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """Each part of a condition with what takes it away, each bound with its neighbour."""
    for node in ast.walk(test):
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                yield value, "False" if isinstance(node.op, ast.Or) else "True"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield node.left, "False"
            yield node.right, "False"
        elif isinstance(node, ast.Compare):
            for index, operator in enumerate(node.ops):
                if bound := _BOUNDS.get(type(operator)):
                    ops = [*node.ops[:index], bound, *node.ops[index + 1 :]]
                    changed = ast.Compare(left=node.left, ops=ops, comparators=node.comparators)
                    yield node, f"({ast.unparse(changed)})"
