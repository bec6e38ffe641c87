"""A crew: tasks in other processes, results in order, and what becomes of a process that dies."""

from __future__ import annotations

import operator
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from manifests.errors import StoreError, SyncError
from syncclient.crew import Crew
from syncclient.tasks import FolderTask, list_task


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def crew(stop: threading.Event) -> Iterator[Crew]:
    made = Crew(2, stop)
    yield made
    made.close()


def test_every_task_gets_its_own_result(crew: Crew) -> None:
    tickets = [crew.submit(operator.neg, number) for number in range(100)]
    # In whatever order they are asked for.
    assert [ticket.result() for ticket in reversed(tickets)] == [-n for n in reversed(range(100))]


def test_processes_share_the_tasks(crew: Crew) -> None:
    tickets = [crew.submit(time.sleep, 0.0) for _ in range(4)]
    assert len({id(ticket._hand) for ticket in tickets}) == 2
    assert [ticket.result() for ticket in tickets] == [None] * 4


def test_no_pipe_is_too_narrow(crew: Crew) -> None:
    """Neither end may wait for the other to read while it does not read itself."""
    large = os.urandom(3 * 2**20)
    tickets = [crew.submit(bytes, large) for _ in range(10)]
    assert all(ticket.result() == large for ticket in tickets)


def test_an_error_is_raised_where_the_result_is_asked_for(crew: Crew) -> None:
    failing = crew.submit(list_task, FolderTask("/dev/null", ()))
    after = crew.submit(operator.neg, 1)
    with pytest.raises(StoreError, match="Not a directory") as caught:
        failing.result()
    assert "never read as empty" in caught.value.hint
    assert after.result() == -1


def test_a_process_that_dies_ends_the_run_with_an_error(crew: Crew) -> None:
    ticket = crew.submit(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(SyncError, match="ended unexpectedly"):
        ticket.result()


def test_who_waits_is_stopped(crew: Crew, stop: threading.Event) -> None:
    ticket = crew.submit(time.sleep, 3600)
    stop.set()
    with pytest.raises(CancelledError):
        ticket.result()
