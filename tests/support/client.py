"""The client's command line: run here, or in a process of its own, and what it said.

Every run is with ``--json``, and every run is held to its contract: each line of stdout is one
JSON object, the last one the summary with the verb and the exit code.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.paths import PRIVATE_FOLDER
from syncclient.cli import main

TIMEOUT_S = 120
ROOT = Path(__file__).parents[2]
# As the installed command runs: from its own script, not from the working directory.
_COMMAND = (
    sys.executable,
    "-P",
    "-c",
    "from syncclient.cli import script; script()",
)


# Makes of a command line one that runs it in some surroundings.
Within = Callable[[list[str]], list[str]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run that ended: exit code, JSON events, and the text for people."""

    code: int
    events: list[dict[str, Any]]
    text: str

    @property
    def summary(self) -> dict[str, Any]:
        """The last line."""
        return self.events[-1]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 (a JSON value)
        """A field of the summary."""
        return self.summary[name]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of one name."""
        return [event for event in self.events if event["event"] == name]

    @property
    def error(self) -> str:
        """Message and hint of what ended the run."""
        (found,) = self.named("error")
        return f"{found['message']} {found['hint']}"


def _checked(verb: str, code: int, stdout: str, text: str) -> Run:
    events = [json.loads(line) for line in stdout.splitlines()]
    assert all(isinstance(event, dict) and event["event"] for event in events), stdout
    assert [event["event"] for event in events].count("summary") == 1, stdout
    last = events[-1]
    assert (last["event"], last["verb"], last["exit_code"]) == ("summary", verb, code), text
    return Run(code=code, events=events, text=text)


def bucketsync(verb: str, *words: str | Path) -> Run:
    """Run a verb in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        code = main([verb, "--json", *map(str, words)])
    return _checked(verb, code, stdout.getvalue(), stderr.getvalue())


class Process:
    """A run in a process of its own."""

    def __init__(self, verb: str, words: list[str], cwd: Path, within: Within) -> None:
        self._verb = verb
        self._process = subprocess.Popen(
            within([*_COMMAND, verb, *words, "--json"]),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def children(self) -> list[int]:
        """Its worker processes, while it lives."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if it has ended."""
        self._process.send_signal(number)

    def kill_all(self) -> None:
        """Kill it and its worker processes at once, as the kernel does when memory runs out."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait_for(self, seconds: float) -> int:
        """Wait that long at most for the end; TimeoutExpired if it goes on."""
        self._process.communicate(timeout=seconds)
        return self._process.returncode

    def wait(self) -> int:
        """Wait for the end, whatever it is: the exit code, negative for a signal."""
        self._process.communicate(timeout=TIMEOUT_S)
        return self._process.returncode

    def finish(self) -> Run:
        """Wait for an orderly end."""
        stdout, stderr = self._process.communicate(timeout=TIMEOUT_S)
        return _checked(self._verb, self._process.returncode, stdout, stderr)

    def peak_bytes(self) -> int:
        """The most memory that it alone ever had resident; for a process that ended."""
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss * 1024

    def close(self) -> None:
        """Make sure that it has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextmanager
def started(
    verb: str, *words: str | Path, cwd: Path = ROOT, within: Within = list
) -> Iterator[Process]:
    """A verb in a process of its own, which ends with the context.

    ``within`` makes the command line that runs it, such as one that drops rights first.
    """
    process = Process(verb, [str(word) for word in words], cwd, within)
    try:
        yield process
    finally:
        process.close()


def contents(tree: Path) -> dict[str, bytes]:
    """Every path of a tree and its bytes, but for the client's own folder.

    A link is what it points to, in words: no test may take one for a file.
    """
    found = {}
    for folder, folders, names in os.walk(tree):
        if Path(folder) == tree and PRIVATE_FOLDER in folders:
            folders.remove(PRIVATE_FOLDER)
        for name in [*names, *(n for n in folders if Path(folder, n).is_symlink())]:
            path = Path(folder, name)
            text = path.relative_to(tree).as_posix()
            found[text] = (
                f"link to {path.readlink()}".encode() if path.is_symlink() else path.read_bytes()
            )
    return found


def trashed(tree: Path) -> dict[str, bytes]:
    """What lies in a tree's trash, by ``KIND/PATH``."""
    trash = tree / PRIVATE_FOLDER / "trash"
    return {
        "/".join(path.relative_to(trash).parts[1:]): path.read_bytes()
        for path in trash.rglob("*")
        if path.is_file()
    }
