"""A far network on loopback: delay, one line of limited rate, and a count of request rounds.

``python -m tests.bench.proxy PORT --rtt 0.1 --rate 25000000 --log FILE`` listens on a free port,
which it prints, and passes every connection on to PORT.  What it models:

* Each direction is one line for all connections.  They take turns in portions, as behind a fair
  queue, and a portion takes its size divided by the rate.
* A portion arrives half a round trip after it has left the line.
* A connection is open a whole round trip after it was asked for; nothing of the client leaves
  before that.
* A connection has at most so many bytes under way (the window of a TCP that has grown to its
  limit).

Not modelled: loss, slow start, the rate that headers of IP and TCP take.

The log has a line for what the client sent after the host had answered something, on whatever
connection (a *round*), for the first bytes of each answer, and for each request of HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TextIO

_PORTION_BYTES = 2**15
_WINDOW_BYTES = 2**22
# A sleep ends up to a millisecond late; so the line may be that much ahead of itself.
_SLACK_S = 0.002
_LINE_CHARS = 200


@dataclass(slots=True)
class Line:
    """One direction, shared by all connections: portions leave one after another."""

    rate: float
    free_s: float = 0.0

    async def leave(self, size_bytes: int, not_before_s: float) -> float:
        """Wait for the line; when the last byte has left it."""
        start_s = max(time.monotonic(), not_before_s, self.free_s)
        self.free_s = start_s + size_bytes / self.rate
        left_s = self.free_s
        if (wait_s := left_s - time.monotonic() - _SLACK_S) > 0:
            await asyncio.sleep(wait_s)
        return left_s


@dataclass(slots=True)
class Log:
    """What passed, in lines of JSON, with the monotonic clock that all processes share."""

    file: TextIO
    rounds: int = 0
    _answered: bool = True
    _talking: set[int] = field(default_factory=set)

    def sent(self, connection: int, data: bytes) -> None:
        """The client has sent something."""
        is_round, self._answered = self._answered, False
        self.rounds += is_round
        self._talking.discard(connection)
        self._write(connection, "round" if is_round else "sent", data)

    def arrived(self, connection: int, data: bytes) -> None:
        """Something has come to the client."""
        self._answered = True
        if connection not in self._talking:
            self._talking.add(connection)
            self._write(connection, "answer", data)

    def _write(self, connection: int, what: str, data: bytes) -> None:
        first = data.partition(b"\r\n")[0][:_LINE_CHARS].decode(errors="replace")
        line = {
            "at": time.monotonic(),
            "connection": connection,
            "what": what,
            "round": self.rounds,
            "bytes": len(data),
            "line": first,
        }
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()


Seen = Callable[[bytes], None]


class Pipe:
    """One direction of one connection."""

    def __init__(
        self, source: socket.socket, target: socket.socket, line: Line, delay_s: float
    ) -> None:
        self._source = source
        self._target = target
        self._line = line
        self._delay_s = delay_s
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def run(
        self, opened_s: float, *, sent: Seen | None = None, arrived: Seen | None = None
    ) -> None:
        """Pass everything on, the end too; OSError when an end is gone."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send(opened_s, sent))
            tasks.create_task(self._deliver(arrived))

    async def _send(self, opened_s: float, seen: Seen | None) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._source, _PORTION_BYTES):
            if seen:
                seen(data)
            left_s = await self._line.leave(len(data), opened_s)
            async with self._changed:
                await self._changed.wait_for(lambda: self._bytes < _WINDOW_BYTES)
            await self._put(left_s, data)
        await self._put(time.monotonic(), b"")

    async def _put(self, left_s: float, data: bytes) -> None:
        async with self._changed:
            self._under_way.append((left_s + self._delay_s, data))
            self._bytes += len(data)
            self._changed.notify_all()

    async def _deliver(self, seen: Seen | None) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._under_way))
                arrival_s, data = self._under_way.popleft()
            await asyncio.sleep(max(0.0, arrival_s - time.monotonic()))
            if not data:
                break
            if seen:
                seen(data)
            await loop.sock_sendall(self._target, data)
            async with self._changed:
                self._bytes -= len(data)
                self._changed.notify_all()
        with suppress(OSError):
            self._target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Where connections go, by which lines, and who takes note."""

    port: int
    rtt_s: float
    up: Line
    down: Line
    log: Log

    async def connect(self, number: int, client: socket.socket) -> None:
        """Carry one connection until both sides have ended, or one is gone."""
        loop = asyncio.get_running_loop()
        opened_s, half_s = time.monotonic() + self.rtt_s, self.rtt_s / 2
        with client, socket.socket() as host:
            for one in (client, host):
                one.settimeout(0)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(host, ("127.0.0.1", self.port))
            up = Pipe(client, host, self.up, half_s)
            down = Pipe(host, client, self.down, half_s)
            with suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(up.run(opened_s, sent=partial(self.log.sent, number)))
                    arrived = partial(self.log.arrived, number)
                    tasks.create_task(down.run(opened_s, arrived=arrived))


async def serve(network: Network, listening: socket.socket) -> None:
    """Take connections until the task is cancelled."""
    loop, number = asyncio.get_running_loop(), 0
    listening.settimeout(0)
    async with asyncio.TaskGroup() as tasks:
        while True:
            client, _ = await loop.sock_accept(listening)
            number += 1
            tasks.create_task(network.connect(number, client))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--rtt", type=float, required=True, help="seconds")
    parser.add_argument("--rate", type=float, required=True, help="bytes a second")
    parser.add_argument("--log", type=Path, required=True)
    args = parser.parse_args()
    with (
        socket.create_server(("127.0.0.1", 0), backlog=256) as listening,
        args.log.open("w") as log,
    ):
        network = Network(
            port=args.port,
            rtt_s=args.rtt,
            up=Line(args.rate),
            down=Line(args.rate),
            log=Log(log),
        )
        print(json.dumps({"port": listening.getsockname()[1]}), flush=True)
        with suppress(KeyboardInterrupt):
            asyncio.run(serve(network, listening))


if __name__ == "__main__":
    main()
