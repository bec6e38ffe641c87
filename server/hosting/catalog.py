"""What a repository serves now: its live releases and layers, read again when a new one is signed.

``tuf/metadata/timestamp.json`` is replaced by every signature and by nothing else, so its stat
says whether to look further.  Signatures are for clients to check; a host reads its own files.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from datetime import datetime
from pathlib import Path
from typing import Final

from msgspec import Struct
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Snapshot, T, TargetFile, Targets, Timestamp

from manifests.errors import ConfigError, SyncError, TrustError
from manifests.model import Descriptor, LayerRef
from manifests.notices import TARGET_NAME as NOTICES_NAME
from manifests.paths import Layout
from syncclient.tree import FileStat

# How long a known layer is served without a look at whether something was signed meanwhile.
CHECK_INTERVAL_S: Final = 1.0
_DESCRIPTOR_SUFFIX: Final = ".msgpack"


class ServedLayer(Struct, frozen=True, kw_only=True):
    """One layer, and how its dataset spreads ids over buckets."""

    ref: LayerRef
    layout: Layout


class Catalog(Struct, frozen=True, kw_only=True):
    """The live releases and all layers that any of them has.

    ``descriptors`` are by the SHA-256 of their target, ``layers`` by name.  ``fingerprint`` is the
    SHA-256 of 1.root.json in hexadecimal, which clients pin; ``expires`` is when the first of
    timestamp, snapshot and targets does.
    """

    stamp: FileStat
    fingerprint: str
    expires: datetime
    descriptors: Mapping[str, Descriptor]
    layers: Mapping[str, ServedLayer]

    @property
    def releases(self) -> list[Descriptor]:
        """The releases, oldest first."""
        return sorted(self.descriptors.values(), key=lambda item: (item.created, item.release))


def load_catalog(repo: Path, known: Catalog | None = None) -> Catalog:
    """Read what is live; descriptors that ``known`` holds are not read again.

    Raises ConfigError if this is no repository, TrustError or ManifestError if it is damaged.
    """
    stamp = _stamp(repo)
    timestamp = _signed(Timestamp, repo, "timestamp.json")
    snapshot = _signed(Snapshot, repo, f"{timestamp.snapshot_meta.version}.snapshot.json")
    version = snapshot.meta["targets.json"].version
    targets = _signed(Targets, repo, f"{version}.targets.json")
    held = known.descriptors if known else {}
    descriptors = {
        info.hashes["sha256"]: held.get(info.hashes["sha256"]) or _descriptor(repo, info)
        for name, info in targets.targets.items()
        if name.endswith(_DESCRIPTOR_SUFFIX) and name != NOTICES_NAME
    }
    return Catalog(
        stamp=stamp,
        fingerprint=hashlib.sha256((repo / "tuf/metadata/1.root.json").read_bytes()).hexdigest(),
        expires=min(timestamp.expires, snapshot.expires, targets.expires),
        descriptors=descriptors,
        layers={
            layer.name: ServedLayer(ref=layer, layout=descriptor.layout)
            for descriptor in descriptors.values()
            for layer in descriptor.layers
        },
    )


def _stamp(repo: Path) -> FileStat:
    path = repo / "tuf" / "metadata" / "timestamp.json"
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"{repo} is not a repository: tuf/metadata/timestamp.json is missing",
            hint="Make one with `bucketsync-server init`.",
        ) from error
    return FileStat(info.st_size, info.st_mtime_ns, info.st_ino)


def _signed(kind: type[T], repo: Path, name: str) -> T:
    path = repo / "tuf" / "metadata" / name
    try:
        signed = Metadata.from_bytes(path.read_bytes()).signed
    except (FileNotFoundError, RepositoryError) as error:
        raise TrustError(
            f"{path}: no signed metadata: {error}", hint="Restore tuf/ from a backup or a mirror."
        ) from error
    if not isinstance(signed, kind):
        raise TrustError(f"{path}: expected the role {kind.type}, got {signed.type}")
    return signed


def _descriptor(repo: Path, info: TargetFile) -> Descriptor:
    path = repo / "tuf" / "targets" / info.get_prefixed_paths()[0]
    try:
        data = path.read_bytes()
        info.verify_length_and_hashes(data)
    except (FileNotFoundError, RepositoryError) as error:
        raise TrustError(
            f"{path}: not the descriptor that was signed: {error}",
            hint="Restore tuf/ from a backup or a mirror.",
        ) from error
    return Descriptor.decode(data, info.path)


class CatalogWatch:
    """The catalog of a repository, kept up to date; all its reading is done by ``executor``.

    ``problem`` says why the last look failed; it is empty if all is well.
    """

    def __init__(self, repo: Path, executor: Executor, warn: Callable[[str], None]) -> None:
        self._repo = repo
        self._executor = executor
        self._warn = warn
        self._catalog: Catalog
        self._looked_at = 0.0
        self._looking = asyncio.Lock()
        self.problem = ""

    async def start(self) -> None:
        """Read the catalog for the first time; errors as in :func:`load_catalog`."""
        loop = asyncio.get_running_loop()
        self._catalog = await loop.run_in_executor(self._executor, load_catalog, self._repo)
        self._looked_at = time.monotonic()

    async def current(self) -> Catalog:
        """The catalog, at most CHECK_INTERVAL_S old."""
        if time.monotonic() - self._looked_at >= CHECK_INTERVAL_S:
            await self._look()
        return self._catalog

    def known(self, name: str) -> ServedLayer | None:
        """A layer, if that can be said without looking; None if not."""
        if time.monotonic() - self._looked_at >= CHECK_INTERVAL_S:
            return None
        return self._catalog.layers.get(name)

    async def layer(self, name: str) -> ServedLayer | None:
        """A layer; an unknown one is looked for again at once, since it may just be signed."""
        catalog = await self.current()
        if name not in catalog.layers:
            await self._look()
        return self._catalog.layers.get(name)

    async def _look(self) -> None:
        """Read again if something was signed; what cannot be read leaves the old state served."""
        asked_at = time.monotonic()
        async with self._looking:
            if self._looked_at > asked_at:
                return
            loop = asyncio.get_running_loop()
            started_at = time.monotonic()
            try:
                self._catalog = await loop.run_in_executor(self._executor, self._reload)
                self.problem = ""
            except (SyncError, OSError) as error:
                self.problem = str(error)
                self._warn(f"still serving what was published before: {error}")
            self._looked_at = started_at

    def _reload(self) -> Catalog:
        if _stamp(self._repo) == self._catalog.stamp:
            return self._catalog
        return load_catalog(self._repo, self._catalog)
