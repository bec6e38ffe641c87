"""Assets: files of a release that are no entries, kept as objects.

They are few beside the entries, so a batch of paths is a unit of work.  An asset is read once,
while its copy is written, unless the last look at it still holds and its object is there.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgpack
import numpy as np
from msgspec import Struct

from manifests.digest import Digest
from manifests.errors import ConfigError, StoreError
from manifests.model import MAX_ASSETS, Asset
from manifests.paths import SafePath
from server.publishing.hashing import Taker
from server.publishing.links import Method, Stage, Target
from server.publishing.look import is_racy
from server.repository import Repository
from syncclient.tree import FileStat, open_below

_BATCH: Final = 64
_VERSION: Final = 1
_NS: Final = 10**9


class Seen(NamedTuple):
    """What an asset looked like when it was read, from ``at_ns`` on."""

    size_bytes: int
    mtime_ns: int
    inode: int
    at_ns: int
    digest: bytes

    def holds(self, stat: FileStat) -> bool:
        """Whether the file must still have the same bytes."""
        racy = bool(is_racy(np.array([self.mtime_ns]), self.at_ns)[0])
        return self[:3] == stat and not racy


class AssetTask(Struct, frozen=True, kw_only=True):
    """Some assets of a tree; ``seen`` by path is what is remembered."""

    tree: str
    repository: Repository
    paths: tuple[str, ...]
    seen: Mapping[str, Seen]
    date_ns: int


class StoredAsset(Struct, frozen=True, kw_only=True):
    """One asset whose object is in the repository; ``hashed`` says that it was read for that."""

    path: str
    seen: Seen
    hashed: bool

    @property
    def asset(self) -> Asset:
        """How a descriptor names it."""
        digest = Digest(self.seen.digest)
        return Asset(path=SafePath(self.path), size_bytes=self.seen.size_bytes, digest=digest)


def store_assets(task: AssetTask) -> list[StoredAsset]:
    """Make an object of each asset; StoreError names one that cannot be read or changed twice."""
    root_fd = os.open(task.tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    target = Target(
        layer=os.fspath(task.repository.stages),
        stages=os.fspath(task.repository.stages),
        date_ns=task.date_ns,
        methods=(Method.REFLINK, Method.COPY),
    )
    # Each task has a stage of its own, since the tasks of a run are done side by side.
    stage = Stage(target, "assets", secrets.token_hex(8))
    try:
        return [_store(task, root_fd, path, stage) for path in task.paths]
    finally:
        stage.close()
        os.close(root_fd)


def _store(task: AssetTask, root_fd: int, path: str, stage: Stage) -> StoredAsset:
    folder, _, name = path.rpartition("/")
    parts = tuple(folder.split("/")) if folder else ()
    at_ns = time.time_ns()
    try:
        folder_fd = open_below(root_fd, parts)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    try:
        known = _known(task, path, name, folder_fd)
        if known is not None:
            return StoredAsset(path=path, seen=known, hashed=False)
        taken = Taker(folder_fd, folder or ".", stage).take(name, None)
    finally:
        os.close(folder_fd)
    task.repository.adopt_object(stage.path / name, Digest(taken.digest))
    return StoredAsset(path=path, seen=Seen(*taken.stat, at_ns, taken.digest), hashed=True)


def _known(task: AssetTask, path: str, name: str, folder_fd: int) -> Seen | None:
    seen = task.seen.get(path)
    if seen is None:
        return None
    try:
        info = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        stored = task.repository.object_path(Digest(seen.digest)).stat().st_size
    except FileNotFoundError:
        return None
    same = seen.holds(FileStat(info.st_size, info.st_mtime_ns, info.st_ino))
    return seen if same and stored == seen.size_bytes else None


def asset_tasks(
    tree: Path,
    repository: Repository,
    paths: Sequence[SafePath],
    seen: Mapping[str, Seen],
    date: int,
) -> list[AssetTask]:
    """The work of storing assets, in batches; ``seen`` by path is what is remembered."""
    texts = [path.text for path in paths]
    return [
        AssetTask(
            tree=str(tree),
            repository=repository,
            paths=batch,
            seen={path: seen[path] for path in batch if path in seen},
            date_ns=date * _NS,
        )
        for batch in (tuple(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH))
    ]


def limit_assets(
    tree: Path, found: Iterable[SafePath], named: Sequence[Path]
) -> tuple[SafePath, ...]:
    """The assets of a release in order: all that were found, or those at or below ``named``.

    Named paths are relative to the tree.  Raises ConfigError for one where no asset lies, and if
    there are more assets than a release can have.
    """
    assets = tuple(sorted(found))
    if named:
        wanted = [_below_tree(tree, path) for path in named]
        for path in wanted:
            if not any(_is_at(asset, path) for asset in assets):
                raise ConfigError(f"--asset {path}: there is no asset at this path of {tree}")
        assets = tuple(a for a in assets if any(_is_at(a, path) for path in wanted))
    if len(assets) > MAX_ASSETS:
        raise ConfigError(
            f"{tree} has {len(assets):,} files that are no entries, such as {assets[0]}; "
            f"a release can have {MAX_ASSETS:,} of them",
            hint="Name those that shall be published with --asset, or move the others away.",
        )
    return assets


def _below_tree(tree: Path, path: Path) -> str:
    """A path as text relative to the tree; it may be given as an absolute one."""
    relative = path.relative_to(tree.absolute()) if path.is_absolute() else path
    return relative.as_posix().removeprefix("./")


def _is_at(asset: SafePath, path: str) -> bool:
    return asset.text == path or asset.text.startswith(f"{path}/")


def encode_seen(stored: Iterable[StoredAsset]) -> bytes:
    """What to remember of the assets of a tree."""
    return bytes(msgpack.packb((_VERSION, {item.path: item.seen for item in stored})))


def decode_seen(data: bytes | None) -> dict[str, Seen]:
    """What is remembered; empty if there is nothing that this version can read."""
    version, seen = msgpack.unpackb(data) if data is not None else (0, {})
    return {path: Seen(*fields) for path, fields in seen.items()} if version == _VERSION else {}
