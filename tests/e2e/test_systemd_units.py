"""The unit files that the documents give away: what systemd thinks of them, and that they work.

Here is no systemd to run them, so their filter of system calls is not tried.  What is: no memory
becomes code, no new privileges, few open files, and a file system that cannot be written to.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.commands import argv, client, serving
from tests.support.documents import ROOT
from tests.support.needs import needs, program
from tests.support.searchable import POSTS, make_searchable, search_url

UNITS = sorted((ROOT / "docs/examples/systemd").glob("*.service"))
# PR_SET_MDWE (Linux 6.3) and PR_SET_NO_NEW_PRIVS, then a namespace whose root is read-only.
CONFINE = """
import ctypes, os, resource, sys
libc = ctypes.CDLL(None)
writable = os.fsencode(sys.argv.pop(1))
if os.geteuid() == 0 and not libc.unshare(0x20000):
    libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None)
    if writable:
        libc.mount(writable, writable, None, 0x1000, None)
    libc.mount(b"none", b"/", None, 0x20 | 0x1000 | 0x1, None)
libc.prctl(65, 1, 0, 0, 0)
libc.prctl(38, 1, 0, 0, 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextmanager
def confined(*words: str, writable: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command about as its unit would; of all folders it may write to one at most."""
    command = [sys.executable, "-c", CONFINE, str(writable or ""), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/") as process:
        try:
            yield process
        finally:
            process.kill()


def first(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """The first event of a name."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["event"] == event:
            return found
    raise AssertionError(event)


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_confined(unit: Path) -> None:
    command = [program("systemd-analyze"), "security", "--offline=true", "--threshold=30"]
    done = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("systemd-analyze")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_understood(unit: Path) -> None:
    command = [program("systemd-analyze"), "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    # What it runs is not installed here.
    assert all("is not executable" in line for line in complaints), complaints


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_what_there_is(unit: Path) -> None:
    (line,) = [text for text in unit.read_text().splitlines() if text.startswith("ExecStart=")]
    words = line.removeprefix("ExecStart=").split()
    name = Path(words[0]).name
    done = subprocess.run(
        [*argv(name), *words[1:2], "--help"], capture_output=True, text=True, check=True
    )
    assert all(word in done.stdout for word in words if word.startswith("--"))


def test_serve_works_as_its_unit_confines_it(tmp_path: Path) -> None:
    """Files, and a search in a process of its own."""
    world = make_searchable(tmp_path)
    words = argv("bucketsync-server", "serve", world.repo, "--port", 0, "--json", "-q")
    with confined(*words) as process:
        url = urlsplit(first(process, "listening")["url"])
        with closing(http.client.HTTPConnection(str(url.hostname), url.port)) as connection:
            connection.request("GET", world.url("y0", "small", 1))
            assert connection.getresponse().read() == world.files["y0", "small", 1]
            connection.request("GET", search_url(q="even order:score", count=1))
            assert json.loads(connection.getresponse().read())["count"] == POSTS // 2
            if os.geteuid() == 0:
                mounts = Path(f"/proc/{process.pid}/mounts").read_text().splitlines()
                assert any(line.split()[1] == "/" and " ro" in line for line in mounts)


def test_seed_works_as_its_unit_confines_it(tmp_path: Path) -> None:
    world, tree = make_searchable(tmp_path), tmp_path / "copy"
    with serving(world.repo) as url:
        client("clone", url, tree, "--variant", "small")
        words = argv("bucketsync", "seed", tree, "--json", "-q", "--listen", "127.0.0.1:0")
        with confined(*words, writable=tree / ".bucketsync") as process:
            assert first(process, "status")["event"] == "status"
