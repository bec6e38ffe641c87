"""A repository on the publisher's disk: where things lie, its objects, its releases, its lock.

    REPO/tuf/                       signed metadata and targets (server.signing)
    REPO/objects/ab/abcd…           manifests and assets by BLAKE3; never changed
    REPO/files/LAYER/VARIANT/BUCKET/ID.EXT, REPO/packs/LAYER/VARIANT/BUCKET
    REPO/files/.tmp/                what the present run has not finished; emptied by the next one
    REPO/.publish/                  settings, records and locks; no client needs them

What is written here is neither synced for good nor named by anything until
:func:`sync_file_system` and a signature follow.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final
from weakref import WeakSet

from msgspec import Struct

from manifests.digest import Digest
from manifests.errors import ExitCode, StoreError, SyncError, TrustError
from manifests.model import Descriptor
from manifests.notices import TARGET_NAME, Notices
from server.signing import Signing

DESCRIPTOR_SUFFIX: Final = ".msgpack"
OBJECT_MODE: Final = 0o444
# Two gigabytes of new files left for the end kept one processor of two busy for four seconds.
_SYNC_EVERY_S: Final = 2.0


_syncfs: Final = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
_locks: Final[WeakSet[IO[bytes]]] = WeakSet()


def _close_locks() -> None:
    """Leave them to the publisher: a worker that is a fork of it may end a moment later."""
    for lock in _locks:
        lock.close()


os.register_at_fork(after_in_child=_close_locks)


class Repository(Struct, frozen=True, kw_only=True):
    """One repository, by its folder."""

    root: Path

    @property
    def private(self) -> Path:
        """The publisher's own folder."""
        return self.root / ".publish"

    @property
    def stages(self) -> Path:
        """What the present run has not finished; on the same file system as the layers."""
        return self.root / "files" / ".tmp"

    def layer_folder(self, layer: str) -> Path:
        """The files of a layer."""
        return self.root / "files" / layer

    def pack_folder(self, layer: str) -> Path:
        """The materialised packs of a layer."""
        return self.root / "packs" / layer

    def object_path(self, digest: Digest) -> Path:
        """Where an object lies, or would lie."""
        return self.root / "objects" / digest.hex[:2] / digest.hex

    def put_object(self, data: bytes) -> Digest:
        """Store some bytes under their digest, unless they are there already."""
        digest = Digest.of(data)
        path = self.object_path(digest)
        if not path.is_file() or path.read_bytes() != data:
            temporary = self.new_temporary()
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OBJECT_MODE)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            self.adopt_object(temporary, digest)
        return digest

    def adopt_object(self, temporary: Path, digest: Digest) -> None:
        """Make a finished temporary file, which nobody may write to, the object of its digest."""
        path = self.object_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)

    def new_temporary(self) -> Path:
        """The path of a new file of the present run."""
        self.stages.mkdir(parents=True, exist_ok=True)
        return self.stages / secrets.token_hex(8)

    def remove_stages(self) -> None:
        """Take away what earlier runs did not finish.

        A worker of a run that was just killed may still be making a file in its own stage: what
        cannot be taken away for that goes next time.
        """
        shutil.rmtree(self.stages, ignore_errors=True)

    def remove_layer(self, layer: str) -> None:
        """Take away everything of a layer that was never signed."""
        folders = (
            self.layer_folder(layer),
            self.pack_folder(layer),
            self.private / "served" / layer,
        )
        for folder in folders:
            if folder.exists():
                shutil.rmtree(folder)

    @contextmanager
    def written_early(self) -> Iterator[None]:
        """Bring what is written to the disk all the while, so that little is left for the end.

        What the disk refuses meanwhile is raised in the end.
        """
        done, problems = threading.Event(), list[Exception]()

        def sync() -> None:
            try:
                while not done.wait(_SYNC_EVERY_S):
                    sync_file_system(self.root)
            except (OSError, StoreError) as error:
                problems.append(error)

        thread = threading.Thread(target=sync, name="sync")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if problems:
            raise problems[0]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only publisher of this repository; SyncError (exit 11) if somebody else is."""
        self.private.mkdir(exist_ok=True)
        with (self.private / "publish.lock").open("ab") as lock:
            _locks.add(lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise SyncError(
                    f"another run is publishing into {self.root}",
                    hint="Wait until it has ended, or end it; then run this again.",
                    exit_code=ExitCode.LOCKED,
                ) from error
            yield


class History(Struct, frozen=True, kw_only=True):
    """What a repository has published: releases by name, and notices about them."""

    releases: dict[str, Descriptor]
    notices: Notices

    @property
    def newest(self) -> Descriptor | None:
        """The release with the latest date, as clients tell it; of several, the last by name."""
        return max(
            self.releases.values(),
            key=lambda release: (release.created, release.release),
            default=None,
        )

    @property
    def layers(self) -> frozenset[str]:
        """The names of all layers that a release has."""
        return frozenset(
            layer.name for release in self.releases.values() for layer in release.layers
        )


def read_history(signing: Signing) -> History:
    """Every release that is live; TrustError or ManifestError if one is damaged."""
    releases, notices = {}, Notices()
    for name, info in signing.targets().items():
        data = signing.read_target(info)
        if name == TARGET_NAME:
            notices = Notices.decode(data)
        elif name.endswith(DESCRIPTOR_SUFFIX):
            descriptor = Descriptor.decode(data, name)
            releases[descriptor.release] = descriptor
            if name != f"{descriptor.release}{DESCRIPTOR_SUFFIX}":
                raise TrustError(f"{name}: a descriptor of {descriptor.release!r}")
    return History(releases=releases, notices=notices)


def sync_file_system(path: Path) -> None:
    """Bring all that was written to the file system of ``path`` to the disk (Linux: syncfs(2))."""
    if _syncfs is None:
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _syncfs(fd) != 0:
            problem = os.strerror(ctypes.get_errno())
            raise StoreError(f"{path}: the disk did not take everything: {problem}")
    finally:
        os.close(fd)
