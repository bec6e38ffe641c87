"""Queries on a release: the frames of its tag index that one needs, fetched once and kept.

A selection with a query is *resolved* to ids before anything is planned.  What it resolves to
depends on nothing but the release, the query and the seed: ages count from the release's date.  So
the ids are kept beside the tree, as a cache, and the same selection is resolved again offline.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from manifests.columns import U32
from manifests.digest import Digest
from manifests.errors import ConfigError
from manifests.framed import FramedHeader, FrameKey
from manifests.framedref import FramedRef
from manifests.metadata.columns import Column
from manifests.model import Descriptor
from manifests.query.parser import parse
from manifests.query.predicates import Moment
from manifests.query.search import Search
from manifests.tagindex.build import KIND
from manifests.tagindex.index import FramesMissing, TagIndex
from syncclient.cachedobject import cache_path
from syncclient.documents import write_durably
from syncclient.events import Phase
from syncclient.framed import CachedFramed
from syncclient.hosts import Hosts
from syncclient.pool import in_thread
from syncclient.selection import Selection
from syncclient.session import Session

_RESOLVED_NAME: Final = "selected"
# Columns that the next query is likely to need: 4.5 MB of five million posts.
_USUAL: Final = ("id", "rating", "score")


def index_of(descriptor: Descriptor) -> FramedRef:
    """The tag index of a release; ConfigError if it has none."""
    if descriptor.tag_index is None:
        message = (
            f"{descriptor.release} was published without metadata, so nothing can be searched"
        )
        raise ConfigError(message, hint="Select by --ids, --bucket or --variant instead.")
    return descriptor.tag_index


def date_of(descriptor: Descriptor) -> datetime:
    """What ages count from in a release: its own date."""
    return datetime.fromtimestamp(descriptor.created, UTC)


class Question(Struct, frozen=True, kw_only=True):
    """What is searched for.

    ``now`` is what ages count from (None: what is usual where it is asked), days begin at midnight
    in ``zone``; ``seed`` decides what is drawn at random.  Of what matches, the first ``limit``
    are found (None: all).
    """

    query: str
    zone: tzinfo = UTC
    now: datetime | None = None
    seed: str = ""
    limit: int | None = None

    def moment(self, now: datetime) -> Moment:
        """What its times are measured by, where ``now`` is usual."""
        return Moment(now=self.now or now, tz=self.zone)


class Frames(Protocol):
    """Where the frames of an index come from."""

    async def open(self) -> FramedHeader:
        """The header of the index."""

    async def fetch(self, frames: Collection[FrameKey]) -> Mapping[FrameKey, bytes]:
        """All of these frames."""


class HostedFrames:
    """The frames of a release's index, from the cache or a host."""

    def __init__(self, descriptor: Descriptor, cache: Path, hosts: Hosts) -> None:
        ref = index_of(descriptor)
        path = cache_path(cache, ref.digest)
        self._held = CachedFramed(path, ref, KIND, f"{descriptor.release}/tags")
        self._hosts = hosts

    async def open(self) -> FramedHeader:
        """The header; TransferError if it is not here and no host gives it."""
        return await self._held.open(self._hosts)

    async def fetch(self, frames: Collection[FrameKey]) -> Mapping[FrameKey, bytes]:
        """The frames; those that are not here are kept.

        When a host has to be asked at all, it is also asked for what most queries need.
        """
        found: Mapping[FrameKey, bytes] = await in_thread(lambda: self._held.held(frames))
        if len(found) == len(frames):
            return found
        header = self._held.header
        usual = {(name, k) for name in _USUAL for k in range(len(header.section(name)))}
        found = await self._held.fetch(self._hosts, {*frames, *usual})
        return {frame: found[frame] for frame in frames}


class Searcher:
    """One tag index, for any number of questions."""

    def __init__(self, frames: Frames, index: TagIndex) -> None:
        """See :meth:`open`."""
        self._frames = frames
        self.index = index

    @classmethod
    async def open(cls, frames: Frames) -> Searcher:
        """Read the header of the index."""
        header = await frames.open()
        return cls(frames, await in_thread(lambda: TagIndex(header)))

    async def find(self, question: Question, now: datetime, among: U32 | None = None) -> U32:
        """The ids that match, in the order of the query; of some ids (ascending) if given.

        QueryError says what is wrong with the query and where, TransferError that frames are
        needed which no host gave.
        """
        search = Search(
            parse(question.query),
            self.index,
            question.moment(now),
            seed=question.seed.encode(),
        )
        while missing := await in_thread(search.missing):
            self.index.load(await self._frames.fetch(missing))
        return await in_thread(lambda: search.run(among)[: question.limit])

    async def column(self, name: str) -> Column:
        """What a column says of every post, by ascending id."""
        while True:
            try:
                return await in_thread(lambda: self.index.column(name))
            except FramesMissing:
                self.index.load(await self._frames.fetch(set(self.index.wanted)))

    async def among(self, chosen: Selection, buckets: int) -> U32 | None:
        """The ids that a selection without a query allows, ascending; None for all."""
        ids = chosen.ids
        if chosen.buckets is not None:
            ids = await self.column("id") if ids is None else ids
            bucket = ids % np.uint32(buckets)
            ids = ids[(bucket >= chosen.buckets[0]) & (bucket <= chosen.buckets[1])]
        return ids


async def open_searcher(session: Session, descriptor: Descriptor) -> Searcher:
    """The tag index of a release; ConfigError if it has none."""
    return await Searcher.open(HostedFrames(descriptor, session.folders.cache, session.hosts))


async def ratings_of(session: Session, descriptor: Descriptor) -> tuple[U32, Column]:
    """The ids of a release, ascending, and the code of the rating of each."""
    searcher = await open_searcher(session, descriptor)
    return await searcher.column("id"), await searcher.column("rating")


async def resolve(session: Session, descriptor: Descriptor, selection: Selection) -> Selection:
    """A selection without a query: the ids that its query stands for in a release."""
    if not selection.query:
        return selection
    path = session.folders.records / _RESOLVED_NAME
    token = _token(descriptor, selection)
    ids = await in_thread(lambda: _kept(path, token))
    if ids is None:
        session.listen(Phase(name="query"))
        searcher = await open_searcher(session, descriptor)
        question = Question(query=selection.query, seed=selection.seed)
        found = await searcher.find(question, date_of(descriptor), selection.ids)
        ids = np.sort(found)
        await write_durably(path, token + ids.astype("<u4").tobytes())
    if not len(ids):
        session.notice(
            f"no post of {descriptor.release} matches {selection.query!r}", warning=True
        )
    return replace(selection, ids=ids, query="", seed="")


def _token(descriptor: Descriptor, selection: Selection) -> bytes:
    """Names what the kept ids are the answer to."""
    own = b"*" if selection.ids is None else selection.ids.tobytes()
    asked = [selection.query.encode(), selection.seed.encode(), own]
    digests = b"".join(Digest.of(part).raw for part in [descriptor.encode(), *asked])
    return Digest.of(digests).raw


def _kept(path: Path, token: bytes) -> U32 | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body = data[len(token) :]
    if not data.startswith(token) or len(body) % 4:
        return None
    return np.frombuffer(body, "<u4").astype(np.uint32)
