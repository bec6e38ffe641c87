"""Assets in a tree: the few files of a release that are no entries (README, lists, stray files).

The same rules as for entries, one file at a time; there are at most 100,000 of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from manifests.errors import StoreError
from manifests.model import Asset, Descriptor
from manifests.paths import SafePath
from syncclient.places import Places
from syncclient.state import AssetRecord, State, unsure_if_racy
from syncclient.tree import FileStat, hash_open, open_below, open_regular, stat_of


@dataclass(slots=True, kw_only=True)
class AssetSurvey:
    """What is right, what to fetch (with what may be replaced), what to remove."""

    kept: list[Asset] = field(default_factory=list)
    added: list[Asset] = field(default_factory=list)
    changed: list[tuple[Asset, FileStat]] = field(default_factory=list)
    foreign: list[Asset] = field(default_factory=list)
    remove: list[tuple[SafePath, FileStat]] = field(default_factory=list)

    @property
    def fetch(self) -> list[tuple[Asset, FileStat | None]]:
        """Assets whose bytes are needed, and what each may replace."""
        new = [(asset, None) for asset in [*self.added, *self.foreign]]
        return [*new, *self.changed]

    @property
    def fetch_bytes(self) -> int:
        """Bytes of those."""
        return sum(asset.size_bytes for asset, _ in self.fetch)


def wanted_assets(descriptor: Descriptor, variants: Iterable[str], *, whole: bool) -> list[Asset]:
    """The assets that come with a selection: all of whole variants', none with a part of one."""
    if not whole:
        return []
    others = set(descriptor.variants) - set(variants)
    return [asset for asset in descriptor.assets if asset.path.parts[0] not in others]


def survey_assets(
    wanted: list[Asset], past: Iterable[Descriptor], places: Places, state: State
) -> AssetSurvey:
    """Compare assets with the tree; what was read is recorded.  Blocking."""
    survey, records = AssetSurvey(), state.load_assets()
    history: dict[str, set[bytes]] = {}
    for descriptor in past:
        for asset in descriptor.assets:
            history.setdefault(asset.path.text, set()).add(asset.digest.raw)
    for asset in wanted:
        found = _look(asset.path, places, records, state)
        ours = history.get(asset.path.text, set()) | {asset.digest.raw}
        if found is None:
            survey.added.append(asset)
        elif found[1] == asset.digest.raw:
            survey.kept.append(asset)
        elif found[1] in ours:
            survey.changed.append((asset, found[0]))
        else:
            survey.foreign.append(asset)
    names = {asset.path.text for asset in wanted}
    survey.remove = _dropped(history, names, places, records, state)
    return survey


def _dropped(
    history: Mapping[str, set[bytes]],
    wanted: set[str],
    places: Places,
    records: Mapping[str, AssetRecord],
    state: State,
) -> list[tuple[SafePath, FileStat]]:
    """Assets of an earlier release that are none any more but still have its bytes."""
    dropped = []
    for text in sorted(history.keys() - wanted):
        path = SafePath(text)
        found = _look(path, places, records, state)
        if found is not None and found[1] in history[text]:
            dropped.append((path, found[0]))
    return dropped


def _look(
    path: SafePath, places: Places, records: Mapping[str, AssetRecord], state: State
) -> tuple[FileStat, bytes] | None:
    """Stat and digest of what stands at a path; None for nothing, b"" for no plain file."""
    root, folder = places.asset(path)
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            folder_fd = open_below(root_fd, folder)
        finally:
            os.close(root_fd)
    except FileNotFoundError:
        return None
    try:
        return _look_in(folder_fd, path, records.get(path.text), state)
    finally:
        os.close(folder_fd)


def _look_in(
    folder_fd: int, path: SafePath, record: AssetRecord | None, state: State
) -> tuple[FileStat, bytes] | None:
    try:
        fd = open_regular(path.parts[-1], dir_fd=folder_fd)
    except FileNotFoundError:
        return None
    except OSError:
        return FileStat(0, 0, 0), b""
    try:
        now = stat_of(fd)
        if record and (record.size_bytes, record.mtime_ns) == (now.size_bytes, now.mtime_ns):
            return now, record.digest
        looked_ns = time.time_ns()
        with suppress(StoreError):
            read = hash_open(fd, with_chunks=False)
            mtime = unsure_if_racy(np.array([read.stat.mtime_ns], np.int64), looked_ns)
            known = AssetRecord(
                size_bytes=read.stat.size_bytes, mtime_ns=int(mtime[0]), digest=read.digest
            )
            state.store_asset(path.text, known)
            return read.stat, read.digest
        return now, b""
    finally:
        os.close(fd)


def target_of(asset: Asset, places: Places) -> tuple[Path, tuple[str, ...], str]:
    """Root, folder names and file name of an asset."""
    root, folder = places.asset(asset.path)
    return root, folder, asset.path.parts[-1]
