"""Real peers: ``bucketsync seed`` in a process of its own, and what it says of itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from server.repository import Repository
from tests.support.client import ROOT, TIMEOUT_S
from tests.support.publisher import Publisher

LOOPBACK = ("--listen", "127.0.0.1:0")
_COMMAND = (
    sys.executable,
    "-P",
    "-c",
    "from syncclient.cli import script; script()",
)


def torrents_of(publisher: Publisher, release: str) -> list[bytes]:
    """Every .torrent of a release, as it lies in the repository."""
    repository = Repository(root=publisher.repo)
    return [
        repository.object_path(ref.digest).read_bytes()
        for layer in publisher.releases()[release].layers
        for found in layer.torrents.values()
        for ref in found
    ]


class SeedProcess:
    """A seeder that has begun; ``events`` grow while it runs."""

    def __init__(self, tree: Path, flags: tuple[str, ...]) -> None:
        words = [*_COMMAND, "seed", str(tree), "--json", *LOOPBACK, *flags]
        self.events: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._reader = Thread(target=self._read)
        self._reader.start()
        (started,) = self.wait_for("seeding")
        self.port: int = started["port"]
        self.files: int = started["files"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(json.loads(line))

    @property
    def address(self) -> str:
        """Where other peers reach it."""
        return f"127.0.0.1:{self.port}"

    def named(self, name: str) -> list[dict[str, Any]]:
        """Events of one name."""
        return [event for event in self.events if event["event"] == name]

    def wait_for(self, name: str) -> list[dict[str, Any]]:
        """Wait until there is an event of that name: all of them."""
        self.wait_until(lambda: bool(self.named(name)), name)
        return self.named(name)

    def wait_until(self, condition: Callable[[], bool], what: str = "") -> None:
        """Wait for something that its events show."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self._process.poll() is None, self.events
            assert time.monotonic() < deadline_s, (what, self.events)
            time.sleep(0.05)

    def stop(self) -> dict[str, Any]:
        """Interrupt it: its summary."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(TIMEOUT_S) == 0
        self._reader.join()
        return self.events[-1]

    def close(self) -> None:
        """Make sure that it has ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def seeding(tree: Path, *flags: str) -> Iterator[SeedProcess]:
    """Seed a tree until the end of the context."""
    process = SeedProcess(tree, flags)
    try:
        yield process
    finally:
        process.close()
