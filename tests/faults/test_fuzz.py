"""Readers of strangers' bytes: what was found once is not found again, and atheris looks for more.

``make faults`` fuzzes every target for a while (``BUCKETSYNC_FUZZ_SECONDS``, 20 each).  What it
finds goes to ``tests/faults/vectors/TARGET``, once it is mended.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.fuzz.targets import TARGETS, attempt
from tests.support.faultreport import Record

ROOT = Path(__file__).parents[2]
VECTORS = Path(__file__).parent / "vectors"
SECONDS = int(os.environ.get("BUCKETSYNC_FUZZ_SECONDS", "20"))
NEEDS_ATHERIS = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris: python -m pip --python .venv/bin/python install 'atheris>=3'",
)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read(name: str) -> None:
    """Else a fuzzer would begin before the first check."""
    for seed in TARGETS[name].seeds():
        TARGETS[name].read(seed)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_is_mended(name: str) -> None:
    for path in (VECTORS / name).glob("*"):
        attempt(TARGETS[name], path.read_bytes())


def test_every_vector_has_a_target() -> None:
    assert {path.name for path in VECTORS.iterdir()} <= set(TARGETS)


@pytest.mark.long
@NEEDS_ATHERIS
@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzzer_finds_nothing(name: str, tmp_path: Path, record: Record) -> None:
    words = ("-m", "tests.faults.fuzz.run", name, "--seconds", str(SECONDS), "--found", tmp_path)
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = list(tmp_path.iterdir())
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    runs, peak = re.search(r"peak_rss_mb: *(\d+)", done.stderr), 0
    peak = int(runs[1]) * 2**20 if runs else 0
    count = int(tried[1]) if tried else 1
    record(f"fuzz: {name}", tried=count, survived=count - len(found), peak_bytes=peak)
    assert done.returncode == 0, done.stderr[-3000:]
    assert found == []
