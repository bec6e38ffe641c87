"""A swarm in a process of its own, for runs that fetch.

libtorrent reads what strangers send, and some versions of it crash on that (docs/adr/0014-peers.md
has one).  Such a crash ends this process alone: its calls fail with :class:`SwarmEndedError`, and
the run goes on without peers or with a new swarm.

The process is ``python -m syncclient.torrents.apart``.  It takes calls from its stdin, sends what
happens to its stdout (:mod:`syncclient.pipes`), and ends when its stdin does; if the client is
killed the kernel kills it at once, so that nothing writes to staging that the next run looks at.
Torrents and members are numbers on the pipe.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from msgspec.structs import replace

from manifests.columns import Bools
from manifests.errors import TransferError
from syncclient.hatch import spawn
from syncclient.pipes import STREAM_BYTES, messages, packed, write_all
from syncclient.torrents.members import Member, Metainfo, Status, SwarmEndedError, SwarmSettings
from syncclient.torrents.peers import Address

_STDOUT: Final = 1
# Trackers are told for two seconds at most.
_END_S: Final = 10.0
# What happens to a torrent within that time is told at once.
_GATHER_S: Final = 0.1
_PR_SET_PDEATHSIG: Final = 1


class SwarmProcess:
    """What :class:`~syncclient.torrents.swarm.Swarm` is, elsewhere; an async context manager.

    After a crash ``has_crashed`` is set, members have an ``error``, and every call raises
    SwarmEndedError, but for :meth:`remove`, :meth:`forget` and :meth:`traffic`.
    """

    def __init__(self, settings: SwarmSettings, warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._warn = warn
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._members: dict[int, Member] = {}
        # What members sent and received when they were last looked at.
        self._seen: dict[int, tuple[int, int]] = {}
        self._serial = 0
        self._closing = False
        self.port = 0
        self.has_crashed = False

    async def __aenter__(self) -> Self:
        """Start the process, and wait until it listens."""
        self._process = await spawn("syncclient.torrents.apart")
        self._reading = asyncio.create_task(self._read())
        try:
            self.port = await self._call("begin", self._settings, os.getpid())
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave all swarms and end the process."""
        self._closing = True
        process, reading = self._process, self._reading
        if process is None or reading is None or process.stdin is None:
            return
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await asyncio.shield(reading)
        except TimeoutError:
            process.kill()
        finally:
            await reading
            await process.wait()

    # ----------------------------------------------------------------- the pipe

    async def _call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 (any answer)
        if self.has_crashed or self._process is None or self._process.stdin is None:
            raise SwarmEndedError
        self._serial += 1
        serial = self._serial
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[serial] = future
        try:
            self._process.stdin.write(packed((serial, method, arguments)))
            return await future
        finally:
            self._answers.pop(serial, None)

    async def _read(self) -> None:
        stream = self._process.stdout if self._process is not None else None
        try:
            if stream is not None:
                async for message in messages(stream):
                    self._take(*message)
        finally:
            self._end()

    def _take(self, kind: str, number: int, value: Any) -> None:  # noqa: ANN401
        if kind == "warning":
            self._warn(value)
        elif kind == "happened":
            self._happened(self._members.setdefault(number, Member()), *value)
        elif (future := self._answers.get(number)) is not None and not future.done():
            if kind == "done":
                future.set_result(value)
            else:
                future.set_exception(TransferError(value))

    def _happened(self, member: Member, completed: set[int], failed: int, error: str) -> None:
        member.completed |= completed
        member.failed_pieces = failed
        member.error = error
        member.changed.set()

    def _end(self) -> None:
        """Nothing more comes: everybody who waits is told."""
        self.has_crashed = not self._closing
        for member in self._members.values():
            member.error = member.error or SwarmEndedError().message
            member.changed.set()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(SwarmEndedError())

    def _number(self, member: Member) -> int:
        return int(member.handle)

    def _member(self, number: int) -> Member:
        # It may have been heard of before its call was answered.
        member = self._members.setdefault(number, Member())
        member.handle = number
        return member

    # ----------------------------------------------------------------- torrents, as in Swarm

    async def read(self, data: bytes) -> Metainfo:
        """Read a .torrent; TransferError if libtorrent refuses it.  Until it is forgotten."""
        metainfo: Metainfo = await self._call("read", data)
        return metainfo

    async def forget(self, metainfo: Metainfo) -> None:
        """It will not be used any more."""
        with suppress(SwarmEndedError):
            await self._call("forget", metainfo.params)

    async def fetch(
        self,
        metainfo: Metainfo,
        staging: Path,
        wanted: Collection[int],
        *,
        fresh: bool,
        peers: Sequence[Address] = (),
    ) -> Member:
        """Begin to fetch some files into ``staging``; what lies there counts unless ``fresh``."""
        arguments = (metainfo.params, staging, list(wanted), fresh, list(peers))
        return self._member(await self._call("fetch", *arguments))

    async def offer(
        self, metainfo: Metainfo, root: Path, held: Bools, *, peers: Sequence[Address] = ()
    ) -> Member:
        """Offer files as they lie below ``root``."""
        return self._member(await self._call("offer", metainfo.params, root, held, list(peers)))

    async def connect(self, member: Member, peers: Sequence[Address]) -> None:
        """Tell a torrent of peers."""
        await self._call("connect", self._number(member), list(peers))

    async def want(self, member: Member, metainfo: Metainfo, wanted: Collection[int]) -> None:
        """Fetch only these files (rows) from now on, in any order."""
        await self._call("want", self._number(member), metainfo.params, list(wanted))

    async def begun(self, member: Member, metainfo: Metainfo) -> Bools:
        """Of which files (n,) something is here."""
        found: Bools = await self._call("begun", self._number(member), metainfo.params)
        return found

    async def flush(self, member: Member) -> None:
        """Return when all that was complete is on the file system."""
        await self._call("flush", self._number(member))

    async def status(self, member: Member) -> Status:
        """How one torrent is doing."""
        number = self._number(member)
        status: Status = await self._call("status", number)
        self._seen[number] = (status.downloaded_bytes, status.uploaded_bytes)
        return status

    async def remove(self, member: Member) -> None:
        """Take a torrent out of the session; its files stay, and are not written to any more."""
        with suppress(SwarmEndedError):
            number = self._number(member)
            self._seen[number] = await self._call("remove", number)
            self._members.pop(number, None)

    async def traffic(self) -> tuple[int, int]:
        """Bytes of files (and of padding) received and sent, as far as is known."""
        with suppress(SwarmEndedError):
            found: tuple[int, int] = await self._call("traffic")
            return found
        seen = self._seen.values()
        return sum(down for down, _ in seen), sum(up for _, up in seen)


# --------------------------------------------------------------------------- inside the process


def _send(kind: str, number: int, value: object) -> None:
    write_all(_STDOUT, packed((kind, number, value)))


class _Far:
    """The calls of :class:`SwarmProcess`, carried out."""

    def __init__(self) -> None:
        self._swarm: Any = None
        self._metainfos: dict[int, Metainfo] = {}
        self._members: dict[int, Member] = {}
        self._watching: dict[int, asyncio.Task[None]] = {}
        self._number = 0

    async def begin(self, settings: SwarmSettings, client: int) -> int:
        """Open the session: its port."""
        # Only here: the client itself never loads libtorrent to fetch.
        from syncclient.torrents.swarm import Swarm  # noqa: PLC0415

        _die_with(client)
        swarm = Swarm(settings)
        swarm.warnings = lambda text: _send("warning", 0, text)
        self._swarm = await swarm.__aenter__()
        return swarm.port

    async def end(self) -> None:
        """Close the session."""
        for task in self._watching.values():
            task.cancel()
        if self._swarm is not None:
            await self._swarm.__aexit__(None, None, None)

    async def read(self, data: bytes) -> Metainfo:
        metainfo: Metainfo = await self._swarm.read(data)
        self._number += 1
        self._metainfos[self._number] = metainfo
        return replace(metainfo, params=self._number)

    async def forget(self, number: int) -> None:
        self._metainfos.pop(number, None)

    async def fetch(
        self,
        metainfo: int,
        staging: Path,
        wanted: list[int],
        fresh: bool,  # noqa: FBT001 (arguments come as a list)
        peers: list[Address],
    ) -> int:
        found = self._metainfos[metainfo]
        return self._add(await self._swarm.fetch(found, staging, wanted, fresh=fresh, peers=peers))

    async def offer(self, metainfo: int, root: Path, held: Bools, peers: list[Address]) -> int:
        return self._add(
            await self._swarm.offer(self._metainfos[metainfo], root, held, peers=peers)
        )

    def _add(self, member: Member) -> int:
        self._number += 1
        self._members[self._number] = member
        self._watching[self._number] = asyncio.create_task(_watch(self._number, member))
        return self._number

    async def connect(self, member: int, peers: list[Address]) -> None:
        await self._swarm.connect(self._members[member], peers)

    async def want(self, member: int, metainfo: int, wanted: list[int]) -> None:
        await self._swarm.want(self._members[member], self._metainfos[metainfo], wanted)

    async def begun(self, member: int, metainfo: int) -> Bools:
        found: Bools = await self._swarm.begun(self._members[member], self._metainfos[metainfo])
        return found

    async def flush(self, member: int) -> None:
        await self._swarm.flush(self._members[member])

    async def status(self, member: int) -> Status:
        found: Status = await self._swarm.status(self._members[member])
        return found

    async def remove(self, number: int) -> tuple[int, int]:
        member = self._members.pop(number)
        self._watching.pop(number).cancel()
        status = await self._swarm.status(member)
        await self._swarm.remove(member)
        return status.downloaded_bytes, status.uploaded_bytes

    async def traffic(self) -> tuple[int, int]:
        found: tuple[int, int] = await self._swarm.traffic()
        return found


async def _watch(number: int, member: Member) -> None:
    """Tell the client what happens to a member; files complete by the hundred."""
    while True:
        await member.changed.wait()
        await asyncio.sleep(_GATHER_S)
        member.changed.clear()
        _send("happened", number, (member.take_completed(), member.failed_pieces, member.error))


def _die_with(client: int) -> None:
    """Be killed when the client is (Linux; elsewhere the end of stdin does, a moment later)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != client:
            os._exit(1)


async def _serve() -> None:
    stream = asyncio.StreamReader(limit=STREAM_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), sys.stdin.buffer
    )
    far = _Far()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(serial: int, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            value = await getattr(far, method)(*arguments)
        except (TransferError, TimeoutError, RuntimeError) as error:
            _send("failed", serial, str(error))
        else:
            _send("done", serial, value)

    try:
        async for message in messages(stream):
            task = asyncio.create_task(answer(*message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        await far.end()


def main() -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
