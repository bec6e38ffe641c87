"""``serve REPO``: put a repository on the network until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.http_exceptions import HttpProcessingError

from manifests.errors import ExitCode, SyncError
from manifests.units import format_count, format_duration, format_size
from server.hosting.addresses import Addresses
from server.hosting.app import DIRECT, METRICS, ServeConfig, make_app
from server.hosting.connections import Connection
from server.hosting.gate import ConnectionLimits, Gate
from server.hosting.metrics import Metrics
from server.tracking.swarms import TrackerLimits
from syncclient.output import Output

# How long an answer under way may go on after a signal to stop.
SHUTDOWN_S: Final = 5.0
BACKLOG: Final = 1024
# Each has a socket before its turn comes to be let in or turned away.
ACCEPTED_AT_ONCE: Final = 64
# A connection may have its socket open twice.
FILES_PER_CONNECTION: Final = 2
# A folder and a file for each thread that reads, what searches need, and what Python has open.
FILES_BESIDES: Final = 128
# Between two lines of the log about connections that could not be accepted.
_QUIET_S: Final = 10.0
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """``serve`` and its flags."""
    parser = verbs.add_parser(
        "serve",
        help="serve a repository over HTTP",
        description="Serve a repository over HTTP. Only reads it, notices new releases by itself, "
        "and stops cleanly on Ctrl-C or SIGTERM.",
    )
    parser.add_argument("repo", type=Path, metavar="REPO", help="folder of the repository")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port",
        type=port,
        default=8080,
        help="port to listen on; 0 picks a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--max-connections",
        type=count,
        default=ConnectionLimits().total,
        metavar="N",
        help="answer further connections with 503 (default: %(default)s)",
    )
    parser.add_argument(
        "--max-connections-per-address",
        type=count,
        default=ConnectionLimits().address,
        metavar="N",
        help="answer further ones of an address, or of an IPv6 /64, with 429 "
        "(default: %(default)s)",
    )
    parser.add_argument("--no-tracker", action="store_true", help="answer no BitTorrent announces")
    parser.add_argument(
        "--announce-interval",
        type=count,
        default=TrackerLimits().interval_s,
        metavar="SECONDS",
        help="when peers are to announce again (default: %(default)s)",
    )
    parser.add_argument(
        "--trusted-proxy",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="take the addresses of clients from this proxy's X-Forwarded-For (repeatable)",
    )
    parser.set_defaults(run=run)


def port(text: str) -> int:
    """A number that TCP has; argparse shows this function's name."""
    number = int(text)
    if not 0 <= number <= 65535:  # noqa: PLR2004 (16 bits)
        raise argparse.ArgumentTypeError("expected 0 to 65535")
    return number


def count(text: str) -> int:
    """A positive number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected at least 1")
    return number


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Serve until SIGTERM or SIGINT; both end it with exit code 0."""
    tracker = None if args.no_tracker else TrackerLimits(interval_s=args.announce_interval)
    proxies = frozenset(args.trusted_proxy)
    limits = ConnectionLimits(
        total=_connections(args.max_connections), address=args.max_connections_per_address
    )
    app = make_app(
        ServeConfig(
            repo=args.repo,
            warn=out.warn,
            tracker=tracker,
            proxies=proxies,
        )
    )
    metrics = app[METRICS]
    gate = Gate(limits, Addresses(proxies), metrics)
    started_at = time.monotonic()
    asyncio.run(_serve(app, gate, args, out))
    seconds = time.monotonic() - started_at
    out.summary(
        requests=metrics.total_requests,
        bytes_sent=metrics.sent_bytes,
        files_refused=metrics.refused_files,
        seconds=round(seconds, 3),
    )
    counts = f"{format_count(metrics.total_requests)} requests, {format_size(metrics.sent_bytes)}"
    out.say(f"Stopped after {format_duration(seconds)}: {counts} sent.")
    return ExitCode.COMPLETE


async def _serve(app: web.Application, gate: Gate, args: argparse.Namespace, out: Output) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_Trouble(gate.metrics, out).handle)
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        app,
        # Who goes away ends what was done for him: a search above all.
        handler_cancellation=True,
        # aiohttp grants it twice: to finish, and then to be cancelled.
        shutdown_timeout=SHUTDOWN_S / 2,
    )
    await runner.setup()
    try:
        listener = await _listen(runner, gate, args, out)
        url = _url(listener.sockets[0])
        out.event("listening", url=url)
        out.say(f"Serving {args.repo} at {url} (Ctrl-C stops it)")
        if gate.limits.total < args.max_connections:
            out.warn(
                f"{gate.limits.total} connections instead of {args.max_connections}: "
                "this process may not open more files"
            )
        async with gate.watching():
            await stop.wait()
        for number in _STOP_SIGNALS:  # a second one does not wait
            loop.remove_signal_handler(number)
        listener.close()
    finally:
        await runner.cleanup()


def _connection_settings(out: Output) -> dict[str, Any]:
    """What aiohttp is told of each connection beside its limits."""
    logger = logging.getLogger("bucketsync.http")
    logger.handlers = [_ProblemLog(out)]
    logger.propagate = False
    if out.verbosity > 0:
        return {
            "logger": logger,
            "access_log": logger,
            "access_log_class": _access_log(out),
        }
    return {"logger": logger, "access_log": None}


async def _listen(
    runner: web.AppRunner, gate: Gate, args: argparse.Namespace, out: Output
) -> asyncio.Server:
    """Accept connections; one above the limits is told to come back later."""
    loop = asyncio.get_running_loop()
    server = runner.server
    if server is None:
        raise SyncError("the application has not been set up")
    settings = _connection_settings(out)
    # aiohttp alone writes a line for each request.
    direct = None if out.verbosity > 0 else runner.app[DIRECT]

    def door() -> asyncio.Protocol:
        return gate.door(lambda guest: Connection(server, guest, direct, **settings))

    try:
        listener = await loop.create_server(door, args.host, args.port, backlog=ACCEPTED_AT_ONCE)
    except OSError as error:
        raise SyncError(
            f"cannot listen on {args.host}:{args.port}: {error.strerror or error}",
            hint="Choose another address with --host or --port.",
            exit_code=ExitCode.NETWORK,
        ) from error
    for listening in listener.sockets:
        # More may wait in the system than asyncio accepts in one turn of its loop.
        with socket.socket(fileno=os.dup(listening.fileno())) as queue:
            queue.listen(BACKLOG)
    return listener


class _Trouble:
    """What the event loop cannot help: in one line, and of what repeats itself not every one."""

    def __init__(self, metrics: Metrics, out: Output) -> None:
        self._metrics = metrics
        self._out = out
        self._quiet_until_s = 0.0

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Called by asyncio; where files are all in use, it accepts again after a second."""
        error = context.get("exception")
        if isinstance(error, OSError):
            self._metrics.refuse("open_files")
            if loop.time() < self._quiet_until_s:
                return
            self._quiet_until_s = loop.time() + _QUIET_S
        self._out.warn(f"{context['message']}: {error}" if error else context["message"])


class _ProblemLog(logging.Handler):
    """What aiohttp logs, in one line; requests that are no HTTP are worth a word with -v only."""

    def __init__(self, out: Output) -> None:
        super().__init__(logging.INFO)
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        say = self._out.detail if isinstance(cause, HttpProcessingError) else self._out.warn
        about = f": {type(cause).__name__}: {' '.join(str(cause).split())}" if cause else ""
        say(record.getMessage() + about)


def _access_log(out: Output) -> type[AbstractAccessLogger]:
    """One line a request: who, what, status, bytes of the body, milliseconds."""

    class AccessLog(AbstractAccessLogger):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            out.detail(
                f'{request.remote} "{request.method} {request.raw_path}" {response.status} '
                f"{response.headers.get('Content-Length', '-')} {time * 1000:.1f} ms"
            )

    return AccessLog


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _connections(wanted: int) -> int:
    """How many connections there are files for; the limit of files is raised as far as we may."""
    limits = ConnectionLimits()
    besides = FILES_BESIDES + ACCEPTED_AT_ONCE + limits.turned_away
    files = _allow_open_files(wanted * FILES_PER_CONNECTION + besides)
    return min(wanted, max(1, (files - besides) // FILES_PER_CONNECTION))


def _allow_open_files(wanted: int) -> int:
    """Raise the soft limit of open files as far as the system lets us: what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    goal = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < goal:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (goal, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else soft
