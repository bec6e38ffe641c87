"""Peers by address, and whether a run asks them at all; without libtorrent, which takes time."""

from __future__ import annotations

from typing import NamedTuple

from manifests.errors import ConfigError
from manifests.model import Descriptor
from syncclient.config import Transport

# Beside hosts, peers pay from here on: to find and join a swarm takes seconds.
WORTH_BYTES = 64 * 2**20


class Address(NamedTuple):
    """Where a peer listens."""

    host: str
    port: int


def asks_peers(transport: Transport, descriptor: Descriptor, size_bytes: int) -> bool:
    """Whether a transfer of so many bytes asks peers too, or them alone."""
    if transport.source == "torrent":
        return True
    has_torrents = any(layer.torrents for layer in descriptor.layers)
    worth = size_bytes >= WORTH_BYTES or bool(transport.peers)
    return transport.source == "auto" and has_torrents and worth


def parse_peer(text: str) -> Address:
    """``HOST:PORT``, IPv6 in brackets; ConfigError for anything else."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f"--peer {text}: expected HOST:PORT, such as 192.0.2.7:6881")
    return Address(host, int(port))
