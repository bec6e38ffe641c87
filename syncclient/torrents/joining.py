"""Joining swarms with the settings of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from manifests.errors import first_of_group
from syncclient.config import Transport
from syncclient.parcels import Parcels
from syncclient.torrents.fetching import PeerTransfer, Ways
from syncclient.torrents.finding import PeerFinder
from syncclient.torrents.peers import parse_peer
from syncclient.torrents.runs import Run
from syncclient.torrents.swarm import Swarm, SwarmSettings


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
    explicit = tuple(map(parse_peer, transport.peers))
    settings = swarm_settings(transport, download_rate=share_s)
    async with Swarm(settings) as swarm:
        finder = PeerFinder(ways.hosts, swarm.port, explicit)
        peers = PeerTransfer(swarm, finder, parcels, runs, ways)
        try:
            with first_of_group():
                async with asyncio.TaskGroup() as group:
                    group.create_task(by_hosts)
                    group.create_task(peers.run())
        finally:
            on_traffic(*await swarm.traffic())
