"""The servers that are measured: ours, nginx, and the daemon of rsync, each a real process."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.commands import argv
from tests.support.host import ask
from tests.support.needs import program
from tests.support.nginx import running_nginx, shown_servers

_DOCUMENT = Path(__file__).parents[2] / "docs/how-to/host-with-nginx.md"
_TIMEOUT_S = 30
_WORKERS = 2
# What peers fetch from: the source trees, listed.
_LISTED = """
server {
    listen 80;
    root /srv;
    autoindex on;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server: its first process, and where it is reached."""

    pid: int
    url: str

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return urlsplit(self.url).port or 0


@contextmanager
def our_server(repo: Path) -> Iterator[Server]:
    """``bucketsync-server serve``."""
    words = argv("bucketsync-server", "serve", repo, "--port", 0, "--json", "-q")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield Server(pid=process.pid, url=url.rstrip("/"))
        finally:
            process.terminate()
            process.stdout.read()


@contextmanager
def repository_nginx(repo: Path) -> Iterator[Server]:
    """nginx as our documents tell a host to set it up."""
    with _nginx(shown_servers(_DOCUMENT)[0], {"/srv/danbooru": str(repo)}) as server:
        yield server


@contextmanager
def listed_nginx(folder: Path) -> Iterator[Server]:
    """nginx on plain folders, which it lists for those peers that walk."""
    with _nginx(_LISTED, {"/srv": str(folder)}) as server:
        yield server


@contextmanager
def _nginx(block: str, changes: Mapping[str, str]) -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="bucketsync-bench-nginx-") as name:
        folder = Path(name)
        with running_nginx(block, folder, changes, workers=_WORKERS) as port:
            # It has written its pid before it answers anything.
            ask(port, "/")
            pid = int((folder / "nginx.pid").read_text())
            yield Server(pid=pid, url=f"http://127.0.0.1:{port}")


@contextmanager
def rsync_daemon(modules: Mapping[str, Path]) -> Iterator[Server]:
    """``rsync --daemon`` with a module for each folder (at its root: below one, lists fail)."""
    with tempfile.TemporaryDirectory(prefix="bucketsync-bench-rsync-") as name:
        config = Path(name, "rsyncd.conf")
        shares = [f"[{module}]\npath = {folder}\n" for module, folder in modules.items()]
        settings = "use chroot = no\nreverse lookup = no\nread only = yes\nuid = 0\ngid = 0\n"
        config.write_text(settings + "".join(shares))
        port = _free_port()
        words = [program("rsync"), "--daemon", "--no-detach", "--address=127.0.0.1"]
        words += [f"--port={port}", f"--config={config}", f"--log-file={name}/log"]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
            try:
                _wait_for_port(port)
                yield Server(pid=process.pid, url=f"rsync://127.0.0.1:{port}")
            finally:
                process.terminate()


def _free_port() -> int:
    """A port that nobody has; rsync cannot be told to take any."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_for_port(port: int) -> None:
    deadline_s = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
        else:
            return
