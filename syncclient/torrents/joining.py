"""Joining swarms with the settings of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

from manifests.errors import first_of_group
from syncclient.config import Transport
from syncclient.events import Notice
from syncclient.parcels import Parcels
from syncclient.torrents.apart import SwarmProcess
from syncclient.torrents.fetching import PeerTransfer, Ways
from syncclient.torrents.finding import Caution, PeerFinder
from syncclient.torrents.members import SwarmSettings
from syncclient.torrents.memory import open_memory
from syncclient.torrents.peers import Address, parse_peer
from syncclient.torrents.runs import Run

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
        for _ in range(_SWARMS):
            barred = len(caution.barred)
            swarm = SwarmProcess(replace(self._settings, cautious=caution.active), self._warn)
            await self._stack.enter_async_context(swarm)
            self._swarms.append(swarm)
            finder = PeerFinder(self._ways.hosts, swarm.port, self._explicit, caution)
            await PeerTransfer(swarm, finder, parcels, runs, self._ways).run()
            if swarm.has_crashed and not caution.active:
                self._warn(_CRASHED)
                caution.active = True
            elif len(caution.barred) == barred:
                return

    async def traffic(self) -> tuple[int, int]:
        """Bytes received from peers and sent to them, in all."""
        found = [await swarm.traffic() for swarm in self._swarms]
        return sum(down for down, _ in found), sum(up for _, up in found)
