"""Thin handlers: a URL to what lies there, and what lies there to an answer.

Every path of the repository is built from parts that a route's pattern or a parser has accepted,
so no request can name anything else: not ``.publish``, not a dot file, not what lies beside REPO.
"""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web
from msgspec import Struct

from manifests.model import Descriptor
from server.hosting.catalog import CatalogWatch, ServedLayer
from server.hosting.documents import read_document
from server.hosting.joined import StaleFilesError
from server.hosting.metrics import CONTENT_TYPE as METRICS_TYPE
from server.hosting.metrics import Metrics, render_metrics
from server.hosting.packs import Pack, PackShelf
from server.hosting.pages import front_page
from server.hosting.places import (
    BINARY,
    IMMUTABLE,
    NAME,
    FoundFiles,
    found_file,
    found_pack,
)
from server.hosting.ranges import Representation, boundary_for, plan_reply
from server.hosting.sending import Sender

# Versions of signed metadata do not change either, but one that a killed run left is written over.
SHORT: Final = "public, max-age=60"
# What follows from a release, which never changes, by code that may be mended.
DAY: Final = "public, max-age=86400"
REVALIDATE: Final = "no-cache"


class Handlers(Struct, frozen=True, kw_only=True):
    """What answers requests for one repository."""

    repo: Path
    watch: CatalogWatch
    shelf: PackShelf
    sender: Sender
    counters: Metrics

    def routes(self) -> list[web.RouteDef]:
        """GET (and with it HEAD) of everything there is; the name is the label in the metrics."""
        entry = f"{{layer:{NAME}}}/{{variant:{NAME}}}/{{bucket:[0-9]{{1,9}}}}"
        return [
            web.get("/", self.page, name="page"),
            web.get("/healthz", self.health, name="health"),
            web.get("/metrics", self.metrics, name="metrics"),
            web.get(f"/tuf/metadata/{{name:{NAME}\\.json}}", self.metadata, name="metadata"),
            web.get(f"/tuf/targets/{{name:{NAME}}}", self.target, name="targets"),
            web.get(
                "/objects/{prefix:[0-9a-f]{2}}/{digest:[0-9a-f]{64}}", self.blob, name="objects"
            ),
            web.get(f"/files/{entry}/{{name:{NAME}}}", self.loose_file, name="files"),
            web.get(f"/packs/{entry}", self.pack, name="packs"),
            web.get(
                f"/entries/{{release:{NAME}}}/{{variant:{NAME}}}/{{id:[1-9][0-9]{{0,9}}}}",
                self.entry,
                name="entries",
            ),
        ]

    async def metadata(self, request: web.Request) -> web.StreamResponse:
        """Signed metadata; of it only timestamp.json is ever replaced."""
        name = request.match_info["name"]
        path = self.repo / "tuf" / "metadata" / name
        cache_control = REVALIDATE if name == "timestamp.json" else SHORT
        return await self._document(request, path, cache_control, content_type="application/json")

    async def target(self, request: web.Request) -> web.StreamResponse:
        """A signed target, named by its SHA-256."""
        path = self.repo / "tuf" / "targets" / request.match_info["name"]
        return await self._document(request, path, IMMUTABLE)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        """An object, named by its BLAKE3, which is also its entity tag."""
        prefix, digest = request.match_info["prefix"], request.match_info["digest"]
        if not digest.startswith(prefix):
            raise web.HTTPNotFound
        path = self.repo / "objects" / prefix / digest
        return await self._document(request, path, IMMUTABLE, etag=digest)

    async def _document(
        self,
        request: web.Request,
        path: Path,
        cache_control: str,
        *,
        content_type: str = BINARY,
        etag: str = "",
    ) -> web.StreamResponse:
        """A whole file of the repository; one that may be replaced has no date to rely on."""
        document = await self.sender.run(read_document, path)
        if document is None:
            raise web.HTTPNotFound
        shown = Representation(
            size_bytes=document.stat.size_bytes,
            etag=etag or f"{document.stat.mtime_ns:x}-{document.stat.size_bytes:x}",
            modified=None if cache_control == REVALIDATE else document.stat.mtime_ns // 10**9,
            content_type=content_type,
            cache_control=cache_control,
        )
        reply = plan_reply(request.method, request.headers, shown, boundary_for(request.headers))
        if document.data is not None:
            return await self.sender.answer(request, reply, document.data)
        return await self.sender.send(request, reply, document.joined())

    async def loose_file(self, request: web.Request) -> web.StreamResponse:
        """One entry of a layer."""
        found = found_file(*await self._pack(request), request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return await self._send(request, found)

    async def pack(self, request: web.Request) -> web.StreamResponse:
        """All files of a bucket, one after another: from a pack on disk, or from the files."""
        layer, pack = await self._pack(request)
        found = found_pack(layer, pack)
        if found is None:
            raise web.HTTPNotFound
        if pack.on_disk is not None:
            with contextlib.suppress(StaleFilesError):
                return await self._send(request, found)
        return await self._send(request, FoundFiles(found.shown, pack.files))

    async def _send(self, request: web.Request, found: FoundFiles) -> web.StreamResponse:
        boundary = boundary_for(request.headers)
        reply = plan_reply(request.method, request.headers, found.shown, boundary)
        return await self.sender.send(request, reply, found.files)

    async def entry(self, request: web.Request) -> web.StreamResponse:
        """Where the file of a post lies: in the layer that put it last."""
        info = request.match_info
        await self.watch.layer(info["release"])
        catalog = await self.watch.current()
        named = [item for item in catalog.releases if item.release == info["release"]]
        place = await self._place(named[0], info["variant"], int(info["id"])) if named else None
        if place is None:
            raise web.HTTPNotFound
        return web.Response(
            status=HTTPStatus.FOUND,
            # Relative, so that it holds below whatever path a proxy serves this host.
            headers={"Location": f"../../../files/{place}", "Cache-Control": DAY},
        )

    async def _place(self, release: Descriptor, variant: str, post_id: int) -> str | None:
        """LAYER/VARIANT/BUCKET/ID.EXT of a post's file; None if the release has none."""
        bucket = release.layout.bucket_of(post_id)
        for ref in reversed(release.layers):
            if variant in ref.manifests:
                layer = ServedLayer(ref=ref, layout=release.layout)
                pack = await self.shelf.pack(layer, variant, bucket)
                if (name := pack.name_of(post_id)) is not None:
                    return f"{ref.name}/{variant}/{release.layout.bucket_name(bucket)}/{name}"
                if post_id in pack.removed:
                    return None
        return None

    async def _pack(self, request: web.Request) -> tuple[ServedLayer, Pack]:
        """The layer and the bucket that a URL names, which may have no entry."""
        info = request.match_info
        layer = await self.watch.layer(info["layer"])
        if layer is None or info["variant"] not in layer.ref.manifests:
            raise web.HTTPNotFound
        bucket = layer.layout.parse_bucket(info["bucket"])
        if bucket is None:
            raise web.HTTPNotFound
        return layer, await self.shelf.pack(layer, info["variant"], bucket)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """What this is and how to get it, for people."""
        catalog = await self.watch.current()
        scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
        url = f"{scheme if scheme == 'https' else 'http'}://{request.host}"
        return web.Response(
            text=front_page(catalog, url),
            content_type="text/html",
            headers={"Cache-Control": REVALIDATE},
        )

    async def health(self, _: web.Request) -> web.StreamResponse:
        """Whether releases can be served, for load balancers."""
        catalog = await self.watch.current()
        releases = catalog.releases
        fields = {
            "status": self.watch.problem or "ok",
            "releases": len(releases),
            "newest": releases[-1].release if releases else None,
            "expires": catalog.expires.isoformat(),
        }
        return web.Response(
            status=HTTPStatus.SERVICE_UNAVAILABLE if self.watch.problem else HTTPStatus.OK,
            body=orjson.dumps(fields),
            content_type="application/json",
            headers={"Cache-Control": REVALIDATE},
        )

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        """Counters for Prometheus."""
        text = render_metrics(self.counters, self.shelf, await self.watch.current())
        return web.Response(
            body=text.encode(),
            headers={"Content-Type": METRICS_TYPE, "Cache-Control": REVALIDATE},
        )
