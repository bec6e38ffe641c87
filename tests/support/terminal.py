"""A terminal in which a document is followed: its commands are typed, its outputs compared.

In a document these fences matter, all others are for the eye:

    ```console run      each command is run in the document's scratch folder, in order
    ```console serve    one server or seeder, which takes a port of its own choice
    ```console stop     ends the one that was started last

A command must exit with 0, unless the next one is ``echo $?``.  What it prints must be what is
shown, apart from what differs from run to run (times, digests, sizes of drawn pictures …); a line
``…`` stands for any lines, an ``…`` in a line for any text.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docs.examples import openmoji
from tests.support.commands import BIN, argv
from tests.support.documents import Block, Command, commands

TIMEOUT_S = 300
_SERVER = re.compile(r"bucketsync-server serve (\S+)(?: --port (\d+))?")
_SEEDER = re.compile(r"bucketsync seed (\S.*)")
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
                    self.type(step, must_pass=after is None or after.text != "echo $?")
            case "console serve":
                self.serve(block)
            case "console stop":
                self.stop()
            case _:
                pass

    def type(self, command: Command, *, must_pass: bool) -> None:
        """Run one command and compare what it prints."""
        printed, where = self._run(command.text), f"line {command.line}: {command.text}"
        about = f"{where}\n--- shown\n{command.output}--- printed\n{printed}"
        assert self.status == 0 or not must_pass, f"exit {self.status}, {about}"
        assert pattern(command.output).fullmatch(plain(printed)), about

    def _run(self, text: str) -> str:
        """Run a command where the last one left off; what it prints, with the shown addresses."""
        place = self.home / ".folder"
        script = f"(exit {self.status}); {self._real(text)}\nstatus=$?; pwd >{place}; exit $status"
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
        self.folder, self.status = Path(place.read_text().rstrip("\n")), done.returncode
        return self._shown(done.stdout)

    def serve(self, block: Block) -> None:
        """Start the one server of a block, again at its old address if it had one; or a seeder."""
        (command,) = commands(block)
        if seeder := _SEEDER.fullmatch(command.text):
            self._start("bucketsync", "seed", *shlex.split(seeder[1]))
            return
        found = _SERVER.fullmatch(command.text)
        assert found is not None, command
        shown = f"127.0.0.1:{found[2] or _DEFAULT_PORT}"
        port = self.addresses.get(shown, ":0").rpartition(":")[2]
        repo = self.folder / found[1]
        url = self._start("bucketsync-server", "serve", repo, "--port", port)["url"]
        self.addresses[shown] = url.removeprefix("http://")

    def _start(self, program: str, *words: str | Path) -> dict[str, Any]:
        """Start a program that goes on until it is ended: the event that says it is ready."""
        process = subprocess.Popen(
            argv(program, *words, "--json", "-q"),
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.servers.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] in {"listening", "seeding"}:
                return event
        raise AssertionError(words)

    def stop(self) -> None:
        """End the server that was started last."""
        server = self.servers.pop()
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=TIMEOUT_S)
        assert server.returncode == 0

    def close(self) -> None:
        """End every server, whatever has happened."""
        for server in self.servers:
            server.kill()
            server.communicate()

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
            "BUCKETSYNC_LISTEN": "127.0.0.1:0",
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
