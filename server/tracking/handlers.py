"""Announce, scrape and batch announce over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import web

from manifests.errors import ManifestError
from manifests.torrents.announce import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_NEIGHBOURS_BYTES,
    Announcement,
    Neighbours,
    State,
)
from manifests.torrents.bencode import Value, encode
from server.hosting.addresses import Addresses
from server.hosting.catalog import Catalog, CatalogWatch
from server.hosting.lanes import LaneFullError, Lanes
from server.hosting.metrics import Metrics
from server.tracking.queries import read_announce, read_scrape
from server.tracking.swarms import NOBODY, Event, Found, RefusedError, Swarms

# Hashes of a batch between two turns of the event loop: some milliseconds.
_TURN: Final = 200
# A body of 512 KiB comes within it at 26 KB a second.
BODY_S: Final = 20.0
# Without it a client takes a refusal for the answer of a host that has no tracker.
_LATER: Final = {"Retry-After": "60"}
_PLAIN: Final = {"Content-Type": "text/plain", "Cache-Control": "no-store"}
_EVENTS: Final = {
    State.LEECHING: Event.NONE,
    State.SEEDING: Event.NONE,
    State.STOPPED: Event.STOPPED,
}


class Tracker:
    """The tracker of one repository: it knows the repository's torrents and no others.

    Where it refuses to keep a limit, ``metrics`` counts it.
    """

    def __init__(
        self, watch: CatalogWatch, swarms: Swarms, addresses: Addresses, metrics: Metrics
    ) -> None:
        self._watch = watch
        self.swarms = swarms
        self._addresses = addresses
        self._metrics = metrics
        # The documents of a batch are large: an address has few of them at once.
        self._lanes = Lanes(at_once=swarms.limits.address_batches)
        self._known_of: Catalog | None = None
        self._known: frozenset[bytes] = frozenset()

    def routes(self) -> list[web.RouteDef]:
        """What it answers; POST stores nothing on a disk."""
        return [
            web.get("/announce", self.announce, name="announce"),
            web.get("/scrape", self.scrape, name="scrape"),
            web.post("/announce/batch", self.batch, name="batch"),
        ]

    async def known(self) -> frozenset[bytes]:
        """Every hash of a torrent that a live release has."""
        catalog = await self._watch.current()
        if catalog is not self._known_of:
            self._known_of, self._known = catalog, frozenset(_hashes(catalog))
        return self._known

    def _charged(self, request: web.Request, hashes: int) -> bytes:
        """Where the peer is, which has paid for so many hashes; RefusedError."""
        address = self._addresses.of(request)
        if address is None:
            raise RefusedError("no address")
        try:
            self.swarms.charge(address, hashes)
        except RefusedError:
            self._metrics.refuse("announces")
            raise
        return address

    async def announce(self, request: web.Request) -> web.StreamResponse:
        """One torrent of one peer."""
        known = await self.known()
        try:
            asked = read_announce(request.rel_url.raw_query_string)
            _require_known(asked.info_hash, known)
            address = self._charged(request, 1)
            found = self.swarms.announce(
                asked.info_hash,
                address,
                asked.port,
                left=asked.left,
                event=asked.event,
                numwant=asked.numwant,
            )
        except RefusedError as error:
            return _refusal(error)
        interval_s = self.swarms.limits.interval_s
        fields: dict[bytes, Value] = {
            b"complete": found.complete,
            b"downloaded": found.downloaded,
            b"incomplete": found.incomplete,
            b"interval": interval_s,
            b"min interval": interval_s // 4,
            b"peers": found.peers,
        }
        if found.peers6:
            fields[b"peers6"] = found.peers6
        return web.Response(body=encode(fields), headers=_PLAIN)

    async def scrape(self, request: web.Request) -> web.StreamResponse:
        """The counts of some torrents; of unknown ones nothing."""
        known = await self.known()
        try:
            hashes = read_scrape(request.rel_url.raw_query_string)
            self._charged(request, len(hashes))
        except RefusedError as error:
            return _refusal(error)
        files: dict[bytes, Value] = {}
        for info_hash in hashes:
            if info_hash in known:
                found = self.swarms.look(info_hash)
                files[info_hash] = {
                    b"complete": found.complete,
                    b"downloaded": found.downloaded,
                    b"downloaders": found.downloaders,
                    b"incomplete": found.incomplete,
                }
        return web.Response(body=encode({b"files": files}), headers=_PLAIN)

    async def batch(self, request: web.Request) -> web.StreamResponse:
        """Many torrents of one peer."""
        try:
            async with self._lanes.enter(self._addresses.of(request)):
                return await self._batch(request)
        except LaneFullError:
            self._metrics.refuse("batches")
            text = "too many announces of your address at once\n"
            return web.Response(status=HTTPStatus.TOO_MANY_REQUESTS, text=text, headers=_LATER)

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        known = await self.known()
        try:
            asked = Announcement.decode(await self._body(request))
            address = self._charged(request, max(1, len(asked.hashes)))
        except ManifestError as error:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"{error}\n")
        except RefusedError as error:
            return web.Response(
                status=HTTPStatus.TOO_MANY_REQUESTS, text=f"{error}\n", headers=_LATER
            )
        # Half of what an answer may have, which leaves room for what the last one adds.
        found, room_bytes = list[Found](), MAX_NEIGHBOURS_BYTES // 2
        for number, (info_hash, state) in enumerate(zip(asked.hashes, asked.states, strict=True)):
            one = NOBODY
            if info_hash in known:
                numwant = asked.numwant if room_bytes > 0 else 0
                one = self._one(info_hash, state, address, asked.port, numwant)
            found.append(one)
            room_bytes -= len(one.peers) + len(one.peers6)
            if number % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        answer = Neighbours(
            interval_s=self.swarms.limits.interval_s,
            peers=[item.peers for item in found],
            peers6=[item.peers6 for item in found],
            waiting=[item.downloaders > 0 for item in found],
            seeds=[item.complete for item in found],
        )
        response = web.Response(body=answer.encode(), content_type="application/msgpack")
        # Who does not take his answer has no other one made.
        with suppress(ConnectionError):
            await response.prepare(request)
            await response.write_eof()
        return response

    async def _body(self, request: web.Request) -> bytes:
        """What is posted, if it comes in time and is not too long."""
        if (request.content_length or 0) > MAX_ANNOUNCEMENT_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_ANNOUNCEMENT_BYTES, 0)
        try:
            async with asyncio.timeout(BODY_S):
                return await request.read()
        except TimeoutError:
            self._metrics.refuse("body_time")
            raise web.HTTPRequestTimeout from None

    def _one(
        self, info_hash: bytes, state: State, address: bytes, port: int, numwant: int
    ) -> Found:
        if state is State.RESTING:
            return self.swarms.look(info_hash)
        try:
            return self.swarms.announce(
                info_hash,
                address,
                port,
                left=state is State.LEECHING,
                event=_EVENTS[state],
                numwant=numwant,
            )
        except RefusedError:
            return self.swarms.look(info_hash)


def _hashes(catalog: Catalog) -> Iterable[bytes]:
    for layer in catalog.layers.values():
        for torrents in layer.ref.torrents.values():
            for torrent in torrents:
                yield from torrent.info_hashes.announced


def _require_known(info_hash: bytes, known: frozenset[bytes]) -> None:
    if info_hash not in known:
        raise RefusedError("this tracker does not have that torrent")


def _refusal(error: RefusedError) -> web.Response:
    """As BEP 3 has it: status 200, and the reason."""
    return web.Response(body=encode({b"failure reason": str(error).encode()}), headers=_PLAIN)
