"""Stars in names: what they match, and that many of them cost no more than one."""

from __future__ import annotations

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.query.wildcards import compile_wildcard

words = st.text("ab*", max_size=8)


@given(pattern=words, name=st.text("ab", max_size=12))
def test_a_star_is_any_run_of_characters(pattern: str, name: str) -> None:
    prefix, expression = compile_wildcard(pattern)
    matches = expression.fullmatch(name.encode()) is not None
    assert matches == fnmatchcase(name, pattern)
    assert not matches or name.startswith(prefix)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"a\*b", "a*b"),
        (r"\*", "*"),
        ("a\\", "a\\"),
        (r"a\\*", "a\\x"),
        (r"\(^*", r"\(^o^)/"),
        ("*初*", "ハ初ミ"),
        ("(*)?", "(x)?"),
    ],
)
def test_what_is_escaped_is_itself(pattern: str, name: str) -> None:
    _, expression = compile_wildcard(pattern)
    assert expression.fullmatch(name.encode())
    assert not expression.fullmatch(b"y" + name.encode()) or pattern.startswith("*")


@pytest.mark.parametrize("pattern", ["*" * 40 + "z", "*a" * 40 + "*z"])
def test_many_stars_take_no_time(pattern: str) -> None:
    """With every star tried at every place these take longer than a life."""
    _, expression = compile_wildcard(pattern)
    started_s = time.process_time()
    assert not expression.fullmatch(b"a" * 1000)
    assert time.process_time() - started_s < 1
