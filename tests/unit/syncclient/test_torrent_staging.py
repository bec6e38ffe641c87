"""Staging in memory: its budget, its rule for sizes, and what a run that was killed left there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from syncclient.torrents.memory import SMALL_BYTES, open_memory

BUDGET = 10_000_000
# Opens staging below a folder, makes a file in it, says so, and is killed.
LEAVES = """
import os, signal, sys
from pathlib import Path
from syncclient.torrents.memory import open_memory
with open_memory(10_000_000, Path(sys.argv[1])) as memory:
    folder = memory.take("torrent", 10, 10_000)
    folder.mkdir()
    print(folder, flush=True)
    sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_small_files_have_a_folder_as_long_as_there_is_room(tmp_path: Path) -> None:
    with open_memory(BUDGET, tmp_path) as memory:
        first = memory.take("a", 1000, 5_000_000)
        assert first is not None
        assert memory.take("b", 1000, 5_000_000) is None
        memory.give_back(first)
        assert memory.take("b", 1000, 5_000_000) is not None
    assert list(tmp_path.iterdir()) == []


def test_large_files_belong_on_the_disk(tmp_path: Path) -> None:
    with open_memory(BUDGET, tmp_path) as memory:
        assert memory.take("a", 2, 2 * SMALL_BYTES + 1) is None
        assert memory.take("a", 2, 2 * SMALL_BYTES) is not None


def test_without_a_budget_or_a_place_there_is_none(tmp_path: Path) -> None:
    for budget, place in ((0, tmp_path), (BUDGET, tmp_path / "missing")):
        with open_memory(budget, place) as memory:
            assert memory.take("a", 1, 1) is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_what_a_living_one_has_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", LEAVES, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with open_memory(BUDGET, tmp_path):
            assert left.is_dir()
        process.stdin.write("x")
    assert left.is_dir()
    with open_memory(BUDGET, tmp_path):
        assert not left.parent.exists()


def test_a_folder_that_another_run_removes_before_it_is_locked_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.mkdtemp

    def made_and_removed(*, prefix: str, dir: Path) -> str:  # noqa: A002 (as it is called)
        path = make(prefix=prefix, dir=dir)
        Path(path).rmdir()
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", made_and_removed)
    with open_memory(BUDGET, tmp_path) as memory:
        assert memory.take("a", 1, 1) is None
