"""A skipped test is listed with what would run it, and in CI it fails the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.disks import Disks, may_mount
from tests.support import needs
from tests.support.mounts import ext4

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest

def test_that_runs(): pass

@pytest.mark.skipif(True, reason="teapot: apt-get install teapot")
def test_that_needs_a_teapot(): pass

def test_that_finds_no_cup(): pytest.skip("cup: apt-get install cup")
"""


def run_suite(folder: Path, text: str, *flags: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_sample.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull]
    return subprocess.run(
        [*command, "--rootdir", str(folder), *flags, str(folder)],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("flags", [(), ("-n", "1")], ids=["alone", "in a worker"])
@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_skips_are_listed_and_fail_ci(
    tmp_path: Path, flags: tuple[str, ...], ci: str, status: int
) -> None:
    run = run_suite(tmp_path, SUITE, *flags, ci=ci)
    lines = run.stdout.splitlines()
    assert run.returncode == status, run.stdout
    at = lines.index("teapot: apt-get install teapot")
    assert lines[at + 1] == "    test_sample.py::test_that_needs_a_teapot"
    assert "cup: apt-get install cup" in lines
    assert ("In CI nothing may be skipped, so this run has failed." in lines) == (status == 1)
    assert "1 passed, 2 skipped" in lines[-1]


def test_ci_passes_where_nothing_is_skipped(tmp_path: Path) -> None:
    run = run_suite(tmp_path, "def test_that_runs(): pass\n", ci="true")
    assert run.returncode == 0, run.stdout
    assert "skipped" not in run.stdout


def test_a_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "packages.txt"
    packages.write_text("# program package use\nteapot  teapot-light  makes tea\nsh dash runs\n")
    monkeypatch.setattr(needs, "_LIST", packages)
    assert needs.needs("sh").args == (False,)
    mark = needs.needs("sh", "teapot")
    assert mark.args == (True,)
    assert mark.kwargs["reason"] == "teapot: apt-get install teapot-light"


def test_a_program_that_nobody_would_install_is_refused() -> None:
    with pytest.raises(KeyError):
        needs.needs("teapot")


def test_disks_are_made_where_path_lacks_the_folders_of_system_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with ext4(tmp_path / "disk", size_bytes=2**24) as disk:
        assert disk.folder.is_mount()
        disk.start_again()
        assert disk.folder.is_mount()
    if may_mount():
        with Disks(size_bytes=2**20, files=1).fresh() as place:
            assert place.is_mount()


def test_a_missing_library_is_named_with_its_extra() -> None:
    assert needs.library("json") is json
    with pytest.raises(pytest.skip.Exception, match=r"teapot: pip install 'bucketsync\[test\]'"):
        needs.library("teapot")
