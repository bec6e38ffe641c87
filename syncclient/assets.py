"""Assets in a tree: the few files of a release that are no entries (README, lists, stray files).

The same rules as for entries, one file at a time; there are at most 100,000 of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, field

from manifests.errors import StoreError
from manifests.model import Asset, Descriptor
from manifests.paths import SafePath
from syncclient.files import UNSURE, FileStat, hash_open, open_below, open_regular, stat_of
from syncclient.places import Places
from syncclient.state import AssetRecord, State, sure_mtime


class AssetSurvey(Struct, kw_only=True):
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


class Found(Struct, frozen=True, kw_only=True):
    """What stands at a path; ``recorded`` if our record holds, b"" is the digest of no file.

    ``mtime_ns`` is what may be recorded of its time.
    """

    stat: FileStat
    digest: bytes
    recorded: bool = False
    mtime_ns: int = UNSURE


def survey_assets(
    wanted: list[Asset], past: Iterable[Descriptor], places: Places, state: State
) -> AssetSurvey:
    """Compare assets with the tree; what was read of our own is recorded.  Blocking."""
    survey, records = AssetSurvey(), state.load_assets()
    history: dict[str, set[bytes]] = {}
    for descriptor in past:
        for asset in descriptor.assets:
            history.setdefault(asset.path.text, set()).add(asset.digest.raw)
    for asset in wanted:
        found = look_at(asset.path, places, records.get(asset.path.text))
        ours = history.get(asset.path.text, set()) | {asset.digest.raw}
        if found is None:
            survey.added.append(asset)
            continue
        if found.digest == asset.digest.raw:
            survey.kept.append(asset)
        elif found.recorded or found.digest in ours:
            survey.changed.append((asset, found.stat))
        else:
            survey.foreign.append(asset)
        record = records.get(asset.path.text)
        if found.digest in ours and (record is None or record.digest != found.digest):
            known = AssetRecord(
                size_bytes=found.stat.size_bytes, mtime_ns=found.mtime_ns, digest=found.digest
            )
            state.store_asset(asset.path.text, known)
    names = {asset.path.text for asset in wanted}
    survey.remove = _dropped(history, names, places, records)
    return survey


def _dropped(
    history: Mapping[str, set[bytes]],
    wanted: set[str],
    places: Places,
    records: Mapping[str, AssetRecord],
) -> list[tuple[SafePath, FileStat]]:
    """Assets of an earlier release that are none any more but are still ours."""
    dropped = []
    for text in sorted(history.keys() - wanted):
        path = SafePath(text)
        # Where a folder of theirs is a file or a link by now, they are not there.
        with suppress(StoreError):
            found = look_at(path, places, records.get(text))
            if found is not None and (found.recorded or found.digest in history[text]):
                dropped.append((path, found.stat))
    return dropped


def look_at(path: SafePath, places: Places, record: AssetRecord | None) -> Found | None:
    """What stands at a path; None for nothing.  StoreError where a folder is a link or a file.

    A file whose record holds is not read.
    """
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
        return _look_in(folder_fd, path.parts[-1], record)
    finally:
        os.close(folder_fd)


def _look_in(folder_fd: int, name: str, record: AssetRecord | None) -> Found | None:
    try:
        fd = open_regular(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return None
    except OSError:
        return Found(stat=FileStat(0, 0, 0), digest=b"")
    try:
        now, looked_ns = stat_of(fd), time.time_ns()
        seen = (now.size_bytes, now.mtime_ns)
        recorded = record is not None and (record.size_bytes, record.mtime_ns) == seen
        # One that was found wrong once may have been put right since by a run that was killed.
        if record is not None and recorded and any(record.digest):
            return Found(stat=now, digest=record.digest, recorded=True)
        try:
            read = hash_open(fd, with_chunks=False)
        except StoreError:
            return Found(stat=now, digest=b"")
        mtime_ns = sure_mtime(read.stat.mtime_ns, looked_ns)
        return Found(stat=read.stat, digest=read.digest, recorded=recorded, mtime_ns=mtime_ns)
    finally:
        os.close(fd)


def target_of(asset: Asset, places: Places) -> tuple[Path, tuple[str, ...], str]:
    """Root, folder names and file name of an asset."""
    root, folder = places.asset(asset.path)
    return root, folder, asset.path.parts[-1]
