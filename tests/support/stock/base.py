"""What the tests ask of a stock BitTorrent client, whichever program it is.

Each client runs in a process of its own with a fresh profile: on loopback, over TCP, with no DHT,
peer exchange, local discovery, port mapping or questions to a user.  It listens on a port of the
kernel's choice, so where it listens is read from the kernel.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

# A deadline, no wait: deluged alone took over 15 s to start on a busy machine.
TIMEOUT_S = 60
PAUSE_S = 0.05
# Where clients talk to peers, and where those that are controlled over TCP are controlled.
PEERS_HOST, CONTROL_HOST = "127.0.0.1", "127.0.0.2"
_LISTENING = "0A"

# Host and port of a peer.
Address: TypeAlias = tuple[str, int]
T = TypeVar("T")


class StockClient(Protocol):
    """One running client.

    One that does not know pad files (BEP 47) stores them like any other, and no empty files.
    """

    knows_pads: bool

    @property
    def port(self) -> int:
        """Where it listens for peers, on 127.0.0.1."""

    def add(self, torrent: bytes, save_path: Path, peers: Sequence[Address] = ()) -> None:
        """Add a torrent as a user would: files that are there are checked and used."""

    def wait_complete(self, timeout_s: float = TIMEOUT_S) -> None:
        """Return when it has, and has checked, everything that was added."""


class Process:
    """A program that has begun; what it says goes to ``log``."""

    def __init__(self, words: Sequence[str | Path], log: Path, *, talks: bool = False) -> None:
        self._log = log
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                words, stdin=pipe, stdout=subprocess.PIPE if talks else file, stderr=file
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def until(self, look: Callable[[], T | None], what: str, timeout_s: float = TIMEOUT_S) -> T:
        """Look again and again, until there is something or the deadline has come."""
        deadline_s = time.monotonic() + timeout_s
        while not (found := look()):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"{what}: {self._log.read_text(errors='replace')}")
            time.sleep(PAUSE_S)
        return found

    def listening(self, host: str) -> int:
        """The port on which it listens at an address, as soon as it does."""
        return self.until(lambda: _listening_port(self.pid, host), f"no port on {host}")

    def ask(self, method: str, *words: object) -> Any:  # noqa: ANN401 (a JSON value)
        """Send a JSON line to one that talks: the result in the line that comes back."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        # One that has died says why in its log, not by a broken pipe.
        with suppress(BrokenPipeError):
            stdin.write(json.dumps([method, *words]).encode() + b"\n")
            stdin.flush()
        answer = json.loads(stdout.readline() or "{}")
        assert "result" in answer, (method, answer, self._log.read_text(errors="replace"))
        return answer["result"]

    def close(self) -> None:
        """End it, by force if it does not listen."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


@contextmanager
def running(words: Sequence[str | Path], log: Path, *, talks: bool = False) -> Iterator[Process]:
    """A program that ends with the context."""
    process = Process(words, log, talks=talks)
    try:
        yield process
    finally:
        process.close()


def _listening_port(pid: int, host: str) -> int | None:
    """From the kernel's list of sockets (proc(5)); addresses there are hexadecimal."""
    wanted = bytes(reversed([int(part) for part in host.split(".")])).hex().upper()
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            inodes |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        address, _, port = fields[1].partition(":")
        if fields[3] == _LISTENING and address == wanted and fields[9] in inodes:
            return int(port, 16)
    return None
