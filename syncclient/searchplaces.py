"""Where a search is asked: on a server by ranges, in a tree, or in files of metadata."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from manifests.columns import U32
from manifests.digest import Digest
from manifests.errors import SyncError
from manifests.framed import FramedHeader, FramedWriter, FrameKey, decode_framed
from manifests.framedref import FramedRef
from manifests.metadata.faults import BadRow
from manifests.metadata.parsing import PARSERS
from manifests.model import Descriptor
from manifests.tagindex.build import KIND, IndexBuilder
from syncclient.config import Transport, TreeConfig, check_url, load_tree_config
from syncclient.events import Listener
from syncclient.metadata import find_metadata, read_blocks
from syncclient.pool import in_thread
from syncclient.release import ReleaseView
from syncclient.searching import Question, Searcher, date_of, open_searcher, resolve
from syncclient.selection import Selection
from syncclient.session import Session, visit


class Answer(Struct, frozen=True, kw_only=True, eq=False):
    """What a search found: ids in the order of the query, and what it cost.

    ``bytes_by_variant`` is None where sizes were not asked for or could not be had.
    """

    ids: U32
    release: str | None = None
    bytes_by_variant: dict[str, int] | None = None
    received_bytes: int = 0
    requests: int = 0
    faults: tuple[BadRow, ...] = ()


Place: TypeAlias = Callable[[Question], Awaitable[Answer]]


# ----------------------------------------------------------------- releases


class Asking(Struct, frozen=True, kw_only=True):
    """How releases are asked: over which lines, of which release, and where records lie."""

    transport: Transport
    listen: Listener
    release: str | None = None
    state_dir: Path | None = None


def on_server(url: str, how: Asking, *, trust_root: str | None, with_bytes: bool) -> Place:
    """A repository; what is fetched of it is kept in the user's cache for the next search."""
    config = TreeConfig(
        dataset="",
        urls=(check_url(url),),
        root_fingerprint="",
        release="",
        selection=Selection(),
    )
    folder = (how.state_dir or user_cache()) / Digest.of(url.encode()).hex[:32]

    async def ask(question: Question) -> Answer:
        async with visit(folder, config, how.transport, how.listen) as session:
            session.folders.records.mkdir(parents=True, exist_ok=True)
            if trust_root or session.trust.pinned_root() is None:
                await session.pin(trust_root)
            signed = await session.refresh()
            descriptor = await session.descriptor(signed, how.release or signed.newest())
            return await _ask(session, descriptor, question, None, with_bytes=with_bytes)

    return ask


def in_tree(tree: Path, how: Asking) -> Place:
    """The posts of a tree's selection; works offline with what earlier runs fetched."""
    config = load_tree_config(tree)

    async def ask(question: Question) -> Answer:
        async with visit(tree, config, how.transport, how.listen, how.state_dir) as session:
            name = how.release or config.release
            descriptor = session.stored_descriptor(name)
            if descriptor is None:
                descriptor = await session.descriptor(await session.refresh(), name)
            chosen = await resolve(session, descriptor, config.selection)
            return await _ask(session, descriptor, question, chosen, with_bytes=True)

    return ask


async def _ask(
    session: Session,
    descriptor: Descriptor,
    question: Question,
    chosen: Selection | None,
    *,
    with_bytes: bool,
) -> Answer:
    searcher = await open_searcher(session, descriptor)
    buckets = descriptor.layout.buckets
    among = None if chosen is None else await searcher.among(chosen, buckets)
    ids = await searcher.find(question, date_of(descriptor), among)
    sizes = None
    if with_bytes:
        wanted = replace(chosen or Selection(), ids=np.sort(ids))
        try:
            sizes = await _sizes(session, descriptor, wanted)
        except SyncError as error:
            session.notice(f"the sizes of the files are not known: {error.message}", warning=True)
    traffic = session.hosts.take_traffic()
    return Answer(
        ids=ids,
        release=descriptor.release,
        bytes_by_variant=sizes,
        received_bytes=traffic.received_bytes,
        requests=traffic.requests,
    )


async def _sizes(session: Session, descriptor: Descriptor, wanted: Selection) -> dict[str, int]:
    """Bytes of the files of some posts, by variant."""
    view = ReleaseView(descriptor, session.notices(), wanted, session.folders.cache)
    try:
        await view.open(session.hosts)
        return await in_thread(
            lambda: {
                variant: sum(
                    view.bucket(variant, bucket).wanted.file_bytes for bucket in view.buckets
                )
                for variant in view.variants
            }
        )
    finally:
        view.close()


def user_cache() -> Path:
    """Where searches keep what they fetched (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "bucketsync"


# ----------------------------------------------------------------- files


class _BuiltFrames:
    """The frames of an index that was just built in memory."""

    def __init__(self, builder: IndexBuilder) -> None:
        self._data = bytearray()
        writer = FramedWriter(KIND, self._data.extend)
        size, header_digest, header_bytes = writer.finish(builder.finish(writer))
        self._ref = FramedRef(
            digest=Digest.of(self._data),
            size_bytes=size,
            header_digest=header_digest,
            header_bytes=header_bytes,
        )
        self._header = decode_framed(self._read(*self._ref.header_span), self._ref, KIND, "tags")

    def _read(self, start: int, stop: int) -> bytes:
        return bytes(memoryview(self._data)[start:stop])

    async def open(self) -> FramedHeader:
        return self._header

    async def fetch(self, frames: Collection[FrameKey]) -> Mapping[FrameKey, bytes]:
        return {key: self._read(*self._header.span(key)) for key in frames}


def in_files(paths: Sequence[Path]) -> Place:
    """Files of posts as Danbooru exports them, and tables beside them."""

    async def ask(question: Question) -> Answer:
        faults: list[BadRow] = []
        frames = await in_thread(lambda: _BuiltFrames(_read_files(paths, faults)))
        searcher = await Searcher.open(frames)
        if faults and not searcher.index.posts:
            raise SyncError(f"no post can be read: {faults[0].file}: {faults[0].problem}")
        ids = await searcher.find(question, datetime.now(UTC))
        sizes = await searcher.column("file_size")
        stated = int(sizes[searcher.index.ordinals_of(ids)].sum())
        return Answer(ids=ids, bytes_by_variant={"": stated}, faults=tuple(faults))

    return ask


def _read_files(paths: Sequence[Path], faults: list[BadRow]) -> IndexBuilder:
    builder = IndexBuilder()
    for block in read_blocks(find_metadata(paths)):
        content, bad_rows = PARSERS[block.kind](block.data, block.file, block.first_line)
        builder.add(block.kind, content)
        faults += [*bad_rows, *block.faults]
    return builder
