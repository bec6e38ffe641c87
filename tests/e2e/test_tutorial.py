"""The tutorial, from its first command to its last, on the real OpenMoji."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from tests.support.documents import ROOT, blocks
from tests.support.npm import openmoji_trees
from tests.support.terminal import Terminal

TUTORIAL = ROOT / "docs/tutorial/openmoji.md"


def lay_out(home: Path) -> None:
    """What the tutorial's first command would make, without the work: links to cached trees."""
    for tree in openmoji_trees():
        shutil.copytree(
            tree,
            home / "source" / tree.name,
            ignore=shutil.ignore_patterns("black"),
            copy_function=_link_or_copy,
        )


def _link_or_copy(source: str, target: str) -> None:
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    terminal = Terminal(home=tmp_path)
    (tmp_path / "bucketsync").symlink_to(ROOT)
    lay_out(tmp_path)
    try:
        for block in blocks(TUTORIAL):
            assert block.info not in {"", "console"}, f"line {block.line} is not run"
            terminal.play(block)
    finally:
        terminal.close()
