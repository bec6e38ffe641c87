"""The publisher's lock is its own: workers that are forks of it may end a moment later."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from manifests.errors import SyncError
from server.repository import Repository


def hold(end: Connection) -> None:
    """Be there until told."""
    end.send(None)
    end.recv()


def test_a_fork_does_not_hold_the_lock(tmp_path: Path) -> None:
    repository, context = Repository(root=tmp_path), get_context("fork")
    end, other_end = context.Pipe()
    fork = context.Process(target=hold, args=(other_end,))
    with repository.locked():
        fork.start()
        end.recv()
        with pytest.raises(SyncError, match="another run"), repository.locked():
            pass
    with repository.locked():
        pass
    end.send(None)
    fork.join()
