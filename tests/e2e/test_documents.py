"""What the how-tos tell a reader to type does what they say (rules: tests/support/terminal.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.documents import ROOT, Block, blocks
from tests.support.needs import needs
from tests.support.terminal import Terminal

DOCUMENTS = (
    "README.md",
    "docs/how-to/publish.md",
    "docs/how-to/host-a-mirror.md",
    "docs/how-to/keep-a-tree.md",
    "docs/how-to/fetch-a-subset.md",
    "docs/how-to/seed.md",
)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(home=tmp_path)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize("name", DOCUMENTS)
@needs("rsync")
def test_a_document_can_be_followed(terminal: Terminal, name: str) -> None:
    found = list(blocks(ROOT / name))
    assert [block for block in found if block.info == "console run"]
    for block in found:
        terminal.play(block)


def test_a_wrong_document_would_be_noticed(terminal: Terminal) -> None:
    def run(text: str) -> None:
        terminal.play(Block(info="console run", text=text, line=1))

    run("$ echo one; echo 1.5 s; echo two\none\n2 min 03 s\ntwo")
    run("$ echo one; echo two; echo three\n…\nth…e")
    run("$ mkdir -p a\n$ cd a\n$ false\n$ echo $?\n1")
    run("$ pwd\n~/a")
    for wrong in ("$ echo one\ntwo", "$ echo one", "$ echo one\n…\ntwo", "$ true\none", "$ false"):
        with pytest.raises(AssertionError):
            run(wrong)
