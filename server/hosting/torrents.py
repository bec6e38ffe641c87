"""Torrents for people: a page for each release, the .torrent files, magnet links, and a feed.

A client of ours finds the same objects through the descriptor; these are for stock clients.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from html import escape
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape as escape_xml
from xml.sax.saxutils import quoteattr

from aiohttp import web
from msgspec import Struct, field

from manifests.digest import Digest
from manifests.model import Descriptor
from manifests.torrents.metainfo import Trackers, magnet, trackers_of
from manifests.torrents.refs import TorrentRef
from manifests.units import format_count, format_size
from server.hosting.catalog import CatalogWatch
from server.hosting.pages import render_page

TORRENT_TYPE: Final = "application/x-bittorrent"
FEED_TYPE: Final = "application/rss+xml; charset=utf-8"
_NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,199}"
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_REVALIDATE: Final = "no-cache"
# The first key of a .torrent by byte order, if it names a tracker.
_ANNOUNCE_KEY: Final = b"d8:announce"
_INTRODUCTION: Final = """<p>Add a torrent with the folder that holds <code>{variant}/</code> as
its place, and your client keeps the files of your tree. Clients need BitTorrent v2 or pad files
(qBittorrent 4.4, Transmission 4, Deluge 2.1, libtorrent 2). <a href="feed.xml">A feed of all
torrents</a> can be subscribed to.</p>
"""


class NamedTorrent(Struct, frozen=True, kw_only=True):
    """One torrent of a release, and the name that people see."""

    layer: str
    variant: str
    date: int
    label: str
    ref: TorrentRef

    @property
    def title(self) -> str:
        """What it holds."""
        return f"{self.layer} {self.variant} {self.label}"

    @property
    def file_name(self) -> str:
        """``LAYER-VARIANT-0000-0011.torrent``."""
        return f"{self.layer}-{self.variant}-{self.label}.torrent"


def torrents_of(release: Descriptor) -> Iterator[NamedTorrent]:
    """All torrents of a release, oldest layer first."""
    for layer in release.layers:
        for variant, torrents in sorted(layer.torrents.items()):
            for ref in torrents:
                yield NamedTorrent(
                    layer=layer.name,
                    variant=variant,
                    date=layer.date,
                    label=ref.label(release.layout),
                    ref=ref,
                )


class TorrentHandlers(Struct, frozen=True, kw_only=True):
    """Pages and files; ``tracks`` says that this host has a tracker of its own."""

    repo: Path
    watch: CatalogWatch
    tracks: bool
    # What the publisher wrote into torrents, by their objects; all of a set have the same.
    _written: dict[Digest, Trackers] = field(default_factory=dict)

    def routes(self) -> list[web.RouteDef]:
        """GET of all of it."""
        release = f"/torrents/{{release:{_NAME}}}"
        return [
            web.get("/torrents/info-hashes.txt", self.info_hashes, name="info-hashes"),
            web.get(f"{release}/", self.page, name="torrents-page"),
            web.get(f"{release}/feed.xml", self.feed, name="feed"),
            web.get(f"{release}/{{name:{_NAME}\\.torrent}}", self.torrent, name="torrents"),
        ]

    async def _release(self, request: web.Request) -> Descriptor:
        catalog = await self.watch.current()
        for release in catalog.releases:
            if release.release == request.match_info["release"]:
                return release
        raise web.HTTPNotFound

    def _own_tracker(self, request: web.Request) -> Trackers:
        """The tracker of this host, as visitors reach it."""
        if not self.tracks or _HOST.fullmatch(request.host) is None:
            return ()
        return ((f"{_scheme(request)}://{request.host}/announce",),)

    async def _trackers(
        self, request: web.Request, named: Sequence[NamedTorrent]
    ) -> Mapping[Digest, Trackers]:
        """The trackers that each torrent names when this host gives it away."""
        own, found = self._own_tracker(request), dict[Digest, Trackers]()
        for _, of_set in groupby(named, key=lambda item: (item.layer, item.variant)):
            torrents = [item.ref.digest for item in of_set]
            written = await self._trackers_written(torrents[0])
            found |= dict.fromkeys(torrents, written or own)
        return found

    async def _trackers_written(self, digest: Digest) -> Trackers:
        if digest not in self._written:
            data = await asyncio.to_thread(self._path(digest).read_bytes)
            self._written[digest] = trackers_of(data)
        return self._written[digest]

    def _path(self, digest: Digest) -> Path:
        return self.repo / "objects" / digest.hex[:2] / digest.hex

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Everything there is of one release, to click on."""
        release = await self._release(request)
        named = list(torrents_of(release))
        trackers = await self._trackers(request, named)
        rows = "\n".join(_row(item, trackers[item.ref.digest]) for item in named)
        head = "<tr><th>Torrent</th><th></th><th class=number>Metainfo</th></tr>"
        body = _INTRODUCTION.format(variant=escape(named[0].variant)) if named else ""
        body += f"<p>{format_count(len(named))} torrents.</p>"
        body += f'<div class="card"><table>{head}\n{rows}\n</table></div>'
        title = f"{release.dataset} {release.release}: torrents"
        return web.Response(
            text=render_page(title, body),
            content_type="text/html",
            headers={"Cache-Control": _REVALIDATE},
        )

    async def feed(self, request: web.Request) -> web.StreamResponse:
        """RSS 2.0 with an enclosure for each torrent."""
        release = await self._release(request)
        if _HOST.fullmatch(request.host) is None:
            raise web.HTTPBadRequest
        base = f"{_scheme(request)}://{request.host}/torrents/{release.release}/"
        named = list(torrents_of(release))
        own, items = self._own_tracker(request), ""
        for _, of_set in groupby(named, key=lambda item: (item.layer, item.variant)):
            torrents = list(of_set)
            written = await self._trackers_written(torrents[0].ref.digest)
            added = 0 if written else len(_inserted(own))
            items += "".join(_item(item, base, added) for item in torrents)
        title = escape_xml(f"{release.dataset} {release.release}")
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0"><channel>\n'
            f"<title>{title}</title><link>{escape_xml(base)}</link>"
            f"<description>Torrents of {title}</description>\n{items}</channel></rss>\n"
        )
        return web.Response(
            body=text.encode(),
            headers={"Content-Type": FEED_TYPE, "Cache-Control": _REVALIDATE},
        )

    async def torrent(self, request: web.Request) -> web.StreamResponse:
        """A .torrent; one that names no tracker is given this host's."""
        release = await self._release(request)
        name = request.match_info["name"]
        found = next((item for item in torrents_of(release) if item.file_name == name), None)
        if found is None:
            raise web.HTTPNotFound
        read = await asyncio.to_thread(self._path(found.ref.digest).read_bytes)
        data = with_tracker(read, self._own_tracker(request))
        return web.Response(
            body=data,
            headers={
                "Content-Type": TORRENT_TYPE,
                "Content-Disposition": f'attachment; filename="{name}"',
                "Cache-Control": _REVALIDATE,
            },
        )

    async def info_hashes(self, _: web.Request) -> web.StreamResponse:
        """Every hash that is announced, a line each: what opentracker wants as its whitelist."""
        catalog = await self.watch.current()
        lines = {
            info_hash.hex()
            for layer in catalog.layers.values()
            for torrents in layer.ref.torrents.values()
            for torrent in torrents
            for info_hash in torrent.info_hashes.announced
        }
        return web.Response(
            text="".join(f"{line}\n" for line in sorted(lines)),
            status=HTTPStatus.OK,
            headers={"Cache-Control": _REVALIDATE},
        )


def with_tracker(data: bytes, own: Trackers) -> bytes:
    """A .torrent of ours with a tracker, if it has none; its info dictionary is not touched."""
    if data.startswith(_ANNOUNCE_KEY):
        return data
    return data[:1] + _inserted(own) + data[1:]


def _inserted(own: Trackers) -> bytes:
    """The key and value that name a tracker."""
    if not own:
        return b""
    url = own[0][0].encode()
    return _ANNOUNCE_KEY[1:] + b"%d:" % len(url) + url


def _scheme(request: web.Request) -> str:
    stated = request.headers.get("X-Forwarded-Proto", request.scheme)
    return "https" if stated == "https" else "http"


def _row(item: NamedTorrent, trackers: Trackers) -> str:
    link = magnet(item.ref.info_hashes, name=item.title, trackers=trackers)
    return (
        f'<tr><td><a href="{escape(item.file_name)}">{escape(item.title)}</a></td>'
        f'<td><a href="{escape(link)}">magnet</a></td>'
        f'<td class="number">{format_size(item.ref.size_bytes)}</td></tr>'
    )


def _item(item: NamedTorrent, base: str, added_bytes: int) -> str:
    url = base + item.file_name
    date = format_datetime(datetime.fromtimestamp(item.date, UTC))
    return (
        f"<item><title>{escape_xml(item.title)}</title><link>{escape_xml(url)}</link>"
        f'<guid isPermaLink="false">{item.ref.info_hashes.v2.hex()}</guid>'
        f"<pubDate>{date}</pubDate>"
        f'<enclosure url={quoteattr(url)} length="{item.ref.size_bytes + added_bytes}" '
        f'type="{TORRENT_TYPE}"/></item>\n'
    )
