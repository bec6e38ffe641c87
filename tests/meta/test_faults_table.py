"""``make faults`` prints what was survived, and fails where something was not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.faultreport import Outcome, table

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest

def test_short(record):
    record("bit flip", tried=3, survived=3, peak_bytes=2**20)

@pytest.mark.long
def test_long(record):
    record("bit flip", tried=2, survived={survived}, lost={lost}, wrong={wrong}, peak_bytes=2**21)
    record("a cut", survived=1)
"""


def run_suite(folder: Path, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(text)
    shutil.copy(ROOT / "tests/faults/conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    long: takes its time\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    report = str(folder / "report.jsonl")
    return subprocess.run(
        [
            *command,
            "--rootdir",
            str(folder),
            "-c",
            str(folder / "pytest.ini"),
            *flags,
            str(folder),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": "", "BUCKETSYNC_FAULTS_REPORT": report},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("lost", "flags"), [(0, ("-n", "2")), (1, ())], ids=["in workers", "a loss"]
)
def test_a_loss_shows_and_fails_the_run(tmp_path: Path, lost: int, flags: tuple[str, ...]) -> None:
    suite = SUITE.format(survived=2, lost=lost, wrong=0)
    run = run_suite(tmp_path, suite, "--long", *flags)
    assert run.returncode == lost, run.stdout
    rows = {line[:8].strip(): line[8:].split() for line in run.stdout.splitlines()}
    rest = ["!"] if lost else []
    assert rows["bit flip"] == ["5", "5", str(lost), "0", "2.1", "MB", *rest]
    assert rows["a cut"] == ["1", "1", "0", "0", "-"]
    assert rows["all"] == ["6", "6", str(lost), "0", "2.1", "MB", *rest]


@pytest.mark.parametrize(
    ("survived", "lost", "wrong", "good"),
    [(2, 0, 0, True), (1, 0, 0, False), (2, 1, 0, False), (2, 0, 1, False)],
)
def test_only_what_was_survived_whole_is_good(
    survived: int, lost: int, wrong: int, *, good: bool
) -> None:
    outcome = Outcome(kind="x", tried=2, survived=survived, lost=lost, wrong=wrong, peak_bytes=0)
    assert outcome.good == good
    assert table([outcome])[1].endswith("!") != good


def test_long_tests_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    run = run_suite(tmp_path, SUITE.format(survived=0, lost=1, wrong=1))
    assert run.returncode == 0, run.stdout
    assert "1 passed, 1 deselected" in run.stdout
    assert "a cut" not in run.stdout
