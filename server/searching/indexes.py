"""Tag indexes that lie on this machine's disk, with what was read of them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from manifests.columns import U32
from manifests.digest import Digest
from manifests.errors import StoreError
from manifests.framed import FrameKey, decode_framed
from manifests.framedref import FramedRef
from manifests.query.parser import parse
from manifests.query.predicates import Moment
from manifests.query.search import Search
from manifests.tagindex.build import KIND
from manifests.tagindex.index import TagIndex
from server.searching.question import Found, Question, Reason, SearchRefusedError

Check = Callable[[], None]
# Releases whose indexes stay open; people ask of the newest, and of the one before.
_KEPT_INDEXES: Final = 4
# Ids of whole answers, so that their further pages cost nothing; at least one is always kept.
_KEPT_ANSWER_BYTES: Final = 64 * 2**20


class IndexFile:
    """One index, whose frames are read when a query first needs them."""

    def __init__(self, path: str, ref: FramedRef) -> None:
        """Open it; StoreError if it is not there, ManifestError if it is damaged."""
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(
                f"{path}: this tag index cannot be read: {error.strerror}",
                hint="Restore objects/ from a mirror.",
            ) from error
        try:
            header = self._read(*ref.header_span)
            self.index = TagIndex(decode_framed(header, ref, KIND, f"tags {ref.digest.hex[:12]}"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _read(self, start: int, stop: int) -> bytes:
        return os.pread(self._fd, stop - start, start)

    def load(self, frames: Iterable[FrameKey], check: Check) -> None:
        """Read frames, each checked against its digest."""
        for key in sorted(frames):
            check()
            self.index.load({key: self._read(*self.index.span(key))})


class Desk:
    """Answers questions, with the indexes and answers that it had lately at hand."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[Digest, IndexFile] = OrderedDict()
        self._answers: OrderedDict[tuple[Digest, int, str, str, str], U32] = OrderedDict()
        self._answer_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._indexes.values():
            held.close()

    def answer(self, question: Question, check: Check) -> Found:
        """Search, and cut the page out that was asked for; ``check`` may end it by raising.

        QueryError, SearchRefusedError for another parameter, StoreError or ManifestError where
        the index is missing or damaged.
        """
        ids = self._ids(question, check)
        start = 0 if question.after is None else _place_after(ids, question.after)
        page = ids[start : start + question.limit]
        return Found(count=len(ids), ids=page, is_last=start + len(page) == len(ids), seconds=0.0)

    def _ids(self, question: Question, check: Check) -> U32:
        asked = (question.query, question.zone, question.seed)
        key = (question.index.digest, question.created, *asked)
        found = self._answers.get(key)
        if found is None:
            found = self._search(question, check)
            self._answers[key] = found
            self._answer_bytes += found.nbytes
            while self._answer_bytes > _KEPT_ANSWER_BYTES and len(self._answers) > 1:
                self._answer_bytes -= self._answers.popitem(last=False)[1].nbytes
        self._answers.move_to_end(key)
        return found

    def _search(self, question: Question, check: Check) -> U32:
        moment = Moment(now=datetime.fromtimestamp(question.created, UTC), tz=_zone(question.zone))
        tree = parse(question.query)
        held = self._index(question)
        seed = question.seed.encode("utf-8", "replace")
        search = Search(tree, held.index, moment, seed=seed, check=check)
        while frames := search.missing():
            held.load(frames, check)
        return search.run()

    def _index(self, question: Question) -> IndexFile:
        digest = question.index.digest
        if digest not in self._indexes:
            self._indexes[digest] = IndexFile(question.path, question.index)
        self._indexes.move_to_end(digest)
        while len(self._indexes) > _KEPT_INDEXES:
            self._indexes.popitem(last=False)[1].close()
        return self._indexes[digest]


def _place_after(ids: U32, post_id: int) -> int:
    places = np.flatnonzero(ids == post_id)
    if not len(places):
        raise SearchRefusedError(
            Reason.PARAMETER,
            f"post {post_id} is not among the results",
            parameter="after",
            hint="Give the last id of the page before, with the same query and release.",
        )
    return int(places[0]) + 1


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SearchRefusedError(
            Reason.PARAMETER,
            f"no time zone is called {name!r}",
            parameter="tz",
            hint="Such as UTC or Europe/Berlin.",
        ) from error
