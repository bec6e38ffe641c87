"""WebTorrent, a client in JavaScript with a BitTorrent implementation of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.needs import node_package, program
from tests.support.stock.base import PEERS_HOST, TIMEOUT_S, Address, Process, running

PROGRAM, PACKAGE = "node", "webtorrent"
_SCRIPT = Path(__file__).with_name("webtorrent.mjs")


class WebTorrent:
    """A running node with WebTorrent in it."""

    knows_pads = False

    def __init__(self, process: Process) -> None:
        self._process = process
        self.version: str = process.ask("version")
        self.port: int = process.ask("listen")

    def add(self, torrent: bytes, save_path: Path, peers: Sequence[Address] = ()) -> None:
        named = [f"{host}:{port}" for host, port in peers]
        dump = base64.b64encode(torrent).decode()
        self._process.ask("add", dump, str(save_path), named)

    def wait_complete(self, timeout_s: float = TIMEOUT_S) -> None:
        self._process.until(lambda: bool(self._process.ask("complete")), "not complete", timeout_s)


@contextmanager
def webtorrent(folder: Path) -> Iterator[WebTorrent]:
    """Run WebTorrent; it keeps nothing between runs."""
    folder.mkdir()
    words = (program(PROGRAM), _SCRIPT, node_package(PACKAGE), PEERS_HOST)
    with running(words, folder / "log", talks=True) as process:
        yield WebTorrent(process)
