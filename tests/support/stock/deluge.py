"""Deluge's daemon, driven by its own client library in an interpreter of Debian's."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.needs import program
from tests.support.stock.base import CONTROL_HOST, PEERS_HOST, TIMEOUT_S, Address, Process, running

PROGRAM = "deluged"
# Debian's own, which has Deluge's modules; deluged runs with it too.
_PYTHON = "/usr/bin/python3"
_BRIDGE = Path(__file__).with_name("deluge_bridge.py")
_USER, _PASSWORD, _ADMIN = "tests", "tests", 10
_SETTINGS = {
    "daemon_port": 0,
    "allow_remote": True,
    "dht": False,
    "enc_in_policy": 1,
    "enc_out_policy": 1,
    "listen_interface": PEERS_HOST,
    "listen_ports": [0, 0],
    "random_port": False,
    "lsd": False,
    "natpmp": False,
    "new_release_check": False,
    "send_info": False,
    "upnp": False,
    "utpex": False,
    "max_active_downloading": -1,
    "max_active_limit": -1,
    "max_active_seeding": -1,
}


class Deluge:
    """A running deluged."""

    knows_pads = True

    def __init__(self, process: Process, bridge: Process) -> None:
        self._process, self._bridge = process, bridge
        self.version: str = self.ask("daemon.info")
        # Deluge has no setting for uTP, and on loopback it would prefer it.
        self.port = process.listening(PEERS_HOST)

    def ask(self, method: str, *words: object) -> Any:  # noqa: ANN401 (a JSON value)
        """Call the daemon."""
        return self._bridge.ask(method, *words)

    def add(self, torrent: bytes, save_path: Path, peers: Sequence[Address] = ()) -> None:
        dump = base64.b64encode(torrent).decode()
        options = {"download_location": str(save_path), "add_paused": False}
        added = self.ask("core.add_torrent_file", "layer.torrent", dump, options)
        assert added, "not added"
        for host, port in peers:
            self.ask("core.connect_peer", added, host, port)

    def torrents(self) -> dict[str, dict[str, Any]]:
        """What it says of each torrent."""
        keys = ["state", "is_finished", "message", "progress", "num_peers"]
        found: dict[str, dict[str, Any]] = self.ask("core.get_torrents_status", {}, keys)
        return found

    def wait_complete(self, timeout_s: float = TIMEOUT_S) -> None:
        self._process.until(self._is_complete, "not complete", timeout_s)

    def _is_complete(self) -> bool:
        found = self.torrents().values()
        assert not any(item["state"] == "Error" for item in found), found
        return all(item["state"] == "Seeding" and item["is_finished"] for item in found)


@contextmanager
def deluge(folder: Path) -> Iterator[Deluge]:
    """Run deluged with its settings in a folder of its own."""
    folder.mkdir()
    (folder / "auth").write_text(f"{_USER}:{_PASSWORD}:{_ADMIN}\n")
    head = json.dumps({"file": 1, "format": 1})
    (folder / "core.conf").write_text(head + json.dumps(_SETTINGS))
    words = (program(PROGRAM), "-d", "-c", folder, "-u", CONTROL_HOST, "-L", "info")
    with running(words, folder / "log") as process:
        control = str(process.listening(CONTROL_HOST))
        talk = (_PYTHON, "-P", _BRIDGE, CONTROL_HOST, control, _USER, _PASSWORD)
        with running(talk, folder / "bridge-log", talks=True) as bridge:
            yield Deluge(process, bridge)
