"""What a short run may load: imports are most of its time."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

# Each takes 0.03 to 0.2 s, and is loaded where its work begins.
HEAVY = {"aiohttp", "libtorrent", "numpy", "pyroaring", "rich", "tuf", "zstandard"}
_SHOW = "import sys; {}; print(*sys.modules)"


def modules(statement: str) -> set[str]:
    """All that is loaded after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", _SHOW.format(statement)], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def loaded(statement: str) -> set[str]:
    """The packages that are loaded after a statement."""
    return {name.partition(".")[0] for name in modules(statement)}


@pytest.mark.parametrize(
    "module",
    [
        "syncclient.cli",
        "syncclient.commands.upgrade",
        "syncclient.commands.status",
        "syncclient.look",
        "syncclient.survey",
    ],
)
def test_a_run_that_finds_nothing_to_do_loads_little(module: str) -> None:
    assert loaded(f"import {module}") & HEAVY == set()


@pytest.mark.parametrize("names", ["syncclient.hand, syncclient.tasks", "server.hosting.reader"])
def test_a_process_that_only_reads_files_loads_next_to_nothing(names: str) -> None:
    light = HEAVY | {"asyncio", "msgpack", "sqlite3", "subprocess"}
    assert loaded(f"import {names}") & light == set()


@pytest.mark.parametrize("module", ["syncclient.cli", "server.cli", "server.commands.publish"])
def test_what_tells_the_version_is_loaded_for_that_alone(module: str) -> None:
    assert "importlib.metadata" not in modules(f"import {module}")


@pytest.mark.parametrize("program", ["syncclient", "server"])
def test_the_version_is_told(program: str) -> None:
    command = [sys.executable, "-c", f"import {program}.cli as c; c.main(['--version'])"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert version("bucketsync") in done.stdout
