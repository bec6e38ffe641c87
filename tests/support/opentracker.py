"""Debian's opentracker: a tracker for many more peers than ``serve`` wants to know.

It is built with a whitelist (``WANT_ACCESSLIST_WHITE``, README.Debian), reads it again on SIGHUP,
changes its root to a folder where it may, and gives up the rights of root.  Port 0 is one of the
kernel's choice, and without ``-P`` there is no UDP.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, build_opener

from tests.support.needs import library, program
from tests.support.stock.base import PEERS_HOST, TIMEOUT_S, Process, running

PROGRAM = "opentracker"
_WHITELIST = "whitelist.txt"
# An environment may name a proxy, which is none for this machine itself.
_OPENER = build_opener(ProxyHandler({}))


class Opentracker:
    """A running opentracker."""

    def __init__(self, process: Process, whitelist: Path) -> None:
        self._process, self._whitelist = process, whitelist
        self._port = process.listening(PEERS_HOST)

    @property
    def url(self) -> str:
        """Where clients announce."""
        return f"http://{PEERS_HOST}:{self._port}/announce"

    def allow(self, hashes: bytes) -> None:
        """Track these torrents alone: hexadecimal info-hashes, one a line."""
        self._whitelist.write_bytes(hashes)
        os.kill(self._process.pid, signal.SIGHUP)

    def announce(self, info_hash: bytes, **fields: object) -> dict[bytes, Any]:
        """Announce by hand: the answer."""
        return self._ask("announce", info_hash=info_hash, **fields)

    def seeds(self, info_hash: bytes) -> int:
        """How many of a torrent it knows (BEP 48)."""
        files = self._ask("scrape", info_hash=info_hash)[b"files"]
        return int(files[info_hash][b"complete"]) if info_hash in files else 0

    def wait_seeds(self, info_hash: bytes, count: int) -> None:
        """Return when it knows so many."""
        self._process.until(lambda: self.seeds(info_hash) >= count, f"no {count} seeds")

    def _ask(self, path: str, **fields: object) -> dict[bytes, Any]:
        url = f"http://{PEERS_HOST}:{self._port}/{path}?{urlencode(fields, quote_via=quote)}"
        with _OPENER.open(url, timeout=TIMEOUT_S) as response:
            found: dict[bytes, Any] = library("libtorrent").bdecode(response.read())
        return found


@contextmanager
def opentracker(folder: Path) -> Iterator[Opentracker]:
    """Run it on loopback with an empty whitelist."""
    folder.mkdir()
    # Its new root, for a user that may be another one.
    folder.chmod(0o755)
    whitelist = folder / _WHITELIST
    whitelist.touch()
    whitelist.chmod(0o644)
    words = (program(PROGRAM), "-i", PEERS_HOST, "-p", "0", "-d", folder, "-w", _WHITELIST)
    with running(words, folder / "log") as process:
        yield Opentracker(process, whitelist)
