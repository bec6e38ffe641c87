"""The folders of a tree's own records, and the lock that one run holds on the tree."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from manifests.digest import Digest
from manifests.errors import ConfigError, ExitCode, StoreError
from syncclient.config import private_folder
from syncclient.state import STATE_NAME

_UNLOCKABLE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class Folders(Struct, frozen=True, kw_only=True):
    """Where a tree's own records lie: in the tree, or in a folder the user named for them."""

    private: Path
    records: Path

    @property
    def trust(self) -> Path:
        """The pinned root and TUF's metadata; not a cache."""
        return self.records / "tuf"

    @property
    def cache(self) -> Path:
        """Manifests by digest; a cache."""
        return self.records / "cache"

    @property
    def releases(self) -> Path:
        """Descriptors that were verified, by release; proof in themselves."""
        return self.records / "releases"

    @property
    def state(self) -> Path:
        """The state file; a cache."""
        return self.records / STATE_NAME


def folders_of(tree: Path, state_dir: Path | None) -> Folders:
    """The folders of a tree; a state folder is split by tree, so that it can serve several."""
    private = private_folder(tree)
    if state_dir is None:
        return Folders(private=private, records=private)
    name = Digest.of(os.fsencode(tree.resolve())).hex[:16]
    return Folders(private=private, records=state_dir / f"{tree.resolve().name}-{name}")


def refuse_links(tree: Path) -> None:
    """StoreError if a link stands for a folder or file of the client's own.

    What is written there goes by path, so a link would lead out of the tree.
    """
    private = private_folder(tree)
    try:
        found = [private] if private.is_symlink() else list(private.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        message = f"{private}: {error.strerror}"
        raise StoreError(message) from error
    for path in found:
        if path.is_symlink():
            message = f"{path} is a symbolic link, and bucketsync writes through none"
            raise StoreError(
                message, hint="Take it away. Records may lie elsewhere with --state-dir."
            )


@asynccontextmanager
async def locked(tree: Path) -> AsyncIterator[None]:
    """Hold the tree's lock; ConfigError (exit 11) while another run does.

    The lock saves work; what keeps the tree right is the store.  So a file system without locks is
    no obstacle.
    """
    refuse_links(tree)
    folder = private_folder(tree)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(folder / "lock", flags, 0o666)
    except OSError as error:
        message = f"{folder / 'lock'}: {error.strerror}"
        raise StoreError(message) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another run is working on {tree}"
            raise ConfigError(
                message, hint="Wait for it to end.", exit_code=ExitCode.LOCKED
            ) from None
        except OSError as error:
            if error.errno not in _UNLOCKABLE:
                raise
        yield
    finally:
        os.close(fd)
