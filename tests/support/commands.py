"""The two commands as users run them: real processes, their summaries, a real server on port 0."""

from __future__ import annotations

import filecmp
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PRIVATE = ".bucketsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One run: exit code, JSON lines of stdout (the last is the summary), text of stderr."""

    code: int
    lines: list[dict[str, Any]]
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """The last line."""
        return self.lines[-1]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of one event."""
        return [line for line in self.lines if line["event"] == name]


def argv(command: str, *words: object) -> list[str]:
    """A command line of ``bucketsync`` or ``bucketsync-server`` in this environment."""
    return [str(BIN / command), *map(str, words)]


def run(command: str, *words: object, expect: int | None = 0, **env: str) -> Finished:
    """Run a verb with --json; fails the test unless the exit code is ``expect`` (None: any)."""
    done = subprocess.run(
        argv(command, *words[:1], "--json", *words[1:]),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert expect in {None, done.returncode}, f"exit {done.returncode}: {done.stderr}"
    return Finished(code=done.returncode, lines=lines, stderr=done.stderr)


def client(*words: object, expect: int | None = 0, **env: str) -> Finished:
    """Run a verb of ``bucketsync``."""
    return run("bucketsync", *words, expect=expect, **env)


def publisher(*words: object, expect: int | None = 0, **env: str) -> Finished:
    """Run a verb of ``bucketsync-server``."""
    return run("bucketsync-server", *words, expect=expect, **env)


@contextmanager
def serving(repo: Path, *flags: object) -> Iterator[str]:
    """Serve a repository; its address."""
    server = subprocess.Popen(
        argv("bucketsync-server", "serve", repo, "--port", 0, "--json", "-q", *flags),
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()
            server.stdout.read()


def files_of(tree: Path, *leave_out: str) -> set[str]:
    """Relative paths of all files but those in the named top folders and the client's own."""
    ignored = {PRIVATE, *leave_out}
    found = (path.relative_to(tree) for path in tree.rglob("*") if path.is_file())
    return {str(path) for path in found if path.parts[0] not in ignored}


def differences(tree: Path, source: Path, *leave_out: str) -> list[str]:
    """Paths that are only in one of two trees, or have other bytes; also folders left empty."""
    ours, theirs = files_of(tree, *leave_out), files_of(source, *leave_out)
    _, changed, broken = filecmp.cmpfiles(tree, source, sorted(ours & theirs), shallow=False)
    empty = [
        str(path.relative_to(tree))
        for path in tree.rglob("*")
        if path.is_dir() and PRIVATE not in path.parts and not any(path.iterdir())
    ]
    return sorted(ours ^ theirs) + changed + broken + empty
