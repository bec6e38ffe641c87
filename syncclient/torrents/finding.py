"""Finding peers through the trackers of the tree's own hosts: one request for all torrents.

Other trackers, and the hash table, are libtorrent's affair.  A host without a tracker (a plain web
server) is asked once and then left alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus

from msgspec import Struct, field

from manifests.errors import ManifestError, TransferError
from manifests.torrents.announce import (
    ENDPOINT6_BYTES,
    ENDPOINT_BYTES,
    MAX_HASHES,
    MAX_NEIGHBOURS_BYTES,
    Announcement,
    Neighbours,
    State,
)
from syncclient.hosts import Hosts
from syncclient.torrents.peers import Address
from syncclient.torrents.runs import Run

PATH = "announce/batch"
# While something is missing, new peers are looked for more often than a tracker needs to hear.
EAGER_S = 30.0
FIRST_WAIT_S = 1.0
_NUMWANT = 50
# What a tracker names to others.
_PRESENT = {State.LEECHING, State.SEEDING}
# From a host that has none; a proxy whose tracker is away for a moment says others.
_NO_TRACKER = {
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.GONE,
    HTTPStatus.NOT_IMPLEMENTED,
}


class Caution(Struct):
    """Whether peers are asked one at a time, and which are not asked any more."""

    active: bool = False
    barred: set[Address] = field(default_factory=set)

    def choose(self, peers: Sequence[Address]) -> tuple[Address, ...]:
        """Whom to ask, of those that are known."""
        if not self.active:
            return tuple(peers)
        return tuple(peer for peer in peers if peer not in self.barred)[:1]


class PeerFinder:
    """Tells hosts what is wanted and offered, and remembers who else is there."""

    def __init__(
        self,
        hosts: Hosts,
        port: int,
        explicit: Sequence[Address] = (),
        caution: Caution | None = None,
    ) -> None:
        self._hosts = hosts
        self._port = port
        self._explicit = tuple(explicit)
        self.caution = caution or Caution()
        self._trackers = list(range(len(hosts.urls)))
        self._peers: dict[bytes, tuple[Address, ...]] = {}
        self._announced: dict[bytes, tuple[Run, State]] = {}
        # Those that know of us, and have to be told when we leave.
        self._told: set[int] = set()
        self.waiting: set[bytes] = set()
        # By torrent, how many offer it, as the tracker that knows the most of them counts.
        self.seeds: dict[bytes, int] = {}
        self.interval_s = EAGER_S

    def peers_of(self, run: Run) -> tuple[Address, ...]:
        """Peers of a torrent: those named by the user, then those that trackers named."""
        found = dict.fromkeys((*self._explicit, *self._peers.get(run.key, ())))
        return self.caution.choose(tuple(found))

    @property
    def knows_somebody(self) -> bool:
        """Whether there is a peer to ask."""
        return bool(self._explicit or any(self._peers.values()))

    async def move(self, port: int) -> None:
        """Be found at another port from now on."""
        if port != self._port:
            await self.leave()
            self._port = port

    @property
    def has_tracker(self) -> bool:
        """Whether some host is a tracker, as far as is known."""
        return bool(self._trackers)

    async def announce(self, states: Mapping[bytes, tuple[Run, State]]) -> None:
        """Tell every tracker the states of torrents by key, and take the peers that it names.

        One that is not offered any more is left; that it rests then would not say so.
        """
        stopped = {
            key: (run, State.STOPPED)
            for key, (run, state) in self._announced.items()
            if state in _PRESENT and (key not in states or states[key][1] not in _PRESENT)
        }
        self._announced = dict(states)
        told = list({**states, **stopped}.values())
        if not self._port:
            return
        found: dict[bytes, dict[Address, None]] = {}
        self.waiting.clear()
        self.seeds.clear()
        # Who never answered need not be told that we leave.
        for host in [one for one in self._trackers if states or one in self._told]:
            for start in range(0, len(told), MAX_HASHES // 2):
                if not await self._tell(host, told[start : start + MAX_HASHES // 2], found):
                    break
        self._peers = {key: tuple(addresses) for key, addresses in found.items()}

    async def keep(self, states: Callable[[], Mapping[bytes, tuple[Run, State]]]) -> None:
        """Announce again and again until cancelled, at first often: others begin too."""
        wait_s = FIRST_WAIT_S
        while True:
            await asyncio.sleep(wait_s)
            await self.announce(states())
            wait_s = min(2 * wait_s, self.interval_s, EAGER_S)

    async def leave(self) -> None:
        """Say goodbye to those that answered."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await self.announce({})

    async def _tell(
        self, host: int, told: list[tuple[Run, State]], found: dict[bytes, dict[Address, None]]
    ) -> bool:
        """One request; False once it is known that the host has no tracker."""
        pairs = [
            (run.key, info_hash, state)
            for run, state in told
            for info_hash in run.ref.info_hashes.announced
        ]
        body = Announcement(
            port=self._port,
            numwant=_NUMWANT,
            hashes=[info_hash for _, info_hash, _ in pairs],
            states=[state for _, _, state in pairs],
        ).encode()
        try:
            data = await self._hosts.post(host, PATH, body, MAX_NEIGHBOURS_BYTES)
            answer = Neighbours.decode(data, len(pairs))
        except ManifestError:
            self._trackers.remove(host)
            return False
        except TransferError as error:
            if error.status in _NO_TRACKER:
                self._trackers.remove(host)
            return False
        self._told.add(host)
        self.interval_s = max(1.0, float(answer.interval_s))
        for number, (key, _, _) in enumerate(pairs):
            addresses = found.setdefault(key, {})
            addresses.update(dict.fromkeys(_addresses(answer.peers[number], ENDPOINT_BYTES)))
            addresses.update(dict.fromkeys(_addresses(answer.peers6[number], ENDPOINT6_BYTES)))
            if answer.waiting[number]:
                self.waiting.add(key)
            self.seeds[key] = max(self.seeds.get(key, 0), answer.seeds[number])
        return True


def _addresses(endpoints: bytes, width: int) -> list[Address]:
    return [
        Address(
            str(ipaddress.ip_address(endpoints[at : at + width - 2])),
            int.from_bytes(endpoints[at + width - 2 : at + width], "big"),
        )
        for at in range(0, len(endpoints), width)
    ]
