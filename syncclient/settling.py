"""Comparing what a look found with the release, and recording what was learnt by reading.

For the buckets that are not as they were left; see :mod:`syncclient.survey`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from manifests.columns import I64, Bools, Entries, among
from syncclient import records
from syncclient.files import UNSURE, FileStat, FolderLook
from syncclient.places import Places
from syncclient.plan import Comparison, Plan, Rows, compare, merge_placed, record_after, settle
from syncclient.pool import Pool, Promise
from syncclient.records import Record, unsure_if_racy
from syncclient.release import ReleaseView
from syncclient.state import NOTHING_KNOWN, Glance, State, sure_mtime
from syncclient.survey import Question, Survey
from syncclient.tasks import HashTask, hash_task
from syncclient.tree import Listing

# Names of one hashing task: enough to keep a process busy, few enough to share the work.
_HASH_NAMES = 256
# What is here may be far more than what is wanted: with so many files no more buckets are added.
_LISTED_AT_ONCE = 16_384
_EXT_BYTES = 2


class Work(Struct, frozen=True, kw_only=True, eq=False):
    """What is to do in one bucket.

    ``fetch`` are the entries whose bytes are needed; ``replaces`` (as many) what may be replaced
    under their names; ``foreign`` (as many) where a file of the user's is in the way.  ``remove``
    are files of ours that the release no longer has.  ``after`` is what the bucket is known to be
    once all of that is done; None if more will be missing.
    """

    variant: str
    bucket: int
    fetch: Entries
    replaces: tuple[FileStat | None, ...]
    foreign: Bools
    remove: Listing
    after: Glance | None = None


class _Seen(NamedTuple):
    """One bucket and what its folder looked like."""

    question: Question
    looked_ns: int
    look: FolderLook

    @property
    def bucket(self) -> int:
        """Its number."""
        return self.question.bucket

    @property
    def glance(self) -> Glance:
        """What was known of it."""
        return self.question.glance

    @property
    def looked_into(self) -> bool:
        """Whether the fingerprint was made now, and not taken from before as the time stands."""
        return self.look.mtime_ns != self.question.left.mtime_ns


class _Pending(Struct, frozen=True, kw_only=True):
    """Buckets that were compared and whose unknown files are being read.

    ``own`` (k + 1,) says where the files of each bucket begin in the listing, ``recorded`` (k,)
    how many are recorded of it; ``strays`` (k,) are the user's files that no entry could be.
    """

    seen: Sequence[_Seen]
    own: I64
    recorded: I64
    strays: Sequence[int]
    comparison: Comparison
    reading: list[Promise[list[bytes | None]]]


class Settler(Struct, kw_only=True):
    """Compares the buckets of one variant and counts them in ``survey``; blocking.

    Buckets come ascending.  All of them fulfil the wish as far as its first ``layers`` go (0: that
    is not known), so with ``layers`` they are compared at the ids of which later ones speak, and
    nowhere else.  ``recorded`` counts the files that the state knew in them.
    """

    variant: str
    layers: int
    view: ReleaseView
    places: Places
    state: State
    token: str
    pool: Pool
    survey: Survey
    recorded: int = 0
    _at_once: int = 0
    _seen: list[_Seen] = field(default_factory=list)
    _listed: int = 0
    _waiting: deque[_Pending] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Settle how many buckets are compared together."""
        self._at_once = self.view.buckets_at_once(self.variant)

    def take(self, question: Question, looked_ns: int, look: FolderLook) -> None:
        """Take one bucket in."""
        self._seen.append(_Seen(question, looked_ns, look))
        self._listed += 0 if look.columns is None else len(look.columns.exts) // _EXT_BYTES
        if len(self._seen) >= self._at_once or self._listed >= _LISTED_AT_ONCE:
            self._compare()

    def finish(self) -> None:
        """Compare what is left and wait for all that is being read."""
        self._compare()
        while self._waiting:
            self._finish(self._waiting.popleft())

    def _compare(self) -> None:
        """Begin with the buckets that were taken in."""
        if not self._seen:
            return
        seen, self._seen, self._listed = self._seen, [], 0
        buckets = [one.bucket for one in seen]
        known = self.state.load_several(self.variant, buckets)
        listings, strays = zip(*map(self._own, seen), strict=True)
        record, only = records.joined(known), None
        if self.layers:
            spoken = [one.question.spoken for one in seen if one.question.spoken is not None]
            only = np.sort(np.concatenate(spoken))
            record = record.take(among(record.ids, only))
        comparison = compare(
            self.view.several(self.variant, buckets, only, self.layers),
            Listing.joined(listings),
            record,
        )
        recorded = np.array([len(record) for record in known], np.int64)
        own = np.append(0, np.cumsum([len(listing) for listing in listings]))
        self.recorded += int(recorded.sum())
        self._waiting.append(
            _Pending(
                seen=[one._replace(look=one.look._replace(columns=None)) for one in seen],
                own=own,
                recorded=recorded,
                strays=strays,
                comparison=comparison,
                reading=list(self._read(buckets, own, comparison)),
            )
        )
        waiting = self._waiting
        while waiting and (len(waiting) > self.pool.jobs or not waiting[0].reading):
            self._finish(waiting.popleft())

    def _own(self, seen: _Seen) -> tuple[Listing, int]:
        """The files that entries of this bucket could be, and how many others there are."""
        listing = Listing.of(seen.look)
        others = sum(kind == "name" for _, kind in listing.others)
        mine = listing.ids % np.uint32(self.places.layout.buckets) == seen.bucket
        if mine.all():
            return listing, others
        return listing.take(mine), others + int((~mine).sum())

    def _read(
        self, buckets: Sequence[int], own: I64, comparison: Comparison
    ) -> Iterator[Promise[list[bytes | None]]]:
        """Start to hash what is unknown, folder by folder."""
        names, root = comparison.unread_names(), str(self.places.root(self.variant))
        bounds = np.searchsorted(comparison.unread, own).tolist()
        for bucket, (first, last) in zip(buckets, pairwise(bounds), strict=True):
            folder = self.places.folder(self.variant, bucket)
            for start in range(first, last, _HASH_NAMES):
                some = names[start : min(start + _HASH_NAMES, last)]
                yield self.pool.submit(hash_task, HashTask(root, folder, some))

    def _finish(self, pending: _Pending) -> None:
        comparison = pending.comparison
        found = [digest for future in pending.reading for digest in future.result()]
        unread = comparison.unread.tolist()
        digests = {
            row: digest for row, digest in zip(unread, found, strict=True) if digest is not None
        }
        plan = settle(comparison, digests)
        self.survey.count(plan, sum(pending.strays))
        split = _Split.of(plan, pending, self.places.layout.buckets)
        rests = [self._rest(one, split, place) for place, one in enumerate(pending.seen)]
        for rest in rests:
            self.survey.count_settled(rest)
        self.survey.works += self._works(plan, pending, split, rests)
        self._remember(plan, pending, split, rests)

    def _rest(self, seen: _Seen, split: _Split, place: int) -> Glance:
        """The files of a bucket that were not compared, as they were counted before."""
        if not self.layers:
            return NOTHING_KNOWN
        before, own = split.before[place], split.own[place]
        extra = seen.glance.extra - (own.stop - own.start - before)
        return Glance(files=max(0, seen.glance.files - before), extra=max(0, extra))

    def _works(
        self, plan: Plan, pending: _Pending, split: _Split, rests: Sequence[Glance]
    ) -> Iterator[Work]:
        """What is to do, bucket by bucket."""
        if not len(plan.fetch) and not len(plan.remove):
            return
        fetch, foreign = plan.view.wanted.take(plan.fetch), among(plan.fetch, plan.foreign)
        extra = split.listed(split.extra)
        for place, (one, rest) in enumerate(zip(pending.seen, rests, strict=True)):
            rows, gone = split.fetch[place], split.remove[place]
            if rows.start == rows.stop and gone.start == gone.stop:
                continue
            after = Glance(
                settled=self.token,
                files=rest.files + split.kept[place] + rows.stop - rows.start,
                extra=rest.extra + extra[place] + pending.strays[place],
            )
            yield Work(
                variant=self.variant,
                bucket=one.bucket,
                fetch=fetch.take(rows),
                replaces=tuple(plan.replaces[rows]),
                foreign=foreign[rows],
                remove=plan.listing.take(plan.remove[gone]),
                after=None if split.lost[place] else after,
            )

    def _remember(
        self, plan: Plan, pending: _Pending, split: _Split, rests: Sequence[Glance]
    ) -> None:
        """Record what was learnt, where it differs from what is recorded.

        A bucket that lost all its files keeps its record: the disk may be mounted again.
        """
        looked_ns = pending.seen[0].looked_ns
        mtimes = unsure_if_racy(plan.listing.mtimes, looked_ns)
        believed = np.where(plan.hashed, mtimes, plan.listing.mtimes)
        ours, hashed, young, extra = (
            split.listed(marks)
            for marks in (plan.ours, plan.hashed, mtimes == UNSURE, split.extra)
        )
        for place, (one, rest) in enumerate(zip(pending.seen, rests, strict=True)):
            recorded = int(pending.recorded[place])
            now = Glance(files=rest.files + split.kept[place])
            if split.is_settled(place):
                extras = rest.extra + extra[place] + pending.strays[place]
                now = now._replace(settled=self.token, extra=extras)
                now = now._replace(folder_mtime_ns=sure_mtime(one.look.mtime_ns, looked_ns))
                # A file that is too young may change and look the same, so the folder may.
                sure = one.looked_into and not young[place]
                looks = (one.look.fingerprint, now.extra) if sure else (b"", 0)
                now = now._replace(fingerprint=looks[0], extra=looks[1])
            if self.layers:
                # With work left it is settled for the earlier release, unless files proved ours.
                same = not now.settled
            else:
                same = ours[place] == recorded and now == one.glance
                if recorded and not ours[place]:
                    continue
            if hashed[place] or not same:
                self._store(one.bucket, record_after(plan, believed, split.own[place]), now)

    def _store(self, bucket: int, found: Record, now: Glance) -> None:
        """Record what was found of a bucket; of one that was compared in part, beside the rest."""
        if self.layers:
            kept = [self.state.load(self.variant, bucket)]
            found = merge_placed(kept, found, np.zeros(len(found), np.intp))[0]
        if len(found) or self.variant in self.view.variants:
            self.state.store(self.variant, bucket, replace(found, **now._asdict()))
        else:
            self.state.forget(self.variant, bucket)


class _Split(Struct, frozen=True, kw_only=True):
    """A plan of k buckets cut up again; all sequences have one item a bucket.

    ``own`` are rows of the listing, ``fetch`` and ``remove`` places in the lists of that name;
    ``kept`` and ``lost`` count wanted files that are right and that can be had nowhere, ``before``
    those that were wanted before.  ``extra`` marks rows of the listing.
    """

    own: Sequence[slice]
    fetch: Sequence[slice]
    remove: Sequence[slice]
    kept: Sequence[int]
    lost: Sequence[int]
    before: Sequence[int]
    extra: Bools
    bounds: I64

    @classmethod
    def of(cls, plan: Plan, pending: _Pending, buckets: int) -> _Split:
        numbers = np.array([one.bucket for one in pending.seen], np.uint32)
        wanted, before = (
            np.append(np.searchsorted(ids % np.uint32(buckets), numbers), len(ids))
            for ids in (plan.view.wanted.ids, plan.view.before)
        )
        extra = np.zeros(len(plan.listing), np.bool_)
        extra[plan.extra] = True
        return cls(
            own=_slices(pending.own),
            fetch=_slices(np.searchsorted(plan.fetch, wanted)),
            remove=_slices(np.searchsorted(plan.remove, pending.own)),
            kept=np.diff(np.searchsorted(plan.keep, wanted)).tolist(),
            lost=np.diff(np.searchsorted(plan.unavailable, wanted)).tolist(),
            before=np.diff(before).tolist(),
            extra=extra,
            bounds=pending.own,
        )

    def listed(self, marks: Bools) -> list[int]:
        """How many rows of the listing are marked in each bucket."""
        sums = np.append(0, np.cumsum(marks))
        counts: list[int] = np.diff(sums[self.bounds]).tolist()
        return counts

    def is_settled(self, place: int) -> bool:
        """Whether a bucket is as it is wanted, and nothing is missing."""
        fetch, remove = self.fetch[place], self.remove[place]
        return fetch.start == fetch.stop and remove.start == remove.stop and not self.lost[place]


def _slices(bounds: Rows) -> list[slice]:
    """What lies between neighbouring bounds."""
    return [slice(*pair) for pair in pairwise(bounds.tolist())]
