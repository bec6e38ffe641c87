"""A real ``bucketsync-server serve`` in a process of its own, and plain HTTP to talk to it."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60
_MAIN = "from server.cli import script; script()"
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer, read whole; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    port: int, path: str, headers: Mapping[str, str] | None = None, method: str = "GET"
) -> Answer:
    """One request on a connection of its own; the path goes out as it is."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as connection:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(status=response.status, headers=found, body=response.read())


def send_raw(port: int, data: bytes) -> bytes:
    """Send bytes that may be no HTTP; all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(2**16), b""))


def reading_processes(pid: int) -> list[int]:
    """The processes that read files for a host, which is process ``pid``."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [
        child
        for child in children
        if b"hosting.reader" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@dataclass(kw_only=True)
class Host:
    """A server under test, where it listens, and what it has told: events, and lines for people.

    The lines are only kept of one that was asked to.
    """

    process: subprocess.Popen[str]
    url: str
    events: list[dict[str, Any]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return urlsplit(self.url).port or 0

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET on a connection of its own."""
        return ask(self.port, path, headers)

    def memory_bytes(self, kind: str = "VmRSS") -> int:
        """Resident memory of the process; ``VmHWM`` for the most that it ever was."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))

    def metrics(self) -> dict[str, float]:
        """All samples of /metrics, without the prefix of their names."""
        lines = self.get("/metrics").body.decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("bucketsync_"): float(value) for name, value in pairs}

    def refusals(self, reason: str) -> int:
        """How often something was refused for a reason."""
        return int(self.metrics().get(f'refusals_total{{reason="{reason}"}}', 0))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end: the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end: the exit code; the rest of what it told is in ``events``."""
        out, log = self.process.communicate(timeout=TIMEOUT_S)
        self.lines += (log or "").splitlines()
        self.events += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode


@contextmanager
def running_host(
    repo: Path, *flags: str, keep_lines: bool = False, prelude: str = ""
) -> Iterator[Host]:
    """Serve a repository on a free port until the end of the context.

    ``prelude`` is Python that the process runs first, as to shorten a time that nobody can set.
    """
    command = (sys.executable, "-c", f"{prelude}\n{_MAIN}")
    words = (*command, "serve", str(repo), "--port", "0", "--json", *flags)
    log = subprocess.PIPE if keep_lines else None
    with subprocess.Popen(
        words, cwd=_ROOT, stdout=subprocess.PIPE, stderr=log, text=True
    ) as process:
        try:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())
            yield Host(process=process, url=first["url"], events=[first])
        finally:
            process.kill()
