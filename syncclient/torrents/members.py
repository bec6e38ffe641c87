"""Torrents of a session as the rest of the client sees them; without libtorrent."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from manifests.columns import I64
from manifests.errors import TransferError


class SwarmEndedError(TransferError):
    """The process that talks to peers ended before it was told to."""

    def __init__(self) -> None:
        super().__init__("libtorrent ended unexpectedly")


class SwarmSettings(Struct, frozen=True, kw_only=True):
    """How the client behaves among peers; rates in bytes a second, 0 for no limit."""

    listen: str = "0.0.0.0:0,[::]:0"
    upload_rate: int = 0
    download_rate: int = 0
    connections: int = 500
    dht: bool = False
    lsd: bool = False
    pex: bool = True
    utp: bool = False
    port_mapping: bool = False
    # "prefer", "require" or "off" (message stream encryption).
    encryption: str = "prefer"
    # Whether anything is to be fetched; if not, nobody asks which files are complete.
    fetches: bool = True
    # Only peers that are named, and nobody else finds us: each file has one peer to blame.
    cautious: bool = False


class Metainfo(Struct, frozen=True, kw_only=True, eq=False):
    """A torrent that libtorrent has read: its real files.

    ``params`` is what the swarm that read it knows it by.
    ``index`` numbers a file for libtorrent, which also counts pads; ``first_pieces`` and
    ``piece_counts`` (n,) i64 are in the order of ``paths``.
    """

    params: Any
    paths: tuple[str, ...]
    index: I64
    first_pieces: I64
    piece_counts: I64
    total_files: int
    total_pieces: int
    private: bool
    has_trackers: bool


class Status(Struct, frozen=True, kw_only=True):
    """One torrent now; rates in bytes a second."""

    peers: int
    seeds: int
    # Here, and right as far as it is known.
    done_bytes: int
    downloaded_bytes: int
    uploaded_bytes: int
    download_rate: int
    upload_rate: int


class Member:
    """One torrent in the session.

    ``completed`` are libtorrent's numbers of files that are complete but may not be on the disk;
    ``failed_pieces`` had other bytes than the torrent; ``changed`` is set by everything that
    happens.
    """

    def __init__(self) -> None:
        self.completed: set[int] = set()
        self.changed = asyncio.Event()
        self.removed = asyncio.Event()
        self.failed_pieces = 0
        self.error = ""
        self.handle: Any = None
        self.flushes: list[asyncio.Future[None]] = []

    def take_completed(self) -> set[int]:
        """What has completed since the last call."""
        taken, self.completed = self.completed, set()
        return taken

    def end_flushes(self) -> None:
        """All that was complete is on the file system."""
        for future in self.flushes:
            if not future.done():
                future.set_result(None)
        self.flushes.clear()
