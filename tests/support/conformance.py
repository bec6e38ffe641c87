"""The cases of the query language that were recorded from the site's own tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).parents[3] / "shared" / "conformance" / "danbooru_query.jsonl"
needs_cases = pytest.mark.skipif(
    not CASES.exists(), reason=f"query cases: put the recorded danbooru_query.jsonl at {CASES}"
)


def query_cases(kind: str) -> list[dict[str, Any]]:
    """The cases of a kind; none where they are not beside the repository."""
    if not CASES.exists():
        return []
    return [
        case for case in map(json.loads, CASES.read_bytes().splitlines()) if case["kind"] == kind
    ]
