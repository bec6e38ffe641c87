"""What the documents tell a reader to type does what they say.

In a document these fences matter, all others are for the eye:

    ```console run      each command is run in the document's scratch folder, in order
    ```console serve    one server, started with a port of its own choice
    ```console stop     ends the server that was started last

A command must exit with 0, unless the next one is ``echo $?``.  What it prints must be what is
shown, apart from what differs from run to run (times, digests, sizes of drawn pictures …); a line
``…`` stands for any lines, an ``…`` in a line for any text.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from docs.examples import openmoji
from tests.support.commands import BIN, argv
from tests.support.documents import ROOT, Block, Command, blocks, commands
from tests.support.needs import needs
from tests.support.npm import openmoji_trees

TIMEOUT_S = 300
_SERVER = re.compile(r"bucketsync-server serve (\S+)(?: --port (\d+))?")
_DEFAULT_PORT = "8080"
# What is not the same in two runs, or on two machines, and what stands for it.
_VARYING = (
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\b\d{8}T\d{6}Z-\d+\b", "RUN"),
    (r"\b20\d\d-\d\d-\d\d\b", "DATE"),
    (r"\b[\d.]+ [kMG]?B/s", "RATE"),
    (r"\b[\d.]+ [kMGT]?B\b", "SIZE"),
    (r"\b(?:\d+ h \d\d min|\d+ min \d\d s|[\d.]+ s)\b", "TIME"),
    (r"\b[\d,]+ requests\b", "N requests"),
    (r"(?<=\t)\d+(?=\t)", "BYTES"),
    (r"[─━]+", "-"),
    (r"[^\S\n]+", " "),
)


@dataclass
class Terminal:
    """Where a reader of one document sits: a folder, servers, and the last exit code."""

    home: Path
    folder: Path = field(init=False)
    status: int = 0
    servers: list[subprocess.Popen[str]] = field(default_factory=list)
    # The address of each server by that in the document.
    addresses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.home

    def play(self, block: Block) -> None:
        """Do what a block says."""
        match block.info:
            case "console run":
                steps = commands(block)
                for step, after in zip(steps, [*steps[1:], None], strict=True):
                    self.type(step, expect_zero=after is None or after.text != "echo $?")
            case "console serve":
                self.serve(block)
            case "console stop":
                self.stop()

    def type(self, command: Command, *, expect_zero: bool) -> None:
        """Run one command and compare what it prints."""
        where = self.home / ".folder"
        script = f"(exit {self.status}); {self._real(command.text)}\nstatus=$?; pwd >{where}; exit $status"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        self.folder, self.status = Path(where.read_text().rstrip("\n")), done.returncode
        printed = self._shown(done.stdout)
        about = f"line {command.line}: {command.text}\n--- shown\n{command.output}--- printed\n{printed}"
        assert done.returncode == 0 or not expect_zero, f"exit {done.returncode}, {about}"
        assert pattern(command.output).fullmatch(plain(printed)), about

    def serve(self, block: Block) -> None:
        """Start the one server of a block, again at its old address if it had one."""
        (command,) = commands(block)
        found = _SERVER.fullmatch(command.text)
        assert found is not None, command
        shown = f"127.0.0.1:{found[2] or _DEFAULT_PORT}"
        port = self.addresses.get(shown, ":0").rpartition(":")[2]
        server = subprocess.Popen(
            argv("bucketsync-server", "serve", self.folder / found[1], "--port", port, "--json", "-q"),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.servers.append(server)
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        self.addresses[shown] = url.removeprefix("http://")

    def stop(self) -> None:
        """End the server that was started last."""
        server = self.servers.pop()
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=TIMEOUT_S)
        assert server.returncode == 0

    def _real(self, text: str) -> str:
        for shown, real in self.addresses.items():
            text = text.replace(shown, real)
        return text

    def _shown(self, text: str) -> str:
        for shown, real in self.addresses.items():
            text = text.replace(real, shown)
        return text.replace(str(self.home), "~")

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "80",
            "BUCKETSYNC_TEST_CACHE": str(openmoji.default_cache().parent),
        }


def plain(text: str) -> str:
    """A text without what varies."""
    for varying, stand_in in _VARYING:
        text = re.sub(varying, stand_in, text)
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def pattern(output: str) -> re.Pattern[str]:
    """What a document shows, as a pattern for what is printed; both without what varies."""
    lines = []
    for line in plain(output).splitlines():
        if line == "…":
            lines.append(r"(?:.*\n)*?")
        else:
            lines.append(r".*".join(map(re.escape, line.split("…"))) + r"\n")
    return re.compile("".join(lines))


def in_the_tutorial(home: Path) -> None:
    """The checkout and, made before, the source trees that its first command lays out."""
    trees = openmoji_trees()
    (home / "bucketsync").symlink_to(ROOT)
    (home / "source").symlink_to(trees[0].parent)


def in_an_empty_folder(_: Path) -> None:
    """Nothing: the document makes all it needs."""


PLACES: dict[str, Callable[[Path], None]] = {
    "README.md": in_an_empty_folder,
    "docs/tutorial/openmoji.md": in_the_tutorial,
    "docs/how-to/publish.md": in_an_empty_folder,
    "docs/how-to/host-a-mirror.md": in_an_empty_folder,
    "docs/how-to/keep-a-tree.md": in_an_empty_folder,
}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(home=tmp_path)
    try:
        yield opened
    finally:
        while opened.servers:
            opened.stop()


@pytest.mark.parametrize("name", PLACES)
@needs("rsync")
def test_a_document_can_be_followed(terminal: Terminal, name: str) -> None:
    PLACES[name](terminal.home)
    found = list(blocks(ROOT / name))
    assert [block for block in found if block.info == "console run"]
    for block in found:
        terminal.play(block)


def test_a_wrong_document_would_be_noticed(terminal: Terminal) -> None:
    def run(text: str) -> None:
        terminal.play(Block(info="console run", text=text, line=1))

    run("$ echo one; echo 1.5 s; echo two\none\n2 min 03 s\ntwo")
    run("$ echo one; echo two; echo three\n…\nth…e")
    run("$ mkdir -p a\n$ cd a\n$ false\n$ echo $?\n1")
    run("$ pwd\n~/a")
    for wrong in ("$ echo one\ntwo", "$ echo one", "$ echo one\n…\ntwo", "$ true\none", "$ false"):
        with pytest.raises(AssertionError):
            run(wrong)
