"""The batch announce: many torrents of one peer in one request, in place of two for each.

A client posts a :class:`Announcement` to ``announce/batch`` of a host and gets
:class:`Neighbours`.  Both are canonical msgpack (docs/reference/tracker.md); hashes are the 20
bytes that BitTorrent announces.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct

from manifests import codec
from manifests.errors import ManifestError

MAX_HASHES = 20_000
MAX_ANNOUNCEMENT_BYTES = 512 * 2**10
MAX_NEIGHBOURS_BYTES = 32 * 2**20
HASH_BYTES = 20
ENDPOINT_BYTES = 6
ENDPOINT6_BYTES = 18
_COUNT_BYTES = 4


class State(IntEnum):
    """What the peer is to a torrent; the number is a byte of the document."""

    LEECHING = 0
    SEEDING = 1
    STOPPED = 2
    # Has it and does not offer it now: asks only whether somebody is waiting.
    RESTING = 3


class Announcement(Struct, frozen=True, kw_only=True):
    """``port`` is where the peer listens; ``hashes`` and ``states`` have one item a torrent."""

    port: int
    numwant: int
    hashes: Sequence[bytes]
    states: Sequence[State]

    def encode(self) -> bytes:
        """The body of the request."""
        return codec.encode(
            {
                "format": codec.FORMAT,
                "port": self.port,
                "numwant": self.numwant,
                "hashes": b"".join(self.hashes),
                "states": bytes(self.states),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Announcement:
        """Read it; ManifestError for anything else."""
        fields = codec.decode(data, "announcement", max_bytes=MAX_ANNOUNCEMENT_BYTES)
        states = fields.blob_up_to("states", MAX_HASHES)
        joined = fields.blob("hashes", HASH_BYTES * len(states))
        if states and max(states) > max(State):
            raise ManifestError(fields.place("states"), "there is no such state")
        return cls(
            port=_port(fields),
            numwant=fields.uint("numwant", 1000),
            hashes=[joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)],
            states=[State(state) for state in states],
        )


def _port(fields: codec.Fields) -> int:
    port = fields.uint("port", 65535)
    if not port:
        raise ManifestError(fields.place("port"), "expected 1 to 65535, got 0")
    return port


class Neighbours(Struct, frozen=True, kw_only=True):
    """The answer: for each hash, in the order of the request, endpoints as BEP 23 and BEP 7 do.

    ``interval_s`` is when to ask again; ``waiting`` has for each hash whether somebody lacks
    something of it, ``seeds`` how many lack nothing that they want.
    """

    interval_s: int
    peers: Sequence[bytes]
    peers6: Sequence[bytes]
    waiting: Sequence[bool]
    seeds: Sequence[int]

    def encode(self) -> bytes:
        """The body of the answer."""
        return codec.encode(
            {
                "format": codec.FORMAT,
                "interval": self.interval_s,
                "peers": list(self.peers),
                "peers6": list(self.peers6),
                "waiting": bytes(self.waiting),
                "seeds": b"".join(count.to_bytes(_COUNT_BYTES, "little") for count in self.seeds),
            }
        )

    @classmethod
    def decode(cls, data: bytes, count: int) -> Neighbours:
        """Read the answer to ``count`` hashes; ManifestError for anything else."""
        fields = codec.decode(data, "neighbours", max_bytes=MAX_NEIGHBOURS_BYTES)
        seeds = fields.blob("seeds", _COUNT_BYTES * count)
        return cls(
            interval_s=fields.uint("interval", 2**20),
            peers=_endpoints(fields, "peers", count, ENDPOINT_BYTES),
            peers6=_endpoints(fields, "peers6", count, ENDPOINT6_BYTES),
            waiting=[bool(item) for item in fields.blob("waiting", count)],
            seeds=[
                int.from_bytes(seeds[at : at + _COUNT_BYTES], "little")
                for at in range(0, len(seeds), _COUNT_BYTES)
            ],
        )


def _endpoints(fields: codec.Fields, key: str, count: int, width: int) -> list[bytes]:
    found = fields.blobs(key, count)
    for index, item in enumerate(found):
        if len(item) % width:
            place = f"{fields.place(key)}[{index}]"
            raise ManifestError(place, f"{len(item)} bytes are no endpoints of {width}")
    return found
