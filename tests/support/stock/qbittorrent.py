"""qBittorrent without a screen, driven through its Web API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.needs import program
from tests.support.stock.base import (
    CONTROL_HOST,
    PEERS_HOST,
    TIMEOUT_S,
    Address,
    Process,
    running,
)

PROGRAM = "qbittorrent-nox"
_SETTINGS = rf"""
[LegalNotice]
Accepted=true

[BitTorrent]
Session\BTProtocol=TCP
Session\DHTEnabled=false
Session\LSDEnabled=false
Session\PeXEnabled=false
Session\Interface=lo
Session\InterfaceName=lo
Session\InterfaceAddress={PEERS_HOST}
Session\MultiConnectionsPerIp=true
Session\Port=0
Session\QueueingSystemEnabled=false

[Network]
PortForwardingEnabled=false

[Preferences]
General\Locale=en
WebUI\Address={CONTROL_HOST}
WebUI\LocalHostAuth=false
WebUI\Port=0
WebUI\UseUPnP=false

[RSS]
AutoDownloader\EnableProcessing=true
Session\EnableProcessing=true
"""
_BOUNDARY = "----torrent"
# An environment may name a proxy, which is none for this machine itself.
_OPENER = build_opener(ProxyHandler({}))


class QBittorrent:
    """A running qbittorrent-nox."""

    knows_pads = True

    def __init__(self, process: Process) -> None:
        self._process = process
        self._control = process.listening(CONTROL_HOST)
        self.version: str = self.call("app/version").decode()
        self.port = process.listening(PEERS_HOST)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def call(self, method: str, **fields: object) -> bytes:
        """POST a form to the Web API: the answer."""
        return self._post(method, urlencode(fields).encode(), "application/x-www-form-urlencoded")

    def ask(self, method: str, **fields: object) -> Any:  # noqa: ANN401 (a JSON value)
        """A call that is answered with JSON."""
        return json.loads(self.call(method, **fields))

    def _post(self, method: str, body: bytes, kind: str) -> bytes:
        url = f"http://{CONTROL_HOST}:{self._control}/api/v2/{method}"
        request = Request(url, body, {"Content-Type": kind})
        try:
            with _OPENER.open(request, timeout=TIMEOUT_S) as response:
                found: bytes = response.read()
        except URLError as error:
            raise AssertionError(f"{method}: {error}") from error
        return found

    def torrents(self) -> dict[str, dict[str, Any]]:
        """What it says of each torrent."""
        return {item["hash"]: item for item in self.ask("torrents/info")}

    def add(self, torrent: bytes, save_path: Path, peers: Sequence[Address] = ()) -> None:
        before = self.torrents().keys()
        fields = {"savepath": str(save_path), "autoTMM": "false", "contentLayout": "Original"}
        form = b"".join(_part(f'name="{key}"', text.encode()) for key, text in fields.items())
        form += _part('name="torrents"; filename="layer.torrent"', torrent)
        form += f"--{_BOUNDARY}--\r\n".encode()
        answer = self._post("torrents/add", form, f"multipart/form-data; boundary={_BOUNDARY}")
        assert answer == b"Ok."
        added = self._process.until(lambda: self.torrents().keys() - before, "not added")
        if peers:
            self.connect(added, peers)

    def connect(self, torrents: Iterator[str] | set[str], peers: Sequence[Address]) -> None:
        """Tell torrents of peers."""
        named = "|".join(f"{host}:{port}" for host, port in peers)
        self.call("torrents/addPeers", hashes="|".join(torrents), peers=named)

    def wait_complete(self, timeout_s: float = TIMEOUT_S) -> None:
        self._process.until(self._is_complete, "not complete", timeout_s)

    def _is_complete(self) -> bool:
        states = [(item["state"], item["amount_left"]) for item in self.torrents().values()]
        assert not {"error", "missingFiles"} & {state for state, _ in states}, states
        return all(state in {"uploading", "stalledUP"} and not left for state, left in states)


def _part(head: str, content: bytes) -> bytes:
    """A field of a form (RFC 7578)."""
    lines = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n"
    return lines.encode() + content + b"\r\n"


@contextmanager
def qbittorrent(folder: Path) -> Iterator[QBittorrent]:
    """Run qbittorrent-nox with a profile in a folder of its own."""
    settings = folder / "qBittorrent" / "config" / "qBittorrent.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text(_SETTINGS)
    words = (program(PROGRAM), f"--profile={folder}")
    with running(words, folder / "log") as process:
        yield QBittorrent(process)
