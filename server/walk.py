"""What lies in a publisher's folder: variants, buckets, entries, assets, and what is out of place.

Three calls, each a plain function of plain values, so that a worker process can make it:
:func:`find_variants`, :func:`walk_variant` (its bucket folders) and :func:`walk_bucket` (one
folder: names and stats, no file is opened).  The rules:

* An *entry* is a regular file ``VARIANT/BUCKET/ID.EXT`` in its own bucket, one an id.
* Any other regular file with a safe path is an *asset*, published as it is.  If its name is that
  of an entry, it is a stray as well: its author put it into the wrong bucket.
* Of names that differ only in case, and of files with the same id, the first in byte order stays.
  The others are left out, like links, devices and names that other systems refuse, and are strays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from msgspec import Struct, field
from msgspec.structs import replace

from manifests.errors import ConfigError, ManifestError
from manifests.paths import (
    METADATA_FOLDER,
    Layout,
    SafePath,
    asset_path,
    check_variant,
    component_problem,
    parse_entry_name,
)
from syncclient.tree import Listing, list_bucket, printable

_OTHER_KINDS = {"symlink": "it is a symbolic link", "special": "it is neither a file nor a folder"}
# VARIANT/BUCKET
_BUCKET_DEPTH = 2


class StrayKind(StrEnum):
    """How a name in a variant's folder is out of place."""

    WRONG_BUCKET = "wrong-bucket"
    CASE_TWIN = "case-twin"
    DUPLICATE_ID = "duplicate-id"
    MISPLACED = "misplaced"
    ODD_NAME = "odd-name"


class Stray(Struct, frozen=True, kw_only=True):
    """One name out of place: its path below the tree, for people; id 0 where it has none."""

    kind: StrayKind
    path: str
    reason: str
    post_id: int = 0


class FolderWalk(Struct, frozen=True, kw_only=True):
    """What a folder holds besides entries: assets in byte order, and strays."""

    assets: tuple[SafePath, ...] = ()
    strays: tuple[Stray, ...] = ()


class VariantWalk(FolderWalk, frozen=True, kw_only=True):
    """A variant's folder: the names of its bucket folders, in order, and what lies beside them."""

    buckets: tuple[str, ...] = ()


class BucketWalk(FolderWalk, frozen=True, kw_only=True, eq=False):
    """A bucket's folder: its entries, by ascending id, and what lies among them."""

    entries: Listing


# --------------------------------------------------------------------------- variants


def find_variants(tree: Path, layout: Layout, named: Sequence[str] = ()) -> tuple[str, ...]:
    """The variants of a tree in name order: those ``named``, else all folders with bucket folders.

    Raises ConfigError if there is none, a named one has no folder, a folder with buckets cannot be
    a variant (its name, or because it is a link), or two differ only in case.
    """
    if not tree.is_dir():
        message = f"{tree}: expected a folder with variants in it"
        raise ConfigError(message)
    variants = sorted(set(named)) or sorted(folders_with_buckets(tree, layout))
    for variant in variants:
        _check_variant(tree, variant)
    folded = [variant.casefold() for variant in variants]
    if len(set(folded)) < len(folded):
        message = f"{tree}: variants differ only in case: {', '.join(variants)}"
        raise ConfigError(message, hint="Rename one; Windows and macOS would mix them up.")
    if not variants:
        message = f"{tree}: no folder has bucket folders such as {layout.bucket_name(0)} in it"
        raise ConfigError(
            message,
            hint="Name --variant, or tell init (or audit) how buckets are named here: "
            "--buckets and --digits.",
        )
    return tuple(variants)


def folders_with_buckets(tree: Path, layout: Layout) -> Iterator[str]:
    """Folders of a tree that are variants as far as can be told from what is in them."""
    with os.scandir(tree) as found:
        for item in found:
            hidden = item.name.startswith(".") or item.name.casefold() == METADATA_FOLDER
            if not hidden and item.is_dir() and _has_bucket(item.path, layout):
                yield item.name


def _has_bucket(folder: str, layout: Layout) -> bool:
    with os.scandir(folder) as found:
        return any(layout.parse_bucket(item.name) is not None and item.is_dir() for item in found)


def _check_variant(tree: Path, variant: str) -> None:
    folder = tree / variant
    try:
        check_variant(variant)
    except ManifestError as error:
        message = f"{folder}: {error.problem}"
        raise ConfigError(message, hint="Rename the folder, or name the variants.") from error
    if folder.is_symlink() or not folder.is_dir():
        message = f"{folder}: expected the folder of a variant"
        raise ConfigError(message, hint="Links are not followed; a bind mount is.")


# --------------------------------------------------------------------------- folders


def walk_variant(tree: Path, variant: str, layout: Layout) -> VariantWalk:
    """Bucket folders of a variant, and everything in its folder that is none."""
    listing = list_bucket(str(tree), (variant,))
    buckets = [
        name
        for name, kind in listing.others
        if kind == "folder" and layout.parse_bucket(name) is not None
    ]
    walker = _Walker(tree=str(tree), layout=layout, variant=variant)
    walker.visit((variant,), listing, apart=frozenset(buckets))
    return VariantWalk(
        buckets=tuple(sorted(buckets)), assets=tuple(walker.assets), strays=tuple(walker.strays)
    )


def walk_bucket(tree: Path, variant: str, bucket: str, layout: Layout) -> BucketWalk:
    """Names and stats of one bucket folder; StoreError if a part of its path is a link."""
    listing = list_bucket(str(tree), (variant, bucket))
    own = listing.ids % layout.buckets == int(bucket)
    repeated = np.zeros(len(listing), np.bool_)
    repeated[1:] = listing.ids[1:] == listing.ids[:-1]
    walker = _Walker(tree=str(tree), layout=layout, variant=variant)
    walker.visit((variant, bucket), listing.take(~own))
    doubles = [
        _double(f"{variant}/{bucket}", listing, row) for row in np.flatnonzero(own & repeated)
    ]
    return BucketWalk(
        entries=replace(listing.take(own & ~repeated), others=()),
        assets=tuple(walker.assets),
        strays=(*walker.strays, *doubles),
    )


def walk_assets(
    tree: Path, layout: Layout, *, below: tuple[str, ...] = (), apart: Iterable[str] = ()
) -> FolderWalk:
    """Everything in a folder that holds no entries, without the names ``apart`` directly in it."""
    walker = _Walker(tree=str(tree), layout=layout)
    walker.visit(below, list_bucket(str(tree), below), apart=frozenset(apart))
    return FolderWalk(assets=tuple(walker.assets), strays=tuple(walker.strays))


def _double(folder: str, listing: Listing, row: np.intp) -> Stray:
    """The stray for a row whose id an earlier row has as well."""
    name, start = listing.name(int(row)), int(np.searchsorted(listing.ids, listing.ids[row]))
    earlier = [listing.name(place) for place in range(start, int(row))]
    twin = next((other for other in earlier if other.casefold() == name.casefold()), None)
    return Stray(
        kind=StrayKind.DUPLICATE_ID if twin is None else StrayKind.CASE_TWIN,
        path=f"{folder}/{name}",
        reason=f"left out: {twin or earlier[0]} comes first and is kept",
        post_id=int(listing.ids[row]),
    )


class _Walker(Struct, kw_only=True):
    """Collects assets and strays of folders; ``variant`` is empty outside of variants."""

    tree: str
    layout: Layout
    variant: str = ""
    assets: list[SafePath] = field(default_factory=list)
    strays: list[Stray] = field(default_factory=list)

    def visit(
        self, parts: tuple[str, ...], listing: Listing, *, apart: frozenset[str] = frozenset()
    ) -> None:
        """Take everything of one folder, in byte order of the names, and of the folders in it."""
        named = [(listing.name(row), "file") for row in range(len(listing))]
        found = [pair for pair in (*named, *listing.others) if pair[0] not in apart]
        kept: dict[str, str] = {}
        for name, kind in sorted(found, key=lambda pair: os.fsencode(pair[0])):
            path = "/".join((*parts, name))
            twin = kept.setdefault(name.casefold(), name)
            if twin != name:
                reason = f"left out: {printable(twin)} comes first and is kept"
                self._stray(StrayKind.CASE_TWIN, path, reason)
            elif problem := _OTHER_KINDS.get(kind) or _path_problem(
                path, self.layout, self.variant
            ):
                self._stray(StrayKind.MISPLACED, path, f"left out: {problem}")
            elif kind == "folder":
                inner = (*parts, name)
                self.visit(inner, list_bucket(self.tree, inner))
            else:
                self._take(parts, name, path)

    def _take(self, parts: tuple[str, ...], name: str, path: str) -> None:
        """A regular file with a safe path: an asset, and perhaps a stray."""
        self.assets.append(asset_path(path))
        entry = parse_entry_name(name)
        if not self.variant or len(parts) > _BUCKET_DEPTH or not _like_bucket(parts):
            return
        if entry is not None:
            right = self.layout.bucket_name(self.layout.bucket_of(entry[0]))
            reason = f"belongs in {self.variant}/{right}; published where it is"
            self._stray(StrayKind.WRONG_BUCKET, path, reason)
        elif len(parts) == _BUCKET_DEPTH:
            reason = "not named ID.EXT, so no post's file; published as it is"
            self._stray(StrayKind.ODD_NAME, path, reason)

    def _stray(self, kind: StrayKind, path: str, reason: str) -> None:
        entry = parse_entry_name(path.rpartition("/")[2])
        post_id = entry[0] if entry else 0
        self.strays.append(Stray(kind=kind, path=printable(path), reason=reason, post_id=post_id))


def _like_bucket(parts: tuple[str, ...]) -> bool:
    """A variant's own folder, or one in it that looks like a bucket."""
    return len(parts) == 1 or parts[1].isdigit()


def _path_problem(path: str, layout: Layout, variant: str) -> str:
    """Why a path can be no asset; empty if it can."""
    if problem := component_problem(path.rpartition("/")[2]):
        return f"its name {problem}"
    try:
        safe = asset_path(path)
    except ManifestError as error:
        return error.problem
    parts = safe.folded.split("/")
    taken = parts[0] == variant.casefold() != "" and layout.claims(parts)
    return "it stands where some systems have an entry or a bucket" if taken else ""
