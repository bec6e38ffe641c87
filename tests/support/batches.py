"""Pieces of work for workers: files of an edition, bucket by bucket, as the driver cuts them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from itertools import accumulate
from pathlib import Path

from manifests.columns import CHUNK_BYTES
from manifests.digest import digest_bytes
from syncclient.batch import Batch
from tests.support.releases import LAYOUT, Edition, in_order

MTIME_NS = 1_600_000_000 * 10**9


def chunk_digests(data: bytes) -> bytes:
    """The chunk digests of a large file, nothing for a small one."""
    if len(data) <= CHUNK_BYTES:
        return b""
    starts = range(0, len(data), CHUNK_BYTES)
    return b"".join(digest_bytes(data[start : start + CHUNK_BYTES]) for start in starts)


def bucket_batch(  # noqa: PLR0913 (a batch has many sides)
    edition: Edition,
    bucket: int,
    root: Path,
    *,
    variant: str = "original",
    locals_: tuple[str, ...] = (),
    hard_link: bool = False,
) -> Batch:
    """The small files of one bucket of the edition's own layer."""
    files = {
        number: value
        for (of, number), value in edition.files.items()
        if of == variant and LAYOUT.bucket_of(number) == bucket
    }
    ids = in_order(files)
    sizes = [len(files[number][1]) for number in ids]
    names = [f"{number}.{files[number][0]}" for number in ids]
    return Batch(
        key=(variant, bucket),
        root=str(root),
        folder=(variant, LAYOUT.bucket_name(bucket)),
        names=names,
        sizes=sizes,
        digests=b"".join(digest_bytes(files[number][1]) for number in ids),
        mtime_ns=MTIME_NS,
        replaces=[None] * len(ids),
        place=f"{edition.name}/{variant}/{LAYOUT.bucket_name(bucket)}",
        offsets=list(accumulate(sizes, initial=0))[:-1],
        locals=locals_,
        hard_link=hard_link,
    )


def large_batch(root: Path, url: str, data: bytes, *, chunks: bool = True) -> Batch:
    """One large file, ``original/0001/1.mp4``; an asset has no chunk digests."""
    return Batch(
        key=("original", 1),
        root=str(root),
        folder=("original", "0001"),
        names=["1.mp4"],
        sizes=[len(data)],
        digests=digest_bytes(data),
        mtime_ns=MTIME_NS,
        replaces=[None],
        place=url,
        whole=True,
        chunks=chunk_digests(data) if chunks else b"",
    )


async def feed(batches: Iterable[Batch]) -> AsyncIterator[Batch]:
    """Batches one after another."""
    for batch in batches:
        yield batch
