"""Plain requests for packs and files, answered at once: no task, no routing, no aiohttp.

Rules:

* What is answered here is what aiohttp and :mod:`server.hosting.handlers` would answer, byte for
  byte but for the date: conditions and ranges, heads and bodies have one implementation.
* Only answers with a body, from a layer that is known and a bucket that is in memory.  Whatever
  else there is to say, whatever has to be waited for, and whatever goes wrong before the first
  byte: the caller asks aiohttp.
* It is counted as if it had come to its route.

A client that does not take all at once costs a task from then on.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from aiohttp import HttpVersion11

from manifests.errors import SyncError
from server.hosting.catalog import CatalogWatch
from server.hosting.heads import head_of
from server.hosting.metrics import WENT_AWAY, Metrics
from server.hosting.packs import PackShelf
from server.hosting.places import NAME, FoundFiles, found_file, found_pack
from server.hosting.plain import Head
from server.hosting.ranges import boundary_for, plan_reply
from server.hosting.readers import Found, Readers
from server.hosting.reading import Outcome
from server.hosting.sending import LOST, Answer, Sender

_PLACE: Final = re.compile(
    rf"/(packs|files)/({NAME})/({NAME})/([0-9]{{1,9}})(?:/({NAME}))?", re.ASCII
)


class End(Enum):
    """How a delivery ended: whole, cut by us, its client gone, or before anything was sent."""

    WHOLE = auto()
    CUT = auto()
    GONE = auto()
    UNSENT = auto()


class Direct:
    """Answers plain requests; belongs to the loop of its readers."""

    def __init__(
        self,
        watch: CatalogWatch,
        shelf: PackShelf,
        sender: Sender,
        readers: Readers,
        metrics: Metrics,
    ) -> None:
        self.shelf = shelf
        self.sender = sender
        self.readers = readers
        self.metrics = metrics
        self._watch = watch

    def deliver(
        self, head: Head, transport: asyncio.Transport, done: Callable[[End], None]
    ) -> Delivery | None:
        """Begin to answer; ``done`` hears of the end, later.  None if aiohttp has to."""
        if head.method != "GET" or transport.get_write_buffer_size():
            return None
        place = _PLACE.fullmatch(head.path)
        found = self._found(*place.groups()) if place else None
        if place is None or found is None:
            return None
        shown = found.shown
        reply = plan_reply("GET", head.headers, shown, boundary_for(head.headers))
        if not reply.body or self.sender.doubts(found.files):
            return None
        answer = Answer(found.files, reply, head_of(reply, HttpVersion11, keep_alive=True))
        return Delivery(self, head, transport, answer, done)

    def _found(
        self, route: str, layer_name: str, variant: str, bucket: str, name: str | None
    ) -> FoundFiles | None:
        """What a URL names, if that is known without a look at a disk."""
        layer = self._watch.known(layer_name)
        if layer is None or (route == "files") != (name is not None):
            return None
        number = layer.layout.parse_bucket(bucket)
        if number is None or (pack := self.shelf.held(layer, variant, number)) is None:
            return None
        return found_pack(layer, pack) if name is None else found_file(layer, pack, name)


class Delivery:
    """One answer that is under way."""

    method = "GET"

    def __init__(
        self,
        direct: Direct,
        head: Head,
        transport: asyncio.Transport,
        answer: Answer,
        done: Callable[[End], None],
    ) -> None:
        self.path = head.path
        self.transport: asyncio.Transport | None = transport
        self._direct = direct
        self._route = head.path.split("/", 2)[1]
        self._answer = answer
        self._done = done
        self._started_at = time.perf_counter()
        self._wire = transport.get_extra_info("socket")
        self._task: asyncio.Task[bool] | None = None
        direct.metrics.in_flight += 1
        self._ask()

    def lose(self) -> None:
        """The client is gone, or is to wait no longer; the turn that began is still waited for."""
        self.transport = None
        if self._task is not None:
            self._task.cancel()

    def _ask(self) -> None:
        """Have the next turn sent, or end."""
        turn = self._answer.turn()
        if turn is None:
            self._end(End.WHOLE)
        elif self.transport is None:
            self._end(End.GONE)
        elif self._answer.is_full:
            self._task = asyncio.create_task(self._direct.sender.go_on(self, self._answer))
            self._task.add_done_callback(self._went_on)
        else:
            self._direct.readers.ask(self._wire, turn, self._came)

    def _came(self, found: Found) -> None:
        """Go on after a turn."""
        sender, answer = self._direct.sender, self._answer
        try:
            if not isinstance(found, Outcome):
                raise found
            sender.note(answer, found)
        except (SyncError, OSError) as error:
            if answer.is_unsent and not isinstance(error, LOST):
                self._end(End.UNSENT)
            else:
                sender.cut(self, answer, error)
                self._end(End.CUT)
        else:
            self._ask()

    def _went_on(self, task: asyncio.Task[bool]) -> None:
        """End after the task, which may have been cancelled before it began."""
        if task.cancelled():
            self._end(End.GONE)
            return
        error = task.exception()
        if error is None:
            self._end(End.WHOLE if task.result() else End.CUT)
        elif self._answer.is_unsent:
            self._end(End.UNSENT)
        else:
            self._direct.sender.cut(self, self._answer, error)
            self._end(End.CUT)

    def _end(self, end: End) -> None:
        metrics = self._direct.metrics
        metrics.in_flight -= 1
        if end is End.UNSENT and self.transport is None:
            end = End.GONE
        if end is not End.UNSENT:
            status = WENT_AWAY if end is End.GONE else self._answer.reply.status.value
            metrics.count(self._route, status, time.perf_counter() - self._started_at)
            self._direct.shelf.hits += 1
        self._done(end)
