"""Joining swarms with the settings of a run, once there is somebody to meet.

libtorrent takes a process, 0.3 s of the processor and 45 MB.  So where hosts are asked too, the
run announces itself first, with a port that libtorrent will have, and goes on doing so; libtorrent
starts when a tracker names a peer.  It starts at once where others may find peers: the user, the
hash table, the local network, a tracker that is none of the hosts.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

from msgspec.structs import replace

from manifests.errors import ManifestError, TransferError, first_of_group
from manifests.torrents.announce import State
from manifests.torrents.metainfo import trackers_of
from syncclient.config import Transport
from syncclient.events import Notice
from syncclient.parcels import Parcels
from syncclient.torrents.apart import SwarmProcess
from syncclient.torrents.claims import wishes
from syncclient.torrents.fetching import PeerTransfer, Ways
from syncclient.torrents.finding import EAGER_S, FIRST_WAIT_S, Caution, PeerFinder
from syncclient.torrents.members import SwarmSettings
from syncclient.torrents.memory import open_memory
from syncclient.torrents.peers import Address, parse_peer
from syncclient.torrents.runs import Run, metainfo_bytes

# The port of an interface, and what libtorrent has behind it: "s" for TLS, "l" for local only.
_PORT: Final = re.compile(r":(\d+)([sl]*)(?=,|$)")
# Each takes a peer out of the run, so it ends by itself; this is for a crash without any peer.
_SWARMS: Final = 20
_CRASHED = (
    "libtorrent crashed on what a peer sent; peers are asked one at a time from now on "
    "(libtorrent 2.0.15 or a newer one than this does not)"
)


def swarm_settings(
    transport: Transport, *, download_rate: int = 0, fetches: bool = True
) -> SwarmSettings:
    """What the user asked for."""
    return SwarmSettings(
        listen=transport.listen,
        upload_rate=transport.upload_limit,
        download_rate=download_rate,
        dht=transport.dht,
        lsd=transport.lsd,
        pex=transport.pex,
        utp=transport.utp,
        port_mapping=transport.port_mapping,
        encryption=transport.encryption,
        fetches=fetches,
    )


async def share(  # noqa: PLR0913 (both sides, what they share, and how)
    transport: Transport,
    runs: Sequence[Run],
    parcels: Parcels,
    ways: Ways,
    by_hosts: Coroutine[Any, Any, None],
    on_traffic: Callable[[int, int], None],
) -> None:
    """Let peers work off a plan beside the hosts, whose part is ``by_hosts``.

    ``on_traffic`` is told the bytes received from peers and sent to them.  With hosts beside, each
    side has half of ``--bwlimit``.
    """
    share_s = transport.bwlimit if ways.alone else transport.bwlimit // 2
    settings = swarm_settings(transport, download_rate=share_s)
    async with AsyncExitStack() as stack:
        ways = replace(ways, memory=stack.enter_context(open_memory(transport.staging_memory)))
        peers = _Peers(settings, tuple(map(parse_peer, transport.peers)), ways, stack)
        try:
            with first_of_group():
                async with asyncio.TaskGroup() as group:
                    group.create_task(by_hosts)
                    group.create_task(peers.work(runs, parcels))
        finally:
            on_traffic(*await peers.traffic())


def reserve_port(listen: str) -> tuple[str, int]:
    """Interfaces as libtorrent has them, with a port for those that state 0, and the first port.

    Nobody keeps it free, and libtorrent takes the next one where somebody else was faster.
    """
    first = _PORT.search(listen)
    if first is None or int(first[1]):
        return listen, int(first[1]) if first is not None else 0
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    return _PORT.sub(
        lambda found: found[0] if int(found[1]) else f":{port}{found[2]}", listen
    ), port


async def before(end: asyncio.Event, doing: Coroutine[Any, Any, None]) -> bool:
    """Do something, and give it up at the end; whether it was done."""
    task, ending = asyncio.ensure_future(doing), asyncio.ensure_future(end.wait())
    try:
        await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        task.cancel()
        ending.cancel()
        await asyncio.gather(task, ending, return_exceptions=True)


class _Peers:
    """The peers' side of a run: one swarm, or after a crash one after the other.

    Swarms stay open until the stack closes them, to offer what was fetched meanwhile.
    """

    def __init__(
        self,
        settings: SwarmSettings,
        explicit: tuple[Address, ...],
        ways: Ways,
        stack: AsyncExitStack,
    ) -> None:
        self._settings = settings
        self._explicit = explicit
        self._ways = ways
        self._stack = stack
        self._caution = Caution()
        self._swarms: list[SwarmProcess] = []

    def _warn(self, text: str) -> None:
        self._ways.listen(Notice(text=f"peers: {text}", warning=True))

    async def work(self, runs: Sequence[Run], parcels: Parcels) -> None:
        """Fetch what peers have; anew after a crash, and while there is another peer to ask."""
        caution = self._caution
        listen, port = reserve_port(self._settings.listen)
        self._settings = replace(self._settings, listen=listen)
        finder = PeerFinder(self._ways.hosts, port, self._explicit, caution)
        met = False
        try:
            met = await self._meets_anybody(finder, runs, parcels)
        finally:
            if not met:
                parcels.opened.set()
                await finder.leave()
        if not met:
            return
        for _ in range(_SWARMS):
            barred = len(caution.barred)
            settings = replace(self._settings, cautious=caution.active)
            swarm = SwarmProcess(settings, self._warn)
            await self._stack.enter_async_context(swarm)
            self._swarms.append(swarm)
            await finder.move(swarm.port)
            await PeerTransfer(swarm, finder, parcels, runs, self._ways).run()
            if swarm.has_crashed and not caution.active:
                self._warn(_CRASHED)
                caution.active = True
            elif len(caution.barred) == barred:
                return

    async def _meets_anybody(
        self, finder: PeerFinder, runs: Sequence[Run], parcels: Parcels
    ) -> bool:
        """Return True once there may be somebody to ask, False if hosts have finished before."""
        wished = wishes(runs, parcels, alone=self._ways.alone)
        if self._ways.alone or self._ways.finds_more or self._explicit or not wished:
            return bool(wished)
        wait_s = FIRST_WAIT_S
        while not parcels.ended.is_set():
            if not await before(parcels.ended, finder.announce(wished)):
                return False
            if finder.knows_somebody:
                return True
            if not finder.has_tracker:
                return await self._names_trackers(wished)
            parcels.opened.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await parcels.ended.wait()
            wait_s = min(2 * wait_s, EAGER_S)
        return False

    async def _names_trackers(self, wished: Mapping[bytes, tuple[Run, State]]) -> bool:
        """Whether torrents name trackers; those of a layer and variant name the same."""
        firsts = {(run.layer, run.variant): run.ref for run, _ in wished.values()}
        for ref in firsts.values():
            with suppress(TransferError, ManifestError):
                data = await metainfo_bytes(ref, self._ways.hosts, self._ways.cache)
                if trackers_of(data):
                    return True
        return False

    async def traffic(self) -> tuple[int, int]:
        """Bytes received from peers and sent to them, in all."""
        found = [await swarm.traffic() for swarm in self._swarms]
        return sum(down for down, _ in found), sum(up for _, up in found)
