"""``explain``: the tree of a query for programs and for people, or the place of its error."""

from __future__ import annotations

import json

import pytest

from syncclient.cli import main
from syncclient.commands.explain import pointing


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["explain", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_tree_is_in_the_summary(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = explain(capsys, "--json", "a or -rating:s")
    assert json.loads(out) == {
        "event": "summary",
        "verb": "explain",
        "exit_code": 0,
        "tree": ["or", ["tag", "a"], ["not", ["metatag", "rating", "s"]]],
    }
    assert (code, err) == (0, "")


def test_people_see_an_outline(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = explain(capsys, "--", "-(x* source:'a b') or y")
    assert code == 0
    assert out == ("or\n  not\n    and\n      wildcard x*\n      metatag source: 'a b'\n  tag y\n")


def test_an_error_has_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = explain(capsys, "--json", "a (b")
    summary = json.loads(out.splitlines()[-1])
    assert code == summary["exit_code"] == 2
    assert summary["error"]["position"] == 4
    assert "position 4" in summary["error"]["message"]
    assert "tree" not in summary
    assert err.splitlines()[:2] == ["a (b", "    ^"]


def test_what_a_search_would_refuse_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = explain(capsys, "--json", "a or order:score")
    warning, summary = map(json.loads, out.splitlines())
    assert (code, warning["event"], summary["tree"][0]) == (0, "warning", "or")
    assert "position 5" in warning["message"]
    assert "position 5" in err


def test_the_mark_stays_below_its_place_in_a_long_query() -> None:
    shown, mark = pointing("x\t" * 100 + "! y", 200).splitlines()
    assert shown[mark.index("^")] == "!"
    assert len(shown) <= 100
    assert "\t" not in shown
