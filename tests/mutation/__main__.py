"""Takes each check of a module away and asks whether a test fails (``make mutants``).

A copy of the tree is made and changed there; what others read stays as it is.  For each mutant a
child is forked off a process that has loaded the libraries, and runs the tests that guard the
module (``mutants.toml``) until the first that fails.  A mutant that lives must be explained in the
same file, else the command ends with 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

from tests.mutation.places import mutants_of

_SETTINGS = Path("tests/mutation/mutants.toml")
# Loaded once, before the forks; none of them loads a module of ours.
_LIBRARIES = "aiohttp blake3 libtorrent msgpack numpy orjson pyroaring rich tuf.ngclient zstandard"
_MEMORY_BYTES = 8 * 2**30  # a check of sizes that is gone must not take the machine with it
_LONGEST_S = 30  # and four times what the tests take as it is: an endless loop is a failure too
_OPTIONS = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=mutants"]
# The libraries are loaded already.
_OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]


def main() -> int:
    """Copy the tree and start there, or be what was started there."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("modules", nargs="*", help="as in mutants.toml; all of them if none")
    parser.add_argument("--copied", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.copied:
        return _try_all(args.modules)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        left_out = shutil.ignore_patterns(".*", "__pycache__", "node_modules")
        shutil.copytree(Path.cwd(), Path(folder, "tree"), ignore=left_out)
        environment = {**os.environ, "PYTHONPATH": f"{folder}/tree", "TMPDIR": folder}
        environment.pop("CI", None)  # where a skipped test is a failure
        command = [sys.executable, "-m", "tests.mutation", "--copied", *args.modules]
        return subprocess.run(
            command, cwd=f"{folder}/tree", env=environment, check=False
        ).returncode


def _try_all(wanted: list[str]) -> int:
    settings = tomllib.loads(_SETTINGS.read_text())
    guards: dict[str, list[str]] = settings["guards"]
    explained = {(entry["module"], entry["check"]) for entry in settings["survivor"]}
    hypothesis.settings.register_profile(
        "mutants",
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    for library in _LIBRARIES.split():
        importlib.import_module(library)
    bad = [_try_module(module, guards[module], explained) for module in wanted or guards]
    return 1 if any(bad) else 0


def _try_module(module: str, tests: list[str], explained: set[tuple[str, str]]) -> bool:
    """Try every mutant of a module; whether one lived that nobody explained."""
    began = time.monotonic()
    every_if = not module.startswith("manifests/")  # there every refusal is a raise
    path = Path(module)
    original, stat = path.read_bytes(), path.stat()
    if not _passes(tests, 600):
        print(Path("mutants.log").read_text(), f"{module}: its tests fail as it is", flush=True)
        return True
    longest_s = _LONGEST_S + 4 * int(time.monotonic() - began)
    mutants, lived, unexplained = list(mutants_of(original, every_if=every_if)), 0, 0
    for mutant in mutants:
        path.write_bytes(mutant.source)
        if _passes(tests, longest_s, changed=True):
            lived += 1
            known = (module, mutant.what) in explained
            unexplained += not known
            word = "explained" if known else "LIVES"
            print(f"{word}: {module}:{mutant.line}: {mutant.what}", flush=True)
    path.write_bytes(original)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # its bytecode is good again
    killed, took_s = len(mutants) - lived, time.monotonic() - began
    print(
        f"{module}: {len(mutants)} tried, {killed} killed, {lived - unexplained} explained, "
        f"{unexplained} unexplained, {took_s:.0f} s",
        flush=True,
    )
    return unexplained > 0


def _passes(tests: list[str], longest_s: int, *, changed: bool = False) -> bool:
    """Whether the tests pass, in a child of our own that is ended if it takes too long."""
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.dont_write_bytecode = changed
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        signal.alarm(longest_s)
        output = os.open("mutants.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(output, standard)
        os._exit(pytest.main([*_OPTIONS, *tests]))
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what a test left behind
    os.waitpid(child, 0)
    return ended is not None and ended.si_code == os.CLD_EXITED and ended.si_status == 0


if __name__ == "__main__":
    sys.exit(main())
