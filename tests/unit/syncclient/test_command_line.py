"""Mistakes of a command line are said as all others are, to people and to scripts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from server.cli import main as server
from syncclient.cli import main as client


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (client, ["clone", "url"], "bucketsync clone: the following arguments are required: DIR"),
        (client, [], "bucketsync: the following arguments are required: VERB"),
        (client, ["upgrade", "--jobs", "x"], "bucketsync upgrade: argument --jobs: invalid"),
        (server, ["rotate-key", "repo", "king"], "bucketsync-server rotate-key: argument ROLE"),
        (server, ["lend"], "bucketsync-server: argument VERB: invalid choice: 'lend'"),
    ],
)
def test_a_mistake_is_one_sentence_and_has_a_summary(
    main: Callable[[list[str]], int],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"error: {message}")) == ("", True)
    assert "--help` has all there is" in err
    assert main([*words, "--json"]) == 2
    error, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert error["message"].startswith(message)
    assert summary == {"event": "summary", "verb": (words or [""])[0], "exit_code": 2}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["search", "-cat"], "follows --"),
        (["search", "-cat", "--count", "--metadata", "."], "follows --"),
        (["explain", "-cat"], "follows --"),
        (["clone", "url", "tree", "--select", "-cat"], "--select='-comic'"),
    ],
)
def test_who_begins_a_query_with_a_minus_is_told_how(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client(words) == 2
    assert hint in capsys.readouterr().err
