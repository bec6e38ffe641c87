"""What rows of metadata cost: by size of frame, to store, to fetch a few, to make a file of all.

    python -m tests.bench.metadata_rows [POSTS]

Lines look like those of 2021; five million are extrapolated from POSTS (100,000 unless given).
"""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from manifests.metadata import rowfile
from manifests.metadata.rowfile import POSTS, cut_frames, encode_frames
from manifests.metadata.rows import parse_block
from manifests.model import TableRef
from manifests.paths import Layout
from server.publishing.crew import Crew
from server.publishing.rowtables import RowTables
from server.repository import Repository
from syncclient.hosts import Hosts
from syncclient.places import Places
from syncclient.rowfiles import RowFiles, row_file
from syncclient.sources.host import HttpOptions
from syncclient.state import State
from tests.support.rawhost import raw_host

_BLOCK_POSTS = 1000
_ALL_POSTS = 5_000_000
_WANTED = 1000
# Bytes of a frame in a compressed header: nearly all are its digest.
_HEADER_BYTES = 38


class Lines:
    """Lines of posts, always the same for an id."""

    def __init__(self) -> None:
        source = random.Random(1)  # noqa: S311 (test data)
        self._tags = [f"tag_{source.randrange(10**6)}_{number}" for number in range(50_000)]

    def __call__(self, post_id: int) -> bytes:
        source = random.Random(post_id)  # noqa: S311
        ranks = np.random.default_rng(post_id).zipf(1.3, 30) % len(self._tags)
        tags = " ".join(self._tags[rank] for rank in ranks.tolist())
        md5 = f"{source.getrandbits(128):032x}"
        row = {
            "id": str(post_id),
            "created_at": f"2021-03-04 03:37:{post_id % 60:02}.{source.randrange(10**6)} UTC",
            "uploader_id": str(source.randrange(10**6)),
            "score": str(source.randrange(100)),
            "source": f"https://i.example.net/img/2020/{source.randrange(10**9)}_p0.png",
            "md5": md5,
            "rating": "s",
            "image_width": str(source.randrange(4000)),
            "image_height": str(source.randrange(4000)),
            "tag_string": tags,
            "fav_count": str(source.randrange(100)),
            "file_ext": "png",
            "file_size": str(source.randrange(10**7)),
            "is_pending": False,
            "is_flagged": False,
            "is_deleted": False,
            "updated_at": "2021-12-24 02:56:54.40674 UTC",
            "is_banned": False,
            "tag_string_general": tags,
            "large_file_url": f"https://data.example.net/{md5}.png",
        }
        return orjson.dumps(row)


def frame_sizes(lines: Lines) -> None:
    """What a frame's size means for an object of all posts."""
    rows = [(post_id, lines(post_id)) for post_id in range(1, 20_001)]
    for kib in (16, 32, 64, 128):
        rowfile.FRAME_TEXT_BYTES = kib * 2**10
        frames = list(cut_frames(rows))
        stored = sum(map(len, encode_frames(frames)))
        count = len(frames) * _ALL_POSTS // len(rows)
        header = count * _HEADER_BYTES
        asked = count * (1 - (1 - 1 / count) ** _WANTED) * stored / len(frames)
        print(
            f"{kib:4} KiB: frames {stored / len(rows) * _ALL_POSTS / 1e9:.2f} GB, header "
            f"{header / 1e6:.1f} MB, {_WANTED:,} posts {(header + asked) / 1e6:.1f} MB"
        )
    rowfile.FRAME_TEXT_BYTES = 64 * 2**10


def blocks(lines: Lines, posts: int) -> Iterator[bytes]:
    """Blocks of lines in no order of ids."""
    order = (np.random.default_rng(1).permutation(posts) + 1).tolist()
    for first in range(0, posts, _BLOCK_POSTS):
        yield b"".join(lines(n) + b"\n" for n in order[first : first + _BLOCK_POSTS])


def store(repo: Path, posts: int) -> TableRef:
    """Publish the table."""
    taken_s, text_bytes = 0.0, 0
    with Crew(2) as crew, RowTables(Repository(root=repo)) as tables:
        for block in blocks(Lines(), posts):
            batch, _ = parse_block(block, "posts.json", 1)
            text_bytes += len(block)
            began_s = time.perf_counter()
            tables.add_posts(block, batch)
            taken_s += time.perf_counter() - began_s
        began_s = time.perf_counter()
        (table,) = tables.store(crew)
        stored_s = time.perf_counter() - began_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{posts:,} lines, {text_bytes / 1e6:.0f} MB: taken in at {posts / taken_s:,.0f}/s, "
        f"stored at {posts / stored_s:,.0f}/s, together {posts / (taken_s + stored_s):,.0f}/s; "
        f"{table.ref.size_bytes / 1e6:.1f} MB; peak {peak:.0f} MB"
    )
    return table


async def fetch(repo: Path, table: TableRef) -> None:
    """Make files of a few rows and of all."""
    state = State(repo / "state.db", print)
    places = Places(tree=repo / "tree", layout=Layout(buckets=1000, digits=4))
    files = RowFiles(cache=repo / "cache", places=places, state=state, run="r", mtime_ns=10**18)
    chosen = np.random.default_rng(2).choice(table.rows, _WANTED, replace=False) + 1
    with raw_host(repo) as host:
        async with Hosts([host.url], HttpOptions(), 1) as hosts:
            for name, keys in (("some", np.sort(chosen).astype(np.uint32)), ("all", None)):
                file, sent = row_file(name, table, keys if table.name == POSTS else None), 0
                began_s, before = time.perf_counter(), host.sent_bytes
                await files.fetch(hosts, file)
                sent, fetched_s = host.sent_bytes - before, time.perf_counter()
                size, _ = await asyncio.to_thread(files.make, file, None, lambda _: None)
                made_s = time.perf_counter() - fetched_s
                print(
                    f"{name}: {sent / 1e6:.1f} MB in {fetched_s - began_s:.2f} s, written "
                    f"{size / 1e6:.1f} MB in {made_s:.2f} s"
                )
    state.close()


def main() -> None:
    """Print the figures."""
    posts = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    frame_sizes(Lines())
    with tempfile.TemporaryDirectory() as folder:
        table = store(Path(folder), posts)
        asyncio.run(fetch(Path(folder), table))


if __name__ == "__main__":
    main()
