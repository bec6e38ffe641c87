"""libtorrent, behind a few coroutines: the only module that imports it.

Rules, each learnt the hard way (docs/adr/0014-peers.md has the measurements):

* Alerts wake the loop through a socket pair that blocks at neither end; a callback, or an end that
  blocks, deadlocks with the interpreter's lock.  What is needed of an alert is taken at once: its
  memory is gone at the next look.
* A torrent whose files are known is added with ``have_pieces`` and ``no_verify_files``.  Never
  with ``seed_mode``, which "repairs" newer files by overwriting them.
* A file is on the disk when ``cache_flushed_alert`` says so, not when it is reported complete.
* No web seeds, and torrents from bytes in memory only.
* Calls that wait for libtorrent's thread are made in a thread of our own, never on the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import libtorrent
import numpy as np
from msgspec import Struct

from manifests.columns import Bools
from manifests.errors import TransferError
from syncclient.torrents.members import Member, Metainfo, Status, SwarmSettings
from syncclient.torrents.peers import Address

T = TypeVar("T")
# 2.0 and 2.1 state different types.
lt: Any = libtorrent

# A torrent of ours is far below all of these; the defaults refuse 99,000 files.
_LOAD_LIMITS: Final = {
    "max_buffer_size": 16 * 2**20,
    "max_decode_tokens": 3_000_000,
    "max_pieces": 2**21,
}
_ALERTS: Final = 100_000
# Priorities of libtorrent go from 7, the first, to 1; 0 is not to fetch.
_FIRST: Final = 7
_WAVES: Final = 7
# Without SHA-1 a hybrid's padding is not fetched (libtorrent 2.1; unnamed in its Python).
_DISABLE_V1: Final = 1 << 25
_HAS_DISABLE_V1: Final = tuple(int(part) for part in lt.__version__.split(".")[:2]) >= (2, 1)
_READ_BYTES: Final = 65536
_CONTROL_S: Final = 30.0


def _pack(settings: SwarmSettings) -> dict[str, Any]:
    """As libtorrent wants it."""
    policy = {"prefer": 1, "require": 0, "off": 2}[settings.encryption]
    category = lt.alert.category_t
    mask = (
        category.error_notification
        | category.status_notification
        | category.storage_notification
        | category.tracker_notification
    )
    if settings.fetches:
        mask |= category.file_progress_notification
    return {
        "listen_interfaces": settings.listen,
        "upload_rate_limit": settings.upload_rate,
        "download_rate_limit": settings.download_rate,
        # A limit is a limit, on the local network too.
        "ignore_limits_on_local_network": False,
        "connections_limit": settings.connections,
        "enable_dht": settings.dht and not settings.cautious,
        "enable_lsd": settings.lsd and not settings.cautious,
        "enable_upnp": settings.port_mapping,
        "enable_natpmp": settings.port_mapping,
        # On loopback uTP was 20 times slower than TCP.
        "enable_outgoing_utp": settings.utp,
        "enable_incoming_tcp": not settings.cautious,
        "enable_incoming_utp": settings.utp and not settings.cautious,
        "in_enc_policy": policy,
        "out_enc_policy": policy,
        "allow_multiple_connections_per_ip": True,
        "alert_mask": int(mask),
        "alert_queue_size": _ALERTS,
        "max_queued_disk_bytes": 32 * 2**20,
        "active_limit": -1,
        "active_downloads": -1,
        "active_seeds": -1,
        "active_checking": -1,
        "unchoke_slots_limit": -1,
        "announce_to_all_trackers": False,
        "announce_to_all_tiers": False,
        "max_concurrent_http_announces": 20,
        "stop_tracker_timeout": 2,
        "tick_interval": 200,
        "min_reconnect_time": 2,
        "max_failcount": 20,
        "file_pool_size": 100,
        "request_queue_time": 1,
        "send_redundant_have": False,
        "user_agent": "bucketsync",
        "peer_fingerprint": "-BY1000-",
        # Our own HTTP client fetches from hosts.
        "max_web_seed_connections": 0,
    }


def read_metainfo(data: bytes) -> Metainfo:
    """Read a .torrent; TransferError if libtorrent refuses it.  8 ms a thousand files."""
    try:
        params = lt.load_torrent_buffer(data, _LOAD_LIMITS)
    except RuntimeError as error:
        raise TransferError(f"a torrent of the release cannot be read: {error}") from error
    info = params.ti
    files = info.layout() if hasattr(info, "layout") else info.files()
    piece_bytes = info.piece_length()
    rows = [
        number
        for number in range(files.num_files())
        if not int(files.file_flags(number)) & int(lt.file_storage.flag_pad_file)
    ]
    offsets = np.array([files.file_offset(number) for number in rows], np.int64)
    sizes = np.array([files.file_size(number) for number in rows], np.int64)
    return Metainfo(
        params=params,
        paths=tuple(files.file_path(number) for number in rows),
        index=np.array(rows, np.int64),
        first_pieces=offsets // piece_bytes,
        piece_counts=-(-sizes // piece_bytes),
        total_files=files.num_files(),
        total_pieces=info.num_pieces(),
        private=bool(info.priv()),
        has_trackers=bool(params.trackers),
    )


class _Traffic(Struct):
    downloaded_bytes: int = 0
    uploaded_bytes: int = 0


class Swarm:
    """A session; use as an async context manager."""

    def __init__(self, settings: SwarmSettings) -> None:
        self._settings = settings
        self._members: dict[Any, Member] = {}
        self._calls = ThreadPoolExecutor(1, thread_name_prefix="libtorrent")
        self._past = _Traffic()
        self._listening: asyncio.Future[None] | None = None
        self.warnings: Callable[[str], None] = lambda _: None
        self._session: Any = None

    async def __aenter__(self) -> Self:
        """Open the listening socket."""
        self._read, self._write = socket.socketpair()
        # Both ends: an end that blocks deadlocks with libtorrent's thread.
        self._read.setblocking(False)  # noqa: FBT003
        self._write.setblocking(False)  # noqa: FBT003
        self._session = await self.call(lambda: lt.session(_pack(self._settings)))
        self._session.set_alert_fd(self._write.fileno())
        asyncio.get_running_loop().add_reader(self._read.fileno(), self._take_alerts)
        self._take_alerts()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave all swarms; waits a moment for trackers."""
        asyncio.get_running_loop().remove_reader(self._read.fileno())
        session, self._session = self._session, None
        for member in self._members.values():
            member.handle = None
        self._members.clear()

        def end() -> None:
            nonlocal session
            session.pause()
            # The last reference: its end waits until trackers were told, two seconds at most.
            session = None

        await self.call(end)
        self._calls.shutdown()
        self._read.close()
        self._write.close()

    async def call(self, work: Callable[[], T]) -> T:
        """Do something that may wait for libtorrent's thread; to its end also if cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._calls, work)
        return await asyncio.shield(future)

    @property
    def port(self) -> int:
        """The TCP port that peers reach us at."""
        return int(self._session.listen_port())

    async def pause(self, *, paused: bool) -> None:
        """Leave all swarms for a while, or join them again."""
        await self.call(self._session.pause if paused else self._session.resume)

    # ----------------------------------------------------------------- alerts

    def _take_alerts(self) -> None:
        with suppress(BlockingIOError):
            while self._read.recv(_READ_BYTES):
                pass
        if self._session is None:
            return
        for alert in self._session.pop_alerts():
            self._take_alert(alert)

    def _take_alert(self, alert: Any) -> None:  # noqa: ANN401 (libtorrent has no types)
        if isinstance(alert, lt.listen_failed_alert):
            self.warnings(f"peers: {alert.message()}")
        if not isinstance(alert, lt.torrent_alert):
            return
        member = self._members.get(alert.handle)
        if member is None:
            return
        if isinstance(alert, lt.file_completed_alert):
            member.completed.add(int(alert.index))
        elif isinstance(alert, lt.hash_failed_alert):
            member.failed_pieces += 1
        elif isinstance(alert, lt.cache_flushed_alert):
            member.end_flushes()
        elif isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
            member.error = alert.message()
        elif isinstance(alert, lt.torrent_removed_alert):
            member.removed.set()
        else:
            return
        member.changed.set()

    # ----------------------------------------------------------------- torrents

    async def read(self, data: bytes) -> Metainfo:
        """Read a .torrent, not on the event loop."""
        return await asyncio.to_thread(read_metainfo, data)

    async def fetch(
        self,
        metainfo: Metainfo,
        staging: Path,
        wanted: Collection[int],
        *,
        fresh: bool,
        peers: Sequence[Address] = (),
    ) -> Member:
        """Begin to fetch some files (rows of the metainfo) into ``staging``.

        Unless it is ``fresh``, what lies there is read and checked first.  From a single peer,
        where there is nothing to choose, the first buckets are complete long before the last ones,
        and can be placed meanwhile; that ends with :meth:`want`.
        """
        priorities = _priorities(metainfo, wanted, _WAVES if len(peers) == 1 else 1)
        flags = lt.torrent_flags.no_verify_files if fresh else 0
        if _HAS_DISABLE_V1:
            flags |= _DISABLE_V1
        return await self._add(metainfo, staging, priorities, None, flags, peers)

    async def offer(
        self, metainfo: Metainfo, root: Path, held: Bools, *, peers: Sequence[Address] = ()
    ) -> Member:
        """Offer the files (n,) that ``held`` marks, as they lie below ``root``; none is read.

        The others are neither fetched nor touched.
        """
        pieces = np.zeros(metainfo.total_pieces, np.bool_)
        for row in np.flatnonzero(held & (metainfo.piece_counts > 0)).tolist():
            first = metainfo.first_pieces[row]
            pieces[first : first + metainfo.piece_counts[row]] = True
        flags = lt.torrent_flags.no_verify_files
        priorities = _priorities(metainfo, np.flatnonzero(held).tolist())
        return await self._add(metainfo, root, priorities, pieces.tolist(), flags, peers)

    async def _add(  # noqa: PLR0913 (a torrent has many sides)
        self,
        metainfo: Metainfo,
        save_path: Path,
        priorities: list[int],
        pieces: list[bool] | None,
        flags: int,
        peers: Sequence[Address],
    ) -> Member:
        member = Member()
        settings = self._settings

        def add() -> None:
            params = metainfo.params
            params.save_path = str(save_path)
            params.file_priorities = priorities
            if pieces is not None:
                params.have_pieces = pieces
            params.url_seeds = []
            if settings.cautious:
                params.trackers = []
            params.flags = flags_of(flags, settings, private=metainfo.private)
            params.peers = [tuple(peer) for peer in peers]
            member.handle = self._session.add_torrent(params)

        await self.call(add)
        # It was added paused, so that nothing can have happened yet that nobody would hear of.
        self._members[member.handle] = member
        await self.call(member.handle.resume)
        return member

    async def connect(self, member: Member, peers: Sequence[Address]) -> None:
        """Tell a torrent of peers."""

        def connect() -> None:
            for peer in peers:
                member.handle.connect_peer((peer.host, peer.port))

        await self.call(connect)

    async def want(self, member: Member, metainfo: Metainfo, wanted: Collection[int]) -> None:
        """Fetch only these files (rows) from now on, in any order."""
        priorities = _priorities(metainfo, wanted)
        await self.call(lambda: member.handle.prioritize_files(priorities))

    async def begun(self, member: Member, metainfo: Metainfo) -> Bools:
        """Of which files (n,) something is here."""
        progress = await self.call(member.handle.file_progress)
        found: Bools = np.array(progress, np.int64)[metainfo.index] > 0
        return found

    async def flush(self, member: Member) -> None:
        """Return when all that was complete is on the file system."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        member.flushes.append(future)
        await self.call(member.handle.flush_cache)
        async with asyncio.timeout(_CONTROL_S):
            await future

    async def remove(self, member: Member) -> None:
        """Take a torrent out of the session; its files stay, and are not written to any more."""
        status = await self.status(member)
        self._past.downloaded_bytes += status.downloaded_bytes
        self._past.uploaded_bytes += status.uploaded_bytes
        await self.call(lambda: self._session.remove_torrent(member.handle))
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONTROL_S):
                await member.removed.wait()
        self._members.pop(member.handle, None)

    async def status(self, member: Member) -> Status:
        """How one torrent is doing."""
        return (await self.statuses([member]))[0]

    async def statuses(self, members: Sequence[Member]) -> list[Status]:
        """How some torrents are doing; 20 us each."""

        def ask() -> list[Status]:
            return [_status(member.handle.status(0)) for member in members]

        return await self.call(ask)

    async def traffic(self) -> tuple[int, int]:
        """Bytes of files (and of padding) received and sent since the start."""
        statuses = await self.statuses(list(self._members.values()))
        down = self._past.downloaded_bytes + sum(item.downloaded_bytes for item in statuses)
        up = self._past.uploaded_bytes + sum(item.uploaded_bytes for item in statuses)
        return down, up


def _priorities(metainfo: Metainfo, wanted: Collection[int], waves: int = 1) -> list[int]:
    """One number for each file that libtorrent counts; pads are never wanted by themselves."""
    files, priorities = len(metainfo.paths), [0] * metainfo.total_files
    for row in wanted:
        priorities[int(metainfo.index[row])] = _FIRST - waves * row // files
    return priorities


def _status(found: Any) -> Status:  # noqa: ANN401
    return Status(
        peers=found.num_peers,
        seeds=found.num_seeds,
        done_bytes=found.total_done,
        downloaded_bytes=found.total_payload_download,
        uploaded_bytes=found.total_payload_upload,
        download_rate=found.download_payload_rate,
        upload_rate=found.upload_payload_rate,
    )


def flags_of(extra: int, settings: SwarmSettings, *, private: bool) -> int:
    """Never auto-managed, never seed_mode; what private torrents forbid is off."""
    flags = int(extra) | int(lt.torrent_flags.duplicate_is_error | lt.torrent_flags.paused)
    closed = private or settings.cautious
    if closed or not settings.dht:
        flags |= int(lt.torrent_flags.disable_dht)
    if closed or not settings.lsd:
        flags |= int(lt.torrent_flags.disable_lsd)
    if closed or not settings.pex:
        flags |= int(lt.torrent_flags.disable_pex)
    return flags
