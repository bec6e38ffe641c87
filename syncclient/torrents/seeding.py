"""Offering what a tree holds, from the very files in it.

Rules:

* Our own records say what is here, never libtorrent's resume data; no file is read to find out.
* libtorrent gets torrents whose missing files have priority 0, so it writes nothing, ever.
* Every ``look_s`` the folders are looked at: where a file came or went, or ``full_look_s`` have
  passed, the torrent is surveyed anew, and offered anew if what it holds has changed.
* As many torrents as the memory allows are in the session.  If there are more, those that nobody
  has asked for give way: every ``turn_s`` to those for which a tracker knows somebody who waits,
  and every fifth time to others, whose peers may come from elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import Struct

from manifests.errors import SyncError
from manifests.torrents.announce import State
from syncclient.events import Notice, Phase, Progress
from syncclient.hosts import Hosts
from syncclient.pool import in_thread
from syncclient.torrents.finding import PeerFinder
from syncclient.torrents.holdings import Held, Holdings, Mark
from syncclient.torrents.members import Member, Status
from syncclient.torrents.runs import Run, metainfo_bytes
from syncclient.torrents.swarm import Swarm

# Of memory, for each file of a torrent in the session: 502 were measured for a million files
# (python -m tests.bench.seeding), and peers want some.
FILE_BYTES: Final = 600
LOOK_S: Final = 30.0
FULL_LOOK_S: Final = 900.0
TURN_S: Final = 60.0
_TURNS: Final = 5
_TELL_S: Final = 2.0


class Limits(Struct, frozen=True, kw_only=True):
    """How much is offered: memory in bytes (0: all), and the ratio that ends it (0: never)."""

    memory_bytes: int = 512 * 2**20
    ratio: float = 0.0
    look_s: float = LOOK_S
    full_look_s: float = FULL_LOOK_S
    turn_s: float = TURN_S


class Source(Struct, frozen=True, kw_only=True):
    """The torrents of one release, and who knows what of them is here; ``root`` by variant."""

    runs: Sequence[Run]
    holdings: Holdings
    roots: Callable[[str], Path]


class Offer(Struct, eq=False):
    """One torrent of which something is here; ``member`` while it is in the session."""

    run: Run
    source: Source
    mark: Mark
    files: int
    member: Member | None = None
    looked_s: float = 0.0
    joined_s: float = 0.0
    used_s: float = 0.0
    uploaded_bytes: int = 0
    status: Status | None = None


class Seeding(Struct, frozen=True, kw_only=True):
    """What is offered now.

    ``rarest`` names the torrent that the fewest peers offer, ``copies`` says how many do, as a
    tracker counts them: us too; -1 if no tracker told.
    """

    torrents: int
    active: int
    files: int
    peers: int
    upload_rate: int
    sent_bytes: int
    rarest: str
    copies: int


class Seeder:
    """Offers torrents until told to stop."""

    def __init__(  # noqa: PLR0913 (what it needs of a session)
        self,
        swarm: Swarm,
        sources: Sequence[Source],
        hosts: Hosts,
        finder: PeerFinder,
        cache: Path,
        limits: Limits,
        listen: Callable[[Phase | Progress | Notice], None],
        tell: Callable[[Seeding], None],
    ) -> None:
        self._swarm = swarm
        self._sources = sources
        self._hosts = hosts
        self._finder = finder
        self._cache = cache
        self._limits = limits
        self._listen = listen
        self._tell = tell
        self._offers: dict[bytes, Offer] = {}
        self._waiting: deque[Offer] = deque()
        self._loaded_files = 0
        self._turns = 0
        self.paused = False
        # One thread looks at the tree: the state belongs to one at a time.
        self._looking = asyncio.Lock()

    @property
    def offers(self) -> Sequence[Offer]:
        """Every torrent of which something is here."""
        return tuple(self._offers.values())

    @property
    def files(self) -> int:
        """Files that are offered, or would be with more memory."""
        return sum(offer.mark.files for offer in self._offers.values())

    async def begin(self) -> None:
        """Look at everything and offer as much as the memory allows."""
        runs = [(source, run) for source in self._sources for run in source.runs]
        self._listen(Phase(name="seed", total_files=len(runs)))
        for number, (source, run) in enumerate(runs, 1):
            if run.key not in self._offers:
                held = await self._look(source, run)
                if held.paths:
                    offer = Offer(run=run, source=source, mark=held.mark, files=0)
                    offer.looked_s = time.monotonic()
                    self._offers[run.key] = offer
                    await self._join(offer, held)
            self._listen(Progress(files=number))

    async def keep(self, stop: asyncio.Event) -> None:
        """Follow the tree and the demand until ``stop``, or until the ratio is reached."""
        turned_s = looked_s = announced_s = time.monotonic()
        await self._announce()
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_TELL_S, self._limits.look_s)):
                    await stop.wait()
            await self.refresh()
            self._tell(self.now())
            now_s = time.monotonic()
            if now_s - looked_s >= self._limits.look_s:
                if await self._follow(now_s):
                    announced_s = 0.0
                looked_s = time.monotonic()
            if now_s - announced_s >= self._finder.interval_s:
                await self._announce()
                announced_s = time.monotonic()
            if self._waiting and now_s - turned_s >= self._limits.turn_s:
                await self._announce()
                await self._rotate(now_s)
                announced_s = turned_s = time.monotonic()
            if self._limits.ratio and self._reached_ratio():
                return

    async def pause(self, *, paused: bool) -> None:
        """Leave all swarms for a while, or join them again; trackers are told."""
        self.paused = paused
        await self._swarm.pause(paused=paused)
        await self._announce()

    async def leave(self) -> None:
        """Say goodbye to the trackers."""
        await self._finder.leave()

    def now(self) -> Seeding:
        """What is offered now."""
        offers = self._offers.values()
        statuses = [offer.status for offer in offers if offer.status is not None]
        counts = self._finder.seeds
        known = [offer for key, offer in self._offers.items() if key in counts]
        rare = min(known, key=lambda offer: counts[offer.run.key], default=None)
        return Seeding(
            torrents=len(self._offers),
            active=sum(offer.member is not None for offer in offers),
            files=self.files,
            peers=sum(status.peers for status in statuses),
            upload_rate=sum(status.upload_rate for status in statuses),
            sent_bytes=self.sent_bytes,
            rarest=_label(rare.run) if rare is not None else "",
            copies=counts[rare.run.key] if rare is not None else -1,
        )

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to peers."""
        return sum(
            offer.uploaded_bytes + (offer.status.uploaded_bytes if offer.status else 0)
            for offer in self._offers.values()
        )

    # ----------------------------------------------------------------- one torrent

    async def _look(self, source: Source, run: Run) -> Held:
        async with self._looking:
            return await in_thread(lambda: source.holdings.look(run))

    def _has_room(self, files: int) -> bool:
        """Whether so many files may be added; one torrent has room, however little there is."""
        budget, loaded = self._limits.memory_bytes, self._loaded_files
        return not budget or not loaded or (loaded + files) * FILE_BYTES <= budget

    async def _join(self, offer: Offer, held: Held | None = None) -> None:
        """Offer what is held of a torrent, or let it wait for room."""
        try:
            data = await metainfo_bytes(offer.run.ref, self._hosts, self._cache)
            metainfo = await self._swarm.read(data)
        except SyncError as error:
            self._listen(Notice(text=f"not offered: {_label(offer.run)}: {error}", warning=True))
            self._offers.pop(offer.run.key, None)
            return
        offer.files = len(metainfo.paths)
        if not self._has_room(offer.files):
            self._waiting.append(offer)
            return
        if held is None:
            held = await self._look(offer.source, offer.run)
            offer.mark = held.mark
        paths = frozenset(held.paths)
        rows = np.array([path in paths for path in metainfo.paths], np.bool_)
        if not rows.any():
            self._offers.pop(offer.run.key, None)
            return
        root = offer.source.roots(offer.run.variant)
        offer.member = await self._swarm.offer(metainfo, root, rows)
        offer.joined_s = offer.used_s = time.monotonic()
        self._loaded_files += offer.files

    async def _leave(self, offer: Offer) -> None:
        if offer.member is None:
            return
        member, offer.member = offer.member, None
        status = await self._swarm.status(member)
        offer.uploaded_bytes += status.uploaded_bytes
        offer.status = None
        await self._swarm.remove(member)
        self._loaded_files -= offer.files

    async def refresh(self) -> None:
        """How all torrents in the session are doing."""
        offers = [offer for offer in self._offers.values() if offer.member is not None]
        members = [offer.member for offer in offers if offer.member is not None]
        now_s = time.monotonic()
        for offer, status in zip(offers, await self._swarm.statuses(members), strict=True):
            if status.peers or status.upload_rate:
                offer.used_s = now_s
            offer.status = status

    # ----------------------------------------------------------------- following the tree

    async def _announce(self) -> None:
        """Tell trackers of all torrents; peers come by themselves, leechers more so than seeds."""
        states = dict[bytes, tuple[Run, State]]()
        for key, offer in self._offers.items() if not self.paused else ():
            state = State.RESTING if offer.member is None else State.SEEDING
            states[key] = (offer.run, state)
        await self._finder.announce(states)

    async def _follow(self, now_s: float) -> bool:
        """Notice what changed in the tree since the last look; whether anything did."""
        any_changed = False
        for offer in list(self._offers.values()):
            due = now_s - offer.looked_s >= self._limits.full_look_s
            if not due and not await self._has_moved(offer):
                continue
            held = await self._look(offer.source, offer.run)
            offer.looked_s = time.monotonic()
            changed, offer.mark = held.mark.digest != offer.mark.digest, held.mark
            any_changed |= changed
            if changed:
                await self._leave(offer)
                if held.paths:
                    await self._join(offer, held)
            if offer.member is not None and offer.member.error:
                self._listen(
                    Notice(text=f"{_label(offer.run)}: {offer.member.error}", warning=True)
                )
                await self._leave(offer)
                await self._join(offer)
        return any_changed

    async def _has_moved(self, offer: Offer) -> bool:
        if offer.member is not None and offer.member.error:
            return True
        found = await asyncio.to_thread(offer.source.holdings.glance, offer.run)
        return found != offer.mark.seen

    async def _rotate(self, now_s: float) -> None:
        """Let torrents that nobody asked for give way to some that wait, if there is reason to."""
        waiting = self._finder.waiting
        self._turns += 1
        wanted = sum(offer.run.key in waiting for offer in self._waiting)
        if not wanted and self._turns % _TURNS:
            return
        idle = sorted(
            (
                offer
                for offer in self._offers.values()
                if offer.member is not None and now_s - offer.used_s >= self._limits.turn_s
            ),
            key=lambda offer: offer.joined_s,
        )
        for offer in idle[: wanted or -(-len(idle) // 2)]:
            await self._leave(offer)
            self._waiting.append(offer)
        self._waiting = deque(
            sorted(self._waiting, key=lambda offer: offer.run.key not in waiting)
        )
        for _ in range(len(self._waiting)):
            if not self._has_room(self._waiting[0].files):
                return
            await self._join(self._waiting.popleft())

    def _reached_ratio(self) -> bool:
        held = sum(offer.mark.size_bytes for offer in self._offers.values())
        return held > 0 and self.sent_bytes >= self._limits.ratio * held


def _label(run: Run) -> str:
    buckets = f"{run.ref.first_bucket}-{run.ref.last_bucket}"
    part = f" part {run.ref.part}" if run.ref.part else ""
    return f"layer {run.layer} {run.variant} buckets {buckets}{part}"
