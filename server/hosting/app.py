"""The web application of one repository: parts put together, and errors turned into answers."""

from __future__ import annotations

import asyncio
import errno
import mimetypes
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from msgspec import Struct, field

from manifests.errors import SyncError
from manifests.paths import parse_entry_name
from manifests.torrents.announce import MAX_ANNOUNCEMENT_BYTES
from server.hosting.addresses import Addresses
from server.hosting.catalog import CatalogWatch
from server.hosting.direct import Direct
from server.hosting.handlers import REVALIDATE, Handlers
from server.hosting.heads import SAFETY
from server.hosting.joined import StaleFilesError
from server.hosting.metrics import WENT_AWAY, Metrics
from server.hosting.packs import DEFAULT_CACHE_BYTES, PackReader, PackShelf
from server.hosting.readers import Readers
from server.hosting.searches import SearchHandlers, lanes_of
from server.hosting.sending import STALL_S, Sender
from server.hosting.torrents import TorrentHandlers
from server.searching.pool import SearchPool
from server.searching.question import SearchLimits
from server.tracking.handlers import Tracker
from server.tracking.swarms import Swarms, TrackerLimits

METRICS: Final = web.AppKey("metrics", Metrics)
DIRECT: Final = web.AppKey("direct", Direct)
# Reads wait for disks, not for processors: enough to keep an array of disks busy.
_THREADS_PER_CPU: Final = 4
_MAX_THREADS: Final = 32
# Two for each processor: one that waits for the disk lets another one work.
_READERS_PER_CPU: Final = 2
_MAX_READERS: Final = 16
# What is short for a moment, and not broken.
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_RETRY_AFTER: Final = {"Retry-After": "2"}


class ServeConfig(Struct, frozen=True, kw_only=True):
    """What to serve and how.

    ``warn`` takes one line about a request that could not be answered as it should.  A client that
    takes nothing for ``stall_s`` is cut off.  ``cache_bytes`` bounds the memory for decoded
    buckets, ``threads`` and ``readers`` how many threads and processes read at once, ``search``
    what searches may cost.
    ``proxies`` are addresses of proxies in front, whose word for a client's address is taken.
    """

    repo: Path
    warn: Callable[[str], None]
    stall_s: float = STALL_S
    cache_bytes: int = DEFAULT_CACHE_BYTES
    threads: int = min(_MAX_THREADS, _THREADS_PER_CPU * (os.cpu_count() or 1))
    readers: int = min(_MAX_READERS, _READERS_PER_CPU * (os.cpu_count() or 1))
    search: SearchLimits = field(default_factory=SearchLimits)
    # None serves without a tracker.
    tracker: TrackerLimits | None = field(default_factory=TrackerLimits)
    proxies: frozenset[str] = frozenset()


def make_app(config: ServeConfig) -> web.Application:
    """The application; its start reads the repository and raises ConfigError if it is none.

    It speaks plain HTTP: TLS is the work of a proxy in front.
    """
    metrics = Metrics()
    addresses = Addresses(config.proxies)
    executor = ThreadPoolExecutor(config.threads, thread_name_prefix="read")
    readers = Readers(config.readers)
    watch = CatalogWatch(config.repo, executor, config.warn)
    shelf = PackShelf(PackReader(config.repo), executor, config.cache_bytes)
    sender = Sender(executor, readers, metrics, config.warn, config.stall_s)
    handlers = Handlers(
        repo=config.repo, watch=watch, shelf=shelf, sender=sender, counters=metrics
    )
    pool = SearchPool(config.search)
    searches = SearchHandlers(
        repo=config.repo,
        watch=watch,
        pool=pool,
        addresses=addresses,
        lanes=lanes_of(config.search),
        metrics=metrics,
        warn=config.warn,
    )
    torrents = TorrentHandlers(repo=config.repo, watch=watch, tracks=config.tracker is not None)

    async def lifetime(_: web.Application) -> AsyncIterator[None]:
        mimetypes.init()
        try:
            await watch.start()
            yield
        finally:
            await pool.close()
            await readers.close()
            executor.shutdown(cancel_futures=True)

    app = web.Application(
        middlewares=[_counting(metrics), _answering_errors(metrics, config.warn)],
        # Nothing longer is posted to any URL.
        client_max_size=MAX_ANNOUNCEMENT_BYTES + 1,
    )
    app[METRICS] = metrics
    app[DIRECT] = Direct(watch, shelf, sender, readers, metrics)
    app.cleanup_ctx.append(lifetime)
    app.on_response_prepare.append(_add_safety)
    app.add_routes([*handlers.routes(), *searches.routes(), *torrents.routes()])
    if config.tracker is not None:
        tracker = Tracker(watch, Swarms(config.tracker), addresses, metrics)
        metrics.tracker = tracker.swarms
        app.add_routes(tracker.routes())
    return app


async def _add_safety(_: web.Request, response: web.StreamResponse) -> None:
    """A page may have a policy of its own; the server's name is ours whatever aiohttp wrote."""
    own = response.headers.get("Content-Security-Policy")
    response.headers.update(SAFETY)
    if own is not None:
        response.headers["Content-Security-Policy"] = own


def _counting(metrics: Metrics) -> Middleware:
    """Count every request by the name of its route and its status."""

    @web.middleware
    async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_at = time.perf_counter()
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
        metrics.in_flight += 1
        try:
            response = await handler(request)
            status = response.status
        except asyncio.CancelledError:
            status = WENT_AWAY
            raise
        finally:
            metrics.in_flight -= 1
            resource = request.match_info.route.resource
            name = (resource.name if resource else None) or "none"
            metrics.count(name, status, time.perf_counter() - started_at)
        return response

    return count


def _answering_errors(metrics: Metrics, warn: Callable[[str], None]) -> Middleware:
    """Turn errors into answers, with one line each in the log where a host must act."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            allow = {name: error.headers[name] for name in ("Allow",) if name in error.headers}
            return _plain(HTTPStatus(error.status), allow)
        except StaleFilesError as error:
            metrics.refused_files += error.count
            warn(f"{request.path}: 410: {error}")
            return _gone(error)
        except (SyncError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _EXHAUSTED:
                metrics.refuse("open_files")
                return _plain(HTTPStatus.SERVICE_UNAVAILABLE, _RETRY_AFTER)
            warn(f"{request.path}: 500: {error}")
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, {})

    return answer


def _plain(status: HTTPStatus, headers: dict[str, str]) -> web.Response:
    return web.Response(
        status=status,
        text=f"{status.value} {status.phrase}\n",
        headers={**headers, "Cache-Control": REVALIDATE},
    )


def _gone(error: StaleFilesError) -> web.Response:
    """410: which files of a request are not what was published, for a client to plan anew."""
    named = [parse_entry_name(name) for name in error.names]
    fields = {
        "error": "gone",
        "message": "these files are no longer what was published",
        "ids": [found[0] for found in named if found],
        "count": error.count,
    }
    return web.Response(
        status=HTTPStatus.GONE,
        body=orjson.dumps(fields) + b"\n",
        content_type="application/json",
        headers={"Cache-Control": REVALIDATE},
    )
