"""What a host counts, and its text for Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct, field

from server.hosting.catalog import Catalog
from server.hosting.packs import PackShelf
from server.tracking.swarms import Swarms

# Counted where a client did not wait for its answer; no standard has a number, nginx has this one.
WENT_AWAY: Final = 499
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics(Struct, kw_only=True):
    """Counters since the start; changed by the event loop alone."""

    started_at: float = field(default_factory=time.time)
    in_flight: int = 0
    sent_bytes: int = 0
    refused_files: int = 0
    cut_answers: int = 0
    connections: int = 0
    tracker: Swarms | None = None
    requests: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    refusals: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def refuse(self, reason: str) -> None:
        """Somebody was refused, or cut off, to keep a limit."""
        self.refusals[reason] += 1

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request that was answered."""
        self.requests[route, status] += 1
        self.seconds[route] += seconds

    @property
    def total_requests(self) -> int:
        """All requests that were answered."""
        return sum(self.requests.values())


def render_metrics(metrics: Metrics, shelf: PackShelf, catalog: Catalog) -> str:
    """All families, each with its help and type."""
    return "".join(line + "\n" for line in _lines(metrics, shelf, catalog))


def _lines(metrics: Metrics, shelf: PackShelf, catalog: Catalog) -> Iterator[str]:
    answered = [
        (f'route="{route}",status="{status}"', count)
        for (route, status), count in sorted(metrics.requests.items())
    ]
    spent = [(f'route="{route}"', value) for route, value in sorted(metrics.seconds.items())]
    refused = [(f'reason="{reason}"', n) for reason, n in sorted(metrics.refusals.items())]
    yield from _family("http_requests_total", "counter", "Requests answered.", answered)
    yield from _family("http_seconds_total", "counter", "Time spent answering.", spent)
    yield from _family("refusals_total", "counter", "Refused to keep a limit.", refused)
    plain: tuple[tuple[str, str, str, float], ...] = (
        ("http_in_flight", "gauge", "Requests being answered.", metrics.in_flight),
        ("http_connections", "gauge", "Connections that are served.", metrics.connections),
        ("sent_bytes_total", "counter", "Bytes of bodies read and sent.", metrics.sent_bytes),
        (
            "refused_files_total",
            "counter",
            "Files that were no longer what was published (410).",
            metrics.refused_files,
        ),
        ("cut_answers_total", "counter", "Answers that were cut off.", metrics.cut_answers),
        ("pack_index_hits_total", "counter", "Buckets found in memory.", shelf.hits),
        ("pack_index_misses_total", "counter", "Buckets read from manifests.", shelf.misses),
        ("pack_index_bytes", "gauge", "Memory of the buckets kept.", shelf.held_bytes),
        ("releases", "gauge", "Releases served.", len(catalog.descriptors)),
        (
            "metadata_expires_timestamp_seconds",
            "gauge",
            "When the first signature expires; refresh before.",
            catalog.expires.timestamp(),
        ),
        (
            "start_timestamp_seconds",
            "gauge",
            "When this process began to serve.",
            metrics.started_at,
        ),
    )
    if metrics.tracker is not None:
        tracked = metrics.tracker
        plain += (
            ("tracker_swarms", "gauge", "Torrents that somebody is in.", len(tracked)),
            ("tracker_peers", "gauge", "Peers, counted in each torrent.", tracked.peers),
        )
    for name, kind, text, value in plain:
        yield from _family(name, kind, text, [("", value)])


def _family(
    name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]
) -> Iterator[str]:
    yield f"# HELP bucketsync_{name} {text}"
    yield f"# TYPE bucketsync_{name} {kind}"
    for labels, value in samples:
        yield f"bucketsync_{name}{{{labels}}} {value}" if labels else f"bucketsync_{name} {value}"
