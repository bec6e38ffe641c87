"""Fetching from peers: torrents into staging, BLAKE3, then a name in the tree.

Rules:

* A file is checked and named by the same workers as one that came over HTTP, after libtorrent has
  said that it is on the file system.  It keeps its name in staging until the torrent has left the
  session, so peers go on reading it; both names are one file.
* At most ``WINDOW`` torrents at a time, so memory does not grow with the release.
* Beside hosts, a torrent that brings nothing for some seconds gives its files back, and one that
  is slow does when the hosts have nothing else to do.  Alone, it is given up after a longer while.
* After a crash of libtorrent each torrent asks one peer at a time, and one that sends wrong bytes
  or too little is barred for the rest of the run.
* What an earlier run left in staging is hashed again by libtorrent, and again for its BLAKE3.
  A staged file that already has a name in the tree is taken away first: nothing ever writes to it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from manifests.errors import StoreError, TransferError, first_of_group
from manifests.torrents.announce import State
from syncclient.batch import Batch, Outcome
from syncclient.events import Notice
from syncclient.hosts import Hosts
from syncclient.parcels import Parcel, Parcels
from syncclient.places import Places
from syncclient.plan import Rows
from syncclient.store import STAGING
from syncclient.torrents.apart import SwarmProcess
from syncclient.torrents.claims import Claim, Pace, as_parcels, by_parcel, files_due, wishes
from syncclient.torrents.finding import PeerFinder
from syncclient.torrents.members import Member, Metainfo, SwarmEndedError
from syncclient.torrents.memory import NO_MEMORY, MemoryStaging
from syncclient.torrents.peers import Address
from syncclient.torrents.runs import Run, metainfo_bytes
from syncclient.worker import Worker

WINDOW: Final = 16
# Connecting, bitfields and unchoking take a second; nothing after five is a swarm without seeds.
_FIRST_BYTES_S: Final = 5.0
_NEXT_BYTES_S: Final = 10.0
_STALLED_S: Final = 3.0
# While hosts are idle: when they begin to take from a torrent that has brought nothing yet, and
# when they take all of one whose peers have gone.
_SLOW_START_S: Final = 1.0
_LEFT_S: Final = 1.0
# Longer than that, and hosts that are idle take the rest.
_SOON_S: Final = 10.0
# Of the time after which a torrent is given up, to wait for somebody who offers it.
_PATIENCE: Final = 2
_LOOK_S: Final = 0.5
_BATCHES_A_WORKER: Final = 4
_BATCH_FILES: Final = 1000

MakeBatch = Callable[[Parcel, Rows], Batch]
OnOutcome = Callable[[Batch, Outcome], None]


class Ways(Struct, frozen=True, kw_only=True):
    """What a transfer from peers works with; ``give_up_s`` without a byte ends it if alone."""

    hosts: Hosts
    cache: Path
    places: Places
    workers: Sequence[Worker]
    make_batch: MakeBatch
    on_outcome: OnOutcome
    listen: Callable[[Notice], None]
    alone: bool
    give_up_s: float
    # Whether libtorrent may find peers by itself: by other trackers, the hash table, the network.
    finds_more: bool
    memory: MemoryStaging = NO_MEMORY


class PeerTransfer:
    """The peers' side of one transfer; :meth:`run` ends when there is nothing left for them."""

    def __init__(
        self,
        swarm: SwarmProcess,
        finder: PeerFinder,
        parcels: Parcels,
        runs: Sequence[Run],
        ways: Ways,
    ) -> None:
        self._swarm = swarm
        self._finder = finder
        self._caution = finder.caution
        self._parcels = parcels
        # From the end of the plan, which hosts begin at its start.
        self._runs = list(reversed(runs))
        self._ways = ways
        self._turn = 0
        # Torrents of the first window that have not claimed their files yet.
        self._openings = 0
        # Torrents in a row for which libtorrent found nobody.
        self._barren = 0
        # Torrents that nobody was known to offer when it was their turn.
        self._lonely: list[Run] = []
        # Torrents that are fetched and offered from the tree while the run lasts.
        self._offered: deque[Member] = deque()
        self._states: dict[bytes, tuple[Run, State]] = {}

    async def run(self) -> None:
        """Work through the torrents, some at a time."""
        finder = self._finder
        self._states = wishes(self._runs, self._parcels, alone=self._ways.alone)
        await finder.announce(self._states)
        announcing = asyncio.create_task(finder.keep(lambda: self._states))
        try:
            runs = [run for run in self._runs if self._is_hopeful(run)]
            while runs:
                await self._work_through(runs)
                runs = await self._found()
        finally:
            self._parcels.opened.set()
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)
            await finder.leave()

    async def _found(self) -> list[Run]:
        """What nobody offered, once a tracker names somebody: a seeder's torrents take turns.

        Hosts need not wait for that; without them it is given up after a while.
        """
        lonely, self._lonely = self._lonely, []
        waits = self._ways.alone and lonely and self._finder.has_tracker
        deadline_s = time.monotonic() + _PATIENCE * self._ways.give_up_s
        while waits and not self._swarm.has_crashed and time.monotonic() < deadline_s:
            if any(map(self._finder.peers_of, lonely)):
                return lonely
            await asyncio.sleep(_LOOK_S)
        return []

    async def _work_through(self, runs: Sequence[Run]) -> None:
        waiting = iter(runs)
        self._openings = min(WINDOW, len(runs))

        async def work() -> None:
            for run in waiting:
                if self._swarm.has_crashed:
                    return
                await self._one(run)

        with first_of_group():
            async with asyncio.TaskGroup() as group:
                for _ in range(WINDOW):
                    group.create_task(work())

    def _is_hopeful(self, run: Run) -> bool:
        """Whether a torrent may find peers: those that are known, or some that nobody told us of.

        Of the latter only as long as the torrents before it found any.
        """
        if self._ways.alone or self._finder.peers_of(run):
            return True
        may_be = self._ways.finds_more or not self._finder.has_tracker
        return may_be and self._barren < WINDOW

    async def _one(self, run: Run) -> None:
        """Fetch what is wanted of one torrent; whatever goes wrong, its files are given back."""
        try:
            claim = await self._open(run)
        finally:
            self._openings -= 1
            if self._openings <= 0:
                self._parcels.opened.set()
        if claim is None:
            return
        try:
            await self._fetch(claim)
        except SwarmEndedError:
            # Who asked for peers tells of it, once.
            return
        except (TransferError, TimeoutError, RuntimeError) as error:
            self._ways.listen(Notice(text=f"peers: {error}", warning=True))
        finally:
            self._give_back(claim)
            await self._swarm.forget(claim.metainfo)

    async def _open(self, run: Run) -> Claim | None:
        """Claim what is wanted of one torrent, if there is enough."""
        if not self._is_hopeful(run) or not wishes([run], self._parcels, alone=self._ways.alone):
            return None
        try:
            data = await metainfo_bytes(run.ref, self._ways.hosts, self._ways.cache)
            metainfo = await self._swarm.read(data)
        except SwarmEndedError:
            return None
        except TransferError as error:
            self._ways.listen(Notice(text=f"peers: {error.message}", warning=True))
            return None
        if not (metainfo.has_trackers or self._ways.finds_more or self._finder.peers_of(run)):
            self._barren += 1
            self._lonely.append(run)
            await self._swarm.forget(metainfo)
            return None
        claim = self._claim(run, metainfo)
        if not claim.places:
            await self._swarm.forget(metainfo)
            return None
        return claim

    def _claim(self, run: Run, metainfo: Metainfo) -> Claim:
        rows_of = {path: row for row, path in enumerate(metainfo.paths)}
        layout, places = self._ways.places.layout, dict[int, tuple[Parcel, int]]()

        def matches(parcel: Parcel) -> Rows:
            if not run.may_hold(parcel):
                return np.empty(0, np.intp)
            prefix = f"{run.variant}/{layout.bucket_name(parcel.work.bucket)}/"
            names = parcel.work.fetch.take(parcel.rows).names()
            return parcel.rows[[prefix + name in rows_of for name in names]]

        for parcel in self._parcels.claim(matches):
            prefix = f"{run.variant}/{layout.bucket_name(parcel.work.bucket)}/"
            names = parcel.work.fetch.take(parcel.rows).names()
            for row, name in zip(parcel.rows.tolist(), names, strict=True):
                places[rows_of[prefix + name]] = (parcel, row)
        return Claim(run=run, metainfo=metainfo, places=places, left=set(places))

    def _give_back(self, claim: Claim) -> None:
        """Return what is left of a claim to the plan."""
        parcels = list(as_parcels(claim, claim.left))
        claim.left.clear()
        self._parcels.give_back(parcels)

    # ----------------------------------------------------------------- one torrent

    async def _fetch(self, claim: Claim) -> None:
        run, places = claim.run, self._ways.places
        size_bytes, name = claim.sizes(claim.left), run.key.hex()
        staging = self._ways.memory.take(name, len(claim.left), size_bytes)
        if staging is None:
            staging = Path(places.root(run.variant), *STAGING, name)
        fresh = await asyncio.to_thread(_prepare, staging, claim)
        peers = self._finder.peers_of(run)
        metainfo, left = claim.metainfo, claim.left
        member = await self._swarm.fetch(metainfo, staging, left, fresh=fresh, peers=peers)
        try:
            await self._watch(claim, member, staging)
        except (asyncio.CancelledError, SwarmEndedError):
            # The next run, or swarm, goes on with what is staged.
            await self._swarm.remove(member)
            raise
        except BaseException:
            await self._let_go(member, staging)
            raise
        finally:
            if self._caution.active and claim.left:
                self._caution.barred.update(peers)
        await self._let_go(member, staging)
        await self._offer(claim)

    async def _let_go(self, member: Member, staging: Path) -> None:
        await self._swarm.remove(member)
        await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        self._ways.memory.give_back(staging)

    async def _offer(self, claim: Claim) -> None:
        """Offer what was fetched from where it is now, until the run ends or others need room."""
        run, places = claim.run, self._ways.places
        brought = sorted(set(claim.places) - claim.left - claim.returned)
        if not brought or places.variant_parts(run.variant) != (run.variant,):
            return
        held = np.zeros(len(claim.metainfo.paths), np.bool_)
        held[brought] = True
        if len(self._offered) >= WINDOW:
            await self._swarm.remove(self._offered.popleft())
        root = places.root(run.variant).absolute()
        peers = self._finder.peers_of(run)
        self._offered.append(await self._swarm.offer(claim.metainfo, root, held, peers=peers))
        self._states[run.key] = (run, State.SEEDING)

    async def _watch(self, claim: Claim, member: Member, staging: Path) -> None:
        """Commit what completes, until all is there or it takes too long."""
        metainfo = claim.metainfo
        rows_by_index = {int(metainfo.index[row]): row for row in claim.places}
        known = set(self._finder.peers_of(claim.run))
        in_order = len(known) == 1
        committed_s = asked_s = time.monotonic()
        pace = Pace(moved_s=committed_s)
        ready = {row for row in claim.left if not metainfo.piece_counts[row]}
        self._barren += 1
        while claim.left:
            member.changed.clear()
            ready |= {rows_by_index[n] for n in member.take_completed() if n in rows_by_index}
            ready &= claim.left
            now_s = time.monotonic()
            if due := files_due(claim, ready, now_s - committed_s):
                await self._bring(claim, member, due, staging)
                committed_s = pace.moved_s = time.monotonic()
                continue
            self._check(member, known)
            if new := self._new_peers(claim, known):
                known |= new
                await self._swarm.connect(member, sorted(new))
            status = await self._swarm.status(member)
            pace.note(status.done_bytes, now_s)
            if status.peers:
                self._barren = 0
            if in_order and status.peers > 1:
                # They have more to give each other if each begins somewhere else.
                in_order = False
                await self._swarm.want(member, metainfo, claim.left)
            if known and not status.peers and now_s - asked_s > _STALLED_S:
                # One that was cut off for a misunderstanding may come again.
                asked_s = now_s
                await self._swarm.connect(member, sorted(known))
            if self._is_over(pace, now_s, status.peers):
                await self._bring(claim, member, ready, staging)
                return
            if self._is_late(claim, pace, now_s):
                await self._halve(claim, member)
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await member.changed.wait()

    async def _bring(self, claim: Claim, member: Member, rows: set[int], staging: Path) -> None:
        """Let files that are complete enter the tree."""
        if rows:
            await self._swarm.flush(member)
            await self._commit(claim, rows, staging)

    def _check(self, member: Member, known: set[Address]) -> None:
        """Raise TransferError if a torrent cannot go on, for whatever reason."""
        if self._swarm.has_crashed:
            raise SwarmEndedError
        if member.error:
            raise TransferError(member.error)
        if self._caution.active and member.failed_pieces:
            raise TransferError(f"{_names(known)} sent wrong bytes and is left out")

    def _new_peers(self, claim: Claim, known: set[Address]) -> set[Address]:
        """Peers that a torrent has not been told of; with caution it has one for good."""
        if self._caution.active and known:
            return set()
        return set(self._finder.peers_of(claim.run)) - known

    def _is_over(self, pace: Pace, now_s: float, peers: int) -> bool:
        """Whether nothing came for so long that others should have what is left."""
        still_s = now_s - pace.moved_s
        if self._ways.alone:
            return still_s > self._ways.give_up_s
        if self._parcels.idle.is_set():
            left_alone = pace.has_begun and not peers
            return still_s > (_LEFT_S if left_alone else _STALLED_S)
        return still_s > (_NEXT_BYTES_S if pace.has_begun else _FIRST_BYTES_S)

    def _is_late(self, claim: Claim, pace: Pace, now_s: float) -> bool:
        """Whether hosts have nothing to do while peers have much."""
        if self._ways.alone or not self._parcels.idle.is_set():
            return False
        if not pace.has_begun:
            return now_s - pace.moved_s > _SLOW_START_S
        return pace.seconds_for(claim.sizes(claim.left)) > _SOON_S

    async def _halve(self, claim: Claim, member: Member) -> None:
        """Give half of what has not begun to come to the hosts."""
        begun = await self._swarm.begun(member, claim.metainfo)
        waiting = [row for row in sorted(claim.left) if not begun[row]]
        given = set(waiting[: -(-len(waiting) // 2)])
        claim.left -= given
        claim.returned |= given
        await self._swarm.want(member, claim.metainfo, claim.left)
        self._parcels.give_back(as_parcels(claim, given))

    async def _commit(self, claim: Claim, ready: set[int], staging: Path) -> None:
        """Let workers check staged files and name them in the tree, some batches at a time."""
        slots = asyncio.Semaphore(_BATCHES_A_WORKER * len(self._ways.workers))
        folders = staging / claim.run.variant
        in_memory = self._ways.memory.holds(staging)

        async def place(parcel: Parcel, rows: Sequence[int]) -> None:
            entries = np.array([claim.places[row][1] for row in rows], np.intp)
            folder = str(folders / self._ways.places.layout.bucket_name(parcel.work.bucket))
            batch = self._ways.make_batch(parcel, entries)
            batch = replace(batch, locals=(folder,), staged=True, in_memory=in_memory)
            async with slots:
                [outcome] = await self._next_worker().run([batch], None)
            self._ways.on_outcome(batch, outcome)
            claim.left.difference_update(rows[number] for number in outcome.done)
            self._parcels.settle(len(outcome.done))
            if isinstance(outcome.error, StoreError):
                raise outcome.error

        with first_of_group():
            async with asyncio.TaskGroup() as group:
                for parcel, rows in by_parcel(claim, ready):
                    for start in range(0, len(rows), _BATCH_FILES):
                        group.create_task(place(parcel, rows[start : start + _BATCH_FILES]))
        if wrong := ready & claim.left:
            raise TransferError(
                f"{len(wrong)} files of torrent {claim.run.key.hex()[:16]} do not have the BLAKE3 "
                "of the manifest"
            )

    def _next_worker(self) -> Worker:
        self._turn += 1
        return self._ways.workers[self._turn % len(self._ways.workers)]


def _names(peers: Iterable[Address]) -> str:
    return ", ".join(f"{peer.host} port {peer.port}" for peer in sorted(peers))


def _prepare(staging: Path, claim: Claim) -> bool:
    """Make staging ready, with empty files made and those of the tree taken out.

    libtorrent opens by path, so no link may stand there.  Returns whether it is new.
    """
    if staging.is_symlink():
        staging.unlink()
    fresh = not staging.exists()
    staging.mkdir(parents=True, exist_ok=True)
    for folder, folders, names in os.walk(staging):
        for path in (Path(folder, name) for name in [*names, *folders]):
            info = path.lstat()
            is_own = stat.S_ISDIR(info.st_mode) or (
                stat.S_ISREG(info.st_mode) and info.st_nlink == 1
            )
            if not is_own:
                path.unlink()
    for row in claim.left:
        if not claim.metainfo.piece_counts[row]:
            path = staging / claim.metainfo.paths[row]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return fresh
