"""All jobs of the benchmark, by name, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tests.bench.contest import Contest
from tests.bench.jobs import far, fetching, growth, large, load, publishing, standing, torrent
from tests.bench.world import World

Job = Callable[[World], Iterator[Contest]]

JOBS: Mapping[str, Job] = {
    "full": fetching.full,
    "incremental": fetching.incremental,
    "subset": fetching.subset,
    "query": fetching.query,
    "noop": standing.noop,
    "verify": standing.verify,
    "publish": publishing.publish,
    "large": large.large,
    "load": load.load,
    "torrent": torrent.torrent,
    "entries": growth.entries,
    "growth": growth.growth,
    "far": far.far,
}
# Those that take too long for a quick look.
LONG = ("torrent", "entries", "growth", "far")
