"""The plainest possible peer: a libtorrent session of this process, with nothing of ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.needs import library
from tests.support.stock.base import PAUSE_S, PEERS_HOST, TIMEOUT_S, Address

_SETTINGS = {
    "listen_interfaces": f"{PEERS_HOST}:0",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    "allow_multiple_connections_per_ip": True,
}


class BarePeer:
    """One session; ``with`` ends it."""

    def __init__(self) -> None:
        self._lt = library("libtorrent")
        mask = self._lt.alert.category_t.all_categories
        self._session = self._lt.session({**_SETTINGS, "alert_mask": mask})

    @property
    def address(self) -> Address:
        """Where it listens; there is no port before libtorrent's thread has opened one."""
        _until(lambda: bool(self._session.listen_port()), "no port")
        return PEERS_HOST, self._session.listen_port()

    def seed(self, torrent: bytes, save_path: Path) -> None:
        """Offer files that are there, without a look at them."""
        params = self._params(torrent, save_path)
        params.have_pieces = [True] * params.ti.num_pieces()
        params.flags |= self._lt.torrent_flags.no_verify_files
        self._session.add_torrent(params)

    def download(
        self,
        torrents: Sequence[bytes],
        save_path: Path,
        peer: Address,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Return when all that the torrents list has come from the peer and lies on the disk."""
        handles = []
        for torrent in torrents:
            params = self._params(torrent, save_path)
            params.flags |= self._lt.torrent_flags.no_verify_files
            params.peers = [peer]
            handles.append(self._session.add_torrent(params))

        def complete() -> bool:
            return all(handle.status().is_seeding for handle in handles)

        _until(complete, lambda: str([handle.status() for handle in handles]), timeout_s)
        self._session.pop_alerts()
        for handle in handles:
            handle.flush_cache()
        left = len(handles)

        def flushed() -> bool:
            nonlocal left
            left -= self._count_flushed()
            return left <= 0

        _until(flushed, "not flushed", timeout_s)

    def _params(self, torrent: bytes, save_path: Path) -> Any:  # noqa: ANN401 (an object of lt)
        params = self._lt.load_torrent_buffer(torrent)
        params.save_path = str(save_path)
        # Neither queued nor paused by the session.
        params.flags = self._lt.torrent_flags.update_subscribe
        return params

    def _count_flushed(self) -> int:
        flushed = self._lt.cache_flushed_alert
        return sum(isinstance(alert, flushed) for alert in self._session.pop_alerts())


def _until(
    condition: Callable[[], bool], what: str | Callable[[], str], timeout_s: float = TIMEOUT_S
) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(what if isinstance(what, str) else what())
        time.sleep(PAUSE_S)


@contextmanager
def bare_peer() -> Iterator[BarePeer]:
    """A session that lives as long as the context."""
    peer = BarePeer()
    try:
        yield peer
    finally:
        # Its destructor waits for the threads of libtorrent.
        del peer
