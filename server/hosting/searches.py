"""Searches over HTTP: ``/api/search`` for scripts, ``/search`` for people.

What a search may cost is in :class:`server.searching.question.SearchLimits` and in
:mod:`server.hosting.parameters`; nothing of it is done in this process.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import orjson
from aiohttp import web
from msgspec import Struct

from manifests.errors import ConfigError, SyncError
from manifests.framedref import FramedRef
from manifests.model import Descriptor
from manifests.query.errors import QueryError
from server.hosting.addresses import Addresses
from server.hosting.catalog import CatalogWatch
from server.hosting.handlers import DAY, REVALIDATE
from server.hosting.lanes import LaneFullError, Lanes
from server.hosting.metrics import Metrics
from server.hosting.parameters import ParameterError, SearchParameters
from server.hosting.ranges import Representation, failed_condition
from server.hosting.searchpage import PAGE_POLICY, PageParameters, search_page
from server.searching.pool import SearchPool
from server.searching.question import (
    Found,
    Question,
    Reason,
    SearchLimits,
    SearchRefusedError,
)

# A query ends within seconds; who asks again sooner only waits.
_RETRY_AFTER_S: Final = 2
_COME_AGAIN: Final = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
_STATUSES: Final[Mapping[Reason, HTTPStatus]] = {
    Reason.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.ADDRESS: HTTPStatus.TOO_MANY_REQUESTS,
    Reason.ENDED: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.GIVEN_UP: HTTPStatus.SERVICE_UNAVAILABLE,
    Reason.TIME: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.MEMORY: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.PARAMETER: HTTPStatus.BAD_REQUEST,
}


class NothingToSearchError(ConfigError):
    """No such release, or one that was published without metadata."""


class Searchable(Struct, frozen=True, kw_only=True):
    """A release with a tag index; ``digest`` is the SHA-256 of its target."""

    digest: str
    release: Descriptor
    index: FramedRef


class SearchHandlers(Struct, frozen=True, kw_only=True):
    """What answers searches on one repository."""

    repo: Path
    watch: CatalogWatch
    pool: SearchPool
    addresses: Addresses
    lanes: Lanes
    metrics: Metrics
    warn: Callable[[str], None]

    def routes(self) -> list[web.RouteDef]:
        """GET (and with it HEAD); the name is the label in the metrics."""
        return [
            web.get("/api/search", self.search, name="search"),
            web.get("/search", self.page, name="search_page"),
        ]

    async def search(self, request: web.Request) -> web.StreamResponse:
        """The ids that match, as JSON."""
        try:
            asked = SearchParameters.read(request.query)
            searched = await self._searchable(asked.release)
            shown = Representation(
                size_bytes=0,
                etag=asked.entity_tag(searched.digest),
                modified=None,
                content_type="application/json",
                cache_control=DAY if asked.release else REVALIDATE,
            )
            headers = {"ETag": f'W/"{shown.etag}"', "Cache-Control": shown.cache_control}
            # What is asked about an answer that is known needs no search.
            if (status := failed_condition(request.headers, shown)) is not None:
                return web.Response(status=status, headers=headers)
            async with self._turn(request):
                found = await self._find(asked, searched)
                response = _json(HTTPStatus.OK, _answer(asked, searched.release, found), headers)
                # Who does not take his answer has no other one made.
                return await _sent(request, response)
        except SyncError as error:
            return self._refusal(request, error)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """A form, and the posts that it found."""
        asked = PageParameters.read(request.query)
        catalog = await self.watch.current()
        release, found, error = None, None, None
        try:
            searched = await self._searchable(asked.release)
            release = searched.release
            if asked.q is not None:
                async with self._turn(request):
                    found = await self._find(asked.search(), searched)
        except SyncError as problem:
            error = problem
        status = HTTPStatus.OK if error is None else self._status(request, error)
        return web.Response(
            status=status,
            text=search_page(catalog, asked, release, found, error),
            content_type="text/html",
            headers={
                "Cache-Control": REVALIDATE,
                "Content-Security-Policy": PAGE_POLICY,
                **_retry_after(status),
            },
        )

    @asynccontextmanager
    async def _turn(self, request: web.Request) -> AsyncIterator[None]:
        """The turn of an address to search; SearchRefusedError if it asks for too much."""
        try:
            async with self.lanes.enter(self.addresses.of(request)):
                yield
        except LaneFullError:
            self.metrics.refuse("searches")
            raise SearchRefusedError(
                Reason.ADDRESS,
                "too many searches of your address at once",
                hint="Ask one after another.",
            ) from None

    async def _searchable(self, name: str) -> Searchable:
        """A release by its name, the newest if it is empty; NothingToSearchError."""
        if name:
            # Its layer has its name; one that is not known yet is looked for at once.
            await self.watch.layer(name)
        catalog = await self.watch.current()
        if not name and catalog.releases:
            name = catalog.releases[-1].release
        for digest, release in catalog.descriptors.items():
            if release.release == name:
                return _with_index(digest, release)
        message = f"no release is called {name[:64]!r}" if name else "nothing is published yet"
        known = ", ".join(release.release for release in catalog.releases)
        raise NothingToSearchError(message, hint=f"Releases: {known or 'none'}.")

    async def _find(self, asked: SearchParameters, searched: Searchable) -> Found:
        digest = searched.index.digest.hex
        question = Question(
            path=os.fspath(self.repo / "objects" / digest[:2] / digest),
            index=searched.index,
            created=searched.release.created,
            query=asked.q,
            zone=asked.tz,
            seed=asked.seed,
            after=asked.after,
            limit=asked.limit,
        )
        return await self.pool.ask(question)

    def _refusal(self, request: web.Request, error: SyncError) -> web.Response:
        status = self._status(request, error)
        headers = {"Cache-Control": REVALIDATE, **_retry_after(status)}
        return _json(status, _explanation(error, status), headers)

    def _status(self, request: web.Request, error: SyncError) -> HTTPStatus:
        """The status that an error is answered with; the host's own troubles are logged."""
        match error:
            case QueryError():
                return HTTPStatus.BAD_REQUEST
            case ParameterError():
                return error.status
            case NothingToSearchError():
                return HTTPStatus.NOT_FOUND
            case SearchRefusedError():
                status = _STATUSES[error.reason]
            case _:
                status = HTTPStatus.INTERNAL_SERVER_ERROR
        if status is HTTPStatus.INTERNAL_SERVER_ERROR or _is_host_trouble(error):
            self.warn(f"{request.path}: {status.value}: {error}")
        return status


def lanes_of(limits: SearchLimits) -> Lanes:
    """The lanes in which addresses wait for their turn to search."""
    return Lanes(
        at_once=limits.address_at_once, waiting=limits.address_waiting, wait_s=limits.wait_s
    )


async def _sent(request: web.Request, response: web.Response) -> web.Response:
    """An answer that its client has taken, but for what a socket holds."""
    with suppress(ConnectionError):
        await response.prepare(request)
        await response.write_eof()
    return response


def _with_index(digest: str, release: Descriptor) -> Searchable:
    if release.tag_index is None:
        raise NothingToSearchError(
            f"{release.release} was published without metadata, so nothing can be searched"
        )
    return Searchable(digest=digest, release=release, index=release.tag_index)


def _is_host_trouble(error: SyncError) -> bool:
    return isinstance(error, SearchRefusedError) and error.reason is Reason.ENDED


def _retry_after(status: HTTPStatus) -> dict[str, str]:
    return {"Retry-After": str(_RETRY_AFTER_S)} if status in _COME_AGAIN else {}


def _answer(asked: SearchParameters, release: Descriptor, found: Found) -> dict[str, Any]:
    fields: dict[str, Any] = {"release": release.release, "count": found.count}
    if not asked.count:
        ids = found.ids.tolist()
        following = None if found.is_last else asked.next_page(release.release, ids[-1])
        fields |= {"ids": ids, "next": following}
    return fields | {"seconds": round(found.seconds, 6)}


def _explanation(error: SyncError, status: HTTPStatus) -> dict[str, Any]:
    """An error as a script reads it: a word for its sort, where it is, and what people read."""
    told = {"message": error.message, "hint": error.hint}
    match error:
        case QueryError():
            place = {"position": error.position, "expected": error.expected, "got": error.got}
            return {"error": "query", **place, **told}
        case ParameterError():
            return {"error": "parameter", "parameter": error.parameter, **told}
        case SearchRefusedError(reason=Reason.PARAMETER):
            return {"error": "parameter", "parameter": error.parameter, **told}
        case SearchRefusedError():
            return {"error": error.reason.value, **told}
        case NothingToSearchError():
            return {"error": "not_found", **told}
    # What ails the repository is for the log; paths of this machine are nobody else's affair.
    return {"error": "internal", "message": f"{status.value} {status.phrase}", "hint": ""}


def _json(status: HTTPStatus, fields: dict[str, Any], headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=status,
        body=orjson.dumps(fields) + b"\n",
        content_type="application/json",
        headers=headers,
    )
