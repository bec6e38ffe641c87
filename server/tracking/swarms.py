"""Who has announced which torrent, in bounded memory; pure but for the clock that it is given.

A peer is the address it was heard from and the port it names: one entry a swarm.  An entry is a
key and a number, about 400 bytes, and a queue in the order of expiry finds the old ones without a
look at the others.  The two hashes of a hybrid are two swarms (BEP 52), which are never merged.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct, field

from server.hosting.addresses import network_of

IPV4_BYTES = 4
_SEED, _PAUSED = 1, 2
_FLAGS = 4


class Event(StrEnum):
    """What an announce says happened (BEP 3, BEP 21)."""

    NONE = ""
    STARTED = "started"
    COMPLETED = "completed"
    STOPPED = "stopped"
    PAUSED = "paused"


class RefusedError(Exception):
    """An announce that is not taken, with the reason that the peer is told."""


class TrackerLimits(Struct, frozen=True, kw_only=True):
    """Bounds, each with its reason in docs/reference/tracker.md."""

    interval_s: int = 1800
    swarm_peers: int = 5_000
    # Of one address (the /64 of an IPv6 one), as all limits of addresses.
    swarm_address_peers: int = 100
    total_peers: int = 500_000
    address_peers: int = 20_000
    # A token bucket an address: hashes at once, and a second.
    burst: int = 20_000
    rate: float = 50.0
    addresses: int = 100_000
    # Batch announces under way: a request of 512 KiB, an answer of up to 32 MiB.
    address_batches: int = 4
    numwant: int = 50
    max_numwant: int = 200


class _Swarm(Struct):
    """Endpoints with expiry (seconds) and flags in one number; 32 bytes of it are a dict's."""

    peers: dict[bytes, int] = field(default_factory=dict)
    # How many are of each network.
    networks: dict[bytes, int] = field(default_factory=dict)
    seeds: int = 0
    # Partial seeds (BEP 21): they lack something and do not want it.
    paused: int = 0
    downloaded: int = 0

    def count(self, value: int, by: int) -> None:
        """Count a peer with these flags, or count it out."""
        self.seeds += by * bool(value & _SEED)
        self.paused += by * bool(value & _PAUSED)


class Found(Struct, frozen=True, kw_only=True):
    """The answer to one announce: endpoints of 6 and of 18 bytes, and counts of the swarm."""

    peers: bytes
    peers6: bytes
    complete: int
    incomplete: int
    # Of the incomplete ones, those that want more.
    downloaders: int
    downloaded: int


NOBODY = Found(peers=b"", peers6=b"", complete=0, incomplete=0, downloaders=0, downloaded=0)


class Swarms:
    """All swarms of one host."""

    def __init__(
        self,
        limits: TrackerLimits,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self._random = rng or random.SystemRandom()
        self._swarms: dict[bytes, _Swarm] = {}
        self._expiries: deque[tuple[int, bytes, bytes]] = deque()
        self._by_address: dict[bytes, int] = {}
        # Tokens left and when they were counted; the least recently heard from go first.
        self._tokens: dict[bytes, tuple[float, float]] = {}
        self.peers = 0

    def __len__(self) -> int:
        """Swarms that somebody is in."""
        return len(self._swarms)

    # ----------------------------------------------------------------- asking

    def charge(self, address: bytes, hashes: int) -> None:
        """Take tokens for an announce of so many hashes; RefusedError if there are too few."""
        limits, now_s, address = self.limits, self._clock(), network_of(address)
        left, counted_s = self._tokens.pop(address, (float(limits.burst), now_s))
        left = min(limits.burst, left + (now_s - counted_s) * limits.rate)
        if left < hashes:
            self._tokens[address] = (left, now_s)
            raise RefusedError("too many announces from this address, slow down")
        if len(self._tokens) >= limits.addresses:
            self._tokens.pop(next(iter(self._tokens)))
        self._tokens[address] = (left - hashes, now_s)

    def announce(  # noqa: PLR0913 (what an announce says)
        self,
        info_hash: bytes,
        address: bytes,
        port: int,
        *,
        left: bool,
        event: Event = Event.NONE,
        numwant: int | None = None,
    ) -> Found:
        """Take an announce and find others; ``left`` is whether the peer lacks anything.

        RefusedError if there is no room for one more.
        """
        self.expire()
        endpoint = address + port.to_bytes(2, "big")
        if event is Event.STOPPED:
            self._drop(info_hash, endpoint)
            return self.look(info_hash)
        paused = left and event is Event.PAUSED
        before = self._keep(info_hash, endpoint, flags=_PAUSED * paused or _SEED * (not left))
        swarm = self._swarms[info_hash]
        if event is Event.COMPLETED and before is not None and not before & _SEED:
            swarm.downloaded += 1
        limits = self.limits
        count = limits.numwant if numwant is None else min(numwant, limits.max_numwant)
        return self._found(swarm, endpoint, count, everybody=left and not paused)

    def look(self, info_hash: bytes) -> Found:
        """The counts of a swarm, without peers."""
        swarm = self._swarms.get(info_hash)
        return NOBODY if swarm is None else self._found(swarm, b"", 0, everybody=False)

    def expire(self) -> None:
        """Forget who has not been heard from for two intervals and a bit."""
        now_s = int(self._clock())
        while self._expiries and self._expiries[0][0] <= now_s:
            _, info_hash, endpoint = self._expiries.popleft()
            swarm = self._swarms.get(info_hash)
            value = None if swarm is None else swarm.peers.get(endpoint)
            if value is None:
                continue
            expires_s = value // _FLAGS
            if expires_s <= now_s:
                self._drop(info_hash, endpoint)
            else:
                self._expiries.append((expires_s, info_hash, endpoint))

    # ----------------------------------------------------------------- keeping

    def _keep(self, info_hash: bytes, endpoint: bytes, *, flags: int) -> int | None:
        """Remember one peer: what was remembered of it before."""
        expires_s = int(self._clock()) + 2 * self.limits.interval_s + 60
        swarm = self._swarms.get(info_hash)
        older = None if swarm is None else swarm.peers.get(endpoint)
        if swarm is None or older is None:
            network = network_of(endpoint[:-2])
            self._require_room(swarm, network)
            swarm = self._swarms.setdefault(info_hash, _Swarm())
            self.peers += 1
            _add(self._by_address, network)
            _add(swarm.networks, network)
            self._expiries.append((expires_s, info_hash, endpoint))
        swarm.count(flags, 1)
        swarm.count(older or 0, -1)
        swarm.peers[endpoint] = expires_s * _FLAGS + flags
        return older

    def _require_room(self, swarm: _Swarm | None, network: bytes) -> None:
        limits = self.limits
        if self.peers >= limits.total_peers:
            raise RefusedError("this tracker is full, try again later")
        if swarm is not None and len(swarm.peers) >= limits.swarm_peers:
            raise RefusedError("this swarm is full, try again later")
        if swarm is not None and swarm.networks.get(network, 0) >= limits.swarm_address_peers:
            raise RefusedError("too many peers of this address in this swarm")
        if self._by_address.get(network, 0) >= limits.address_peers:
            raise RefusedError("too many torrents from this address")

    def _drop(self, info_hash: bytes, endpoint: bytes) -> None:
        """Forget one peer; what is left of it in the queue means nothing."""
        swarm = self._swarms.get(info_hash)
        value = None if swarm is None else swarm.peers.pop(endpoint, None)
        if swarm is None or value is None:
            return
        self.peers -= 1
        swarm.count(value, -1)
        if not swarm.peers and not swarm.downloaded:
            del self._swarms[info_hash]
        network = network_of(endpoint[:-2])
        _take(self._by_address, network)
        _take(swarm.networks, network)

    def _found(self, swarm: _Swarm, asker: bytes, count: int, *, everybody: bool) -> Found:
        if count and everybody:
            others = [item for item in swarm.peers if item != asker]
        elif count:
            others = [
                item
                for item, value in swarm.peers.items()
                if item != asker and not value & (_SEED | _PAUSED)
            ]
        else:
            others = []
        if len(others) > count:
            others = self._random.sample(others, count)
        return Found(
            peers=b"".join(item for item in others if len(item) == IPV4_BYTES + 2),
            peers6=b"".join(item for item in others if len(item) != IPV4_BYTES + 2),
            complete=swarm.seeds,
            incomplete=len(swarm.peers) - swarm.seeds,
            downloaders=len(swarm.peers) - swarm.seeds - swarm.paused,
            downloaded=swarm.downloaded,
        )


def _add(counts: dict[bytes, int], network: bytes) -> None:
    counts[network] = counts.get(network, 0) + 1


def _take(counts: dict[bytes, int], network: bytes) -> None:
    counts[network] -= 1
    if not counts[network]:
        del counts[network]
