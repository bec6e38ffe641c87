"""What the project's modules import, read from their source text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("manifests", "syncclient", "server")


def imported(source: str) -> Iterator[str]:
    """Every module a source text imports, at the top or inside a function, by its full name.

    ``from a import b`` gives ``a.b``: b may be a module.  A relative name begins with its dots.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def imports_by_file(*packages: str) -> dict[str, set[str]]:
    """The imports of each file of the packages; files by their path in the repository."""
    return {
        path.relative_to(ROOT).as_posix(): set(imported(path.read_text()))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
    }


def is_within(name: str, module: str) -> bool:
    """Whether a full name is that of a module or of something inside it."""
    return f"{name}.".startswith(f"{module}.")
