"""The page of limits has every bound, and the numbers of the code."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from msgspec.structs import fields

from server.hosting.gate import ConnectionLimits
from server.searching.question import SearchLimits
from server.tracking.swarms import TrackerLimits
from tests.support.documents import ROOT, table_rows
from tests.support.imports import PACKAGES, imports_by_file

ROWS = table_rows((ROOT / "docs/reference/limits.md").read_text(encoding="utf-8"))
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "bytes": 1, "s": 1, "": 1}
_NAME = re.compile(r"_?MAX_")
# What is drawn for trying out, and how long the names in a report may be, bounds nobody.
_ELSEWHERE = ("server/sample/", "server/audit/")


def _value(row: dict[str, str]) -> float:
    """What the code has."""
    name, _, field = row["name"].partition(".")
    found = getattr(importlib.import_module(row["where"]), name)
    value: float = getattr(found(), field) if field else found
    return value


def _number(text: str) -> float:
    """What the page says."""
    number, _, unit = text.replace(",", "").partition(" ")
    return float(number) * _UNITS[unit]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['where']}.{row['name']}")
def test_a_limit_is_that_of_the_code(row: dict[str, str]) -> None:
    assert _number(row["value"]) == float(_value(row))
    assert len(row["why"]) > 5


def _constants(file: str) -> set[str]:
    """The bounds that a file has at its top."""
    found = set()
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        found |= {
            target.id
            for target in targets
            if isinstance(target, ast.Name) and _NAME.match(target.id)
        }
    return found


def test_every_limit_is_on_the_page() -> None:
    shown = {(row["where"], row["name"]) for row in ROWS}
    assert len(shown) == len(ROWS)
    files = [file for file in imports_by_file(*PACKAGES) if not file.startswith(_ELSEWHERE)]
    there = {
        (".".join(Path(file).with_suffix("").parts), name)
        for file in files
        for name in _constants(file)
    }
    for kind in (ConnectionLimits, SearchLimits, TrackerLimits):
        there |= {(kind.__module__, f"{kind.__name__}.{field.name}") for field in fields(kind)}
    assert there - shown == set()


def test_every_test_that_the_page_of_attacks_names_is_there() -> None:
    text = (ROOT / "docs/explanation/attacks.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).exists()} == set()
