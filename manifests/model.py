"""The descriptor of a release: what one signature vouches for.

A descriptor names its layers, their manifests and its assets by BLAKE3 and size.  It is a
canonical msgpack map (:mod:`manifests.codec`); its bytes are a TUF target, and its BLAKE3 is its
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from manifests import codec
from manifests.codec import Fields
from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.framedref import FramedRef
from manifests.paths import (
    Layout,
    SafePath,
    asset_path,
    check_name,
    check_variant,
)
from manifests.torrents.refs import TorrentSet

MAX_DESCRIPTOR_BYTES = 32 * 2**20
MAX_LAYERS = 1000
MAX_VARIANTS = 64
MAX_ASSETS = 100_000
# Kinds of metadata: posts, tags, aliases, notes and so on.
MAX_TABLES = 100
# Decompressed or not; 100 million entries have a header of 45 MiB.
MAX_HEADER_BYTES = 512 * 2**20
# Ids that one layer takes away: its list, five bytes each, is read in one piece.
MAX_REMOVED = 2**26
# 9999-12-31: the last day that calendars of programs know.
MAX_TIME_S = 253_402_300_799
# 1 TiB less one byte: sizes are stored in 40 bits (docs/reference/format.md).
MAX_FILE_BYTES = 2**40 - 1


class ManifestRef(Struct, frozen=True, kw_only=True):
    """One manifest object, as the descriptor names it.

    ``header_bytes`` and ``header_digest`` let a client fetch and check the header alone;
    ``entries``, ``file_bytes`` and ``removed`` are what the header must add up to.
    """

    digest: Digest
    size_bytes: int
    header_digest: Digest
    header_bytes: int
    entries: int
    file_bytes: int
    removed: int

    def to_map(self) -> dict[str, Any]:
        """The map that stands in the descriptor."""
        return {
            "digest": self.digest.raw,
            "size": self.size_bytes,
            "header_digest": self.header_digest.raw,
            "header_size": self.header_bytes,
            "entries": self.entries,
            "bytes": self.file_bytes,
            "removed": self.removed,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> ManifestRef:
        """Read it back; a header may not be larger than its object."""
        size = fields.uint("size")
        return cls(
            digest=fields.digest("digest"),
            size_bytes=size,
            header_digest=fields.digest("header_digest"),
            header_bytes=fields.uint("header_size", min(size, MAX_HEADER_BYTES)),
            entries=fields.uint("entries", 2**32 - 1),
            file_bytes=fields.uint("bytes"),
            removed=fields.uint("removed", MAX_REMOVED),
        )


class LayerRef(Struct, frozen=True, kw_only=True):
    """What one release added to its base; ``date`` (Unix seconds) is the mtime of its files."""

    name: str
    date: int
    manifests: Mapping[str, ManifestRef]
    # By variant; a layer that was published without torrents has none.
    torrents: Mapping[str, TorrentSet] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        """The map that stands in the descriptor."""
        sets = {variant: found.to_map() for variant, found in self.torrents.items()}
        return ({"torrents": sets} if sets else {}) | {
            "name": self.name,
            "date": self.date,
            "manifests": {variant: ref.to_map() for variant, ref in self.manifests.items()},
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> LayerRef:
        """Read it back, with every name checked."""
        held = fields.map("manifests")
        variants = held.keys()
        if len(variants) > MAX_VARIANTS:
            raise ManifestError(held.where, f"more than {MAX_VARIANTS} variants")
        _refuse_twins(variants, held.where)
        return cls(
            name=check_name(fields.text("name"), fields.place("name"), "layer"),
            date=fields.uint("date", MAX_TIME_S),
            manifests={
                check_variant(name, held.place(name)): ManifestRef.from_fields(held.map(name))
                for name in variants
            },
            torrents=_torrents(fields, variants),
        )


class Asset(Struct, frozen=True, kw_only=True):
    """A file of a release that is no entry; its bytes are the object of its digest."""

    path: SafePath
    size_bytes: int
    digest: Digest

    def to_map(self) -> dict[str, Any]:
        """The map that stands in the descriptor."""
        return {"path": self.path.text, "size": self.size_bytes, "digest": self.digest.raw}

    @classmethod
    def from_fields(cls, fields: Fields) -> Asset:
        """Read it back, with its path checked."""
        return cls(
            path=asset_path(fields.text("path", 4096), fields.place("path")),
            size_bytes=fields.uint("size", MAX_FILE_BYTES),
            digest=fields.digest("digest"),
        )


class TableRef(Struct, frozen=True, kw_only=True):
    """Rows of metadata, as the publisher's files have them: one table, such as ``posts``.

    ``rows`` and ``raw_bytes`` (the lines with their ends) are for display and planning.
    """

    name: str
    rows: int
    raw_bytes: int
    ref: FramedRef

    def to_map(self) -> dict[str, Any]:
        """The map that stands in the descriptor."""
        stated = {"name": self.name, "rows": self.rows, "bytes": self.raw_bytes}
        return stated | self.ref.to_map()

    @classmethod
    def from_fields(cls, fields: Fields) -> TableRef:
        """Read it back, with its name checked."""
        return cls(
            name=check_name(fields.text("name"), fields.place("name"), "table"),
            rows=fields.uint("rows", 2**32 - 1),
            raw_bytes=fields.uint("bytes"),
            ref=FramedRef.from_fields(fields),
        )


class Totals(Struct, frozen=True, kw_only=True):
    """Files and bytes of one variant of a whole release."""

    files: int
    file_bytes: int


class Descriptor(Struct, frozen=True, kw_only=True):
    """One published, immutable edition of a dataset; layers oldest first, its own last."""

    dataset: str
    release: str
    base: str | None
    created: int
    layout: Layout
    layers: tuple[LayerRef, ...]
    totals: Mapping[str, Totals]
    assets: tuple[Asset, ...] = field(default=())
    # What the publisher's metadata say of the posts; releases without metadata have neither.
    tag_index: FramedRef | None = None
    tables: tuple[TableRef, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of the release, in name order."""
        return tuple(sorted(self.totals))

    def encode(self) -> bytes:
        """The canonical bytes; their BLAKE3 is the release's own name."""
        stated: dict[str, Any] = {}
        if self.tag_index is not None:
            stated["tag_index"] = self.tag_index.to_map()
        if self.tables:
            stated["metadata"] = [table.to_map() for table in self.tables]
        return codec.encode(
            stated
            | {
                "format": codec.FORMAT,
                "dataset": self.dataset,
                "release": self.release,
                "base": self.base,
                "created": self.created,
                "buckets": self.layout.buckets,
                "digits": self.layout.digits,
                "layers": [layer.to_map() for layer in self.layers],
                "variants": {
                    name: {"files": total.files, "bytes": total.file_bytes}
                    for name, total in self.totals.items()
                },
                "assets": [asset.to_map() for asset in self.assets],
            }
        )

    @classmethod
    def decode(cls, data: bytes, where: str = "descriptor") -> Descriptor:
        """Read and check a descriptor; ManifestError names the place of whatever is wrong."""
        fields = codec.decode(data, where, max_bytes=MAX_DESCRIPTOR_BYTES)
        totals = fields.map("variants")
        descriptor = cls(
            dataset=check_name(fields.text("dataset"), fields.place("dataset"), "dataset"),
            release=check_name(fields.text("release"), fields.place("release"), "release"),
            base=_optional_name(fields, "base"),
            created=fields.uint("created", MAX_TIME_S),
            layout=_layout(fields),
            layers=tuple(LayerRef.from_fields(item) for item in fields.maps("layers", MAX_LAYERS)),
            totals={name: _totals(totals.map(name)) for name in totals.keys()},  # noqa: SIM118
            assets=tuple(Asset.from_fields(item) for item in fields.maps("assets", MAX_ASSETS)),
            tag_index=_optional_index(fields),
            tables=_tables(fields),
        )
        _check_layers(descriptor, where)
        _check_assets(descriptor, where)
        return descriptor


def _optional_name(fields: Fields, key: str) -> str | None:
    if not fields.has(key):
        return None
    return check_name(fields.text(key), fields.place(key), "release")


def _optional_index(fields: Fields) -> FramedRef | None:
    return FramedRef.from_fields(fields.map("tag_index")) if fields.has("tag_index") else None


def _torrents(fields: Fields, variants: list[str]) -> dict[str, TorrentSet]:
    if not fields.has("torrents"):
        return {}
    sets = fields.map("torrents")
    for name in sets.keys():  # noqa: SIM118 (checked on the way)
        if name not in variants:
            raise ManifestError(sets.place(name), "the layer has no such variant")
    return {name: TorrentSet.from_fields(sets.map(name)) for name in sets.keys()}  # noqa: SIM118


def _tables(fields: Fields) -> tuple[TableRef, ...]:
    if not fields.has("metadata"):
        return ()
    tables = tuple(TableRef.from_fields(item) for item in fields.maps("metadata", MAX_TABLES))
    names = [table.name for table in tables]
    if sorted(set(map(str.casefold, names))) != list(map(str.casefold, names)):
        raise ManifestError(fields.place("metadata"), "tables are not ascending, each name once")
    return tables


def _layout(fields: Fields) -> Layout:
    buckets, digits = fields.uint("buckets"), fields.uint("digits")
    try:
        return Layout(buckets=buckets, digits=digits)
    except ManifestError as error:
        raise error.within(fields.where) from error


def _totals(fields: Fields) -> Totals:
    return Totals(files=fields.uint("files", 2**32 - 1), file_bytes=fields.uint("bytes"))


def _refuse_twins(names: list[str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault(name.casefold(), name)
        if twin != name:
            raise ManifestError(where, f"{twin!r} and {name!r} differ only in case")


def _check_layers(descriptor: Descriptor, where: str) -> None:
    """The last layer is the release's own, names are unique, totals and layers agree."""
    names = [layer.name for layer in descriptor.layers]
    _refuse_twins(names, f"{where}.layers")
    if len(set(names)) != len(names):
        raise ManifestError(f"{where}.layers", "two layers have the same name")
    if not names or names[-1] != descriptor.release:
        raise ManifestError(f"{where}.layers", f"the last one must be {descriptor.release!r}")
    held = {variant for layer in descriptor.layers for variant in layer.manifests}
    _refuse_twins(sorted(held | set(descriptor.totals)), f"{where}.variants")
    if not set(descriptor.totals) <= held:
        missing = sorted(set(descriptor.totals) - held)
        raise ManifestError(f"{where}.variants", f"no layer holds {missing}")
    for name, total in descriptor.totals.items():
        refs = [layer.manifests[name] for layer in descriptor.layers if name in layer.manifests]
        if total.files > sum(r.entries for r in refs):
            raise ManifestError(
                f"{where}.variants.{name}.files", f"{total.files} is more than the layers hold"
            )


def _check_assets(descriptor: Descriptor, where: str) -> None:
    """Assets are sorted, collide with no other path, and lie where no entry can."""
    variants = {name.casefold() for name in descriptor.totals}
    folders: set[str] = set()
    files: dict[str, str] = {}
    previous = ""
    for index, asset in enumerate(descriptor.assets):
        place, text, folded = f"{where}.assets[{index}].path", asset.path.text, asset.path.folded
        if text <= previous:  # no path is empty
            raise ManifestError(place, f"{text!r} is not after {previous!r}")
        previous = text
        if folded in files:
            raise ManifestError(place, f"{text!r} and {files[folded]!r} name one file")
        files[folded] = text
        parts = folded.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        if parts[0] in variants and descriptor.layout.claims(parts):
            raise ManifestError(place, f"{text!r} is the place of an entry")
    for folded in files.keys() & folders:
        raise ManifestError(f"{where}.assets", f"{files[folded]!r} is a file and a folder")
