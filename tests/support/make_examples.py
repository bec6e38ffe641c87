"""Makes the frozen releases in ``manifests/examples/``: ``python -m tests.support.make_examples``.

Only what is not there is made.  An example that was once published with the project is never made
anew: it shows that today's code still reads what an older one wrote.  ``expected.json`` is written
from the tables below, not from what the decoder says.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import blake3
import msgpack
import numpy as np
import zstandard

from manifests import manifest
from manifests.columns import CHUNK_BYTES, Entries
from manifests.digest import Digest, digest_bytes
from manifests.framedref import FramedRef
from manifests.manifest import Removed
from manifests.model import Asset, Descriptor, LayerRef, ManifestRef, TableRef, Totals
from manifests.notices import Absence, Notices
from manifests.paths import Layout, asset_path
from tests.support import tagged_objects, tagged_words

FOLDER = Path(__file__).parents[2] / "manifests" / "examples"
LINE_BYTES = 64
# Number columns of a header's rows, as struct has their types.
ROW_COLUMNS = {"bucket": "I", "first": "I", "count": "H", "bytes": "Q", "length": "I"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a layer says about a variant: ``{id: (size, extension)}`` and ``{id: reason}``."""

    puts: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    removes: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A release in words; ``layers`` maps a name to its date and what it says of each variant."""

    dataset: str
    layout: Layout
    layers: Mapping[str, tuple[int, Mapping[str, Said]]]
    variants: tuple[str, ...]
    assets: Mapping[str, bytes]
    notices: Notices | None = None
    # With the metadata of :mod:`tests.support.tagged_words`, as index and as these tables.
    tables: tuple[str, ...] = ()


MANY = {number: (number, "png") for number in range(10, 1310, 10)}
EXAMPLES = {
    "tiny": Example(
        dataset="tiny",
        layout=Layout(buckets=4, digits=1),
        layers={
            "tiny2020": (
                1_600_000_000,
                {"original": Said(puts={1: (10, "png"), 2: (0, "jpg"), 5: (200, "png")})},
            )
        },
        variants=("original",),
        assets={"README.md": b"A tiny release.\n"},
    ),
    "layers": Example(
        dataset="skies",
        layout=Layout(buckets=10, digits=2),
        layers={
            "skies2019": (
                1_577_836_799,
                {
                    "original": Said(
                        puts={
                            **MANY,
                            1: (CHUNK_BYTES, "jpg"),
                            11: (CHUNK_BYTES + 1, "mp4"),
                            21: (2**32 + 5, "zip"),
                            7: (77, "JPG"),
                            2**32 - 1: (1, "png"),
                        }
                    ),
                    "thumbs": Said(puts={1: (5, "gif")}),
                },
            ),
            "skies2020": (
                1_609_459_199,
                {
                    "original": Said(
                        puts={10: (1010, "png"), 7: (78, "jpg"), 1311: (9, "png")},
                        removes={20: "withdrawn", 2**32 - 1: "duplicate of 7"},
                    ),
                    "512px": Said(puts={1: (100, "jpg"), 7: (700, "jpg"), 11: (110, "jpg")}),
                },
            ),
            "skies2021": (
                1_640_995_199,
                {
                    "original": Said(
                        puts={20: (2020, "png"), 12: (12, "webp")}, removes={1311: "withdrawn"}
                    ),
                    "512px": Said(removes={11: "withdrawn"}),
                },
            ),
        },
        variants=("original", "512px"),
        assets={
            "README.md": b"Three years of skies.\n",
            "docs/a..b.txt": b"",
            "docs/\u00e9t\u00e9/\u7a7a.txt": b"a path beyond ASCII\n",
        },
        notices=Notices(
            absences=(
                Absence(
                    layer="skies2019",
                    variant="original",
                    ids=np.array([30, 40], np.uint32),
                    reason="overwritten by the publisher",
                ),
            )
        ),
    ),
    "tagged": Example(
        dataset="skies",
        layout=Layout(buckets=4, digits=1),
        layers={
            "skies2022": (
                1_640_995_200,
                {
                    "original": Said(
                        puts={1: (11, "png"), 5: (50, "mp4"), 8: (80, "png"), 70_000: (7, "jpg")}
                    )
                },
            )
        },
        variants=("original",),
        assets={},
        tables=("posts", "tag_aliases"),
    ),
}


def line_of(layer: str, variant: str, post_id: int) -> bytes:
    """What the bytes of an entry's file repeat: 64 bytes, the last a line feed."""
    return f"{layer}/{variant}/{post_id}".ljust(LINE_BYTES - 1).encode() + b"\n"


@cache
def digests_of(line: bytes, size: int) -> tuple[bytes, list[tuple[bytes, int]]]:
    """Digest of a file of repeated lines, and of its chunks as (digest, how many in a row)."""
    chunk = line * (CHUNK_BYTES // LINE_BYTES)
    full, rest = divmod(size, CHUNK_BYTES)
    whole = blake3.blake3()
    for _ in range(full):
        whole.update(chunk)
    whole.update(chunk[:rest])
    chunks = [(digest_bytes(chunk), full), (digest_bytes(chunk[:rest]), 1 if rest else 0)]
    runs = [run for run in chunks if run[1]]
    return whole.digest(), runs if size > CHUNK_BYTES else []


def _in_order(ids: Mapping[int, object], buckets: int) -> list[int]:
    return sorted(ids, key=lambda post_id: (post_id % buckets, post_id))


def describe(example: Example, layer: str, variant: str) -> list[dict[str, Any]]:
    """The entries of one manifest as ``expected.json`` has them."""
    puts, offsets = example.layers[layer][1][variant].puts, dict[int, int]()
    described = []
    for post_id in _in_order(puts, example.layout.buckets):
        size, extension = puts[post_id]
        digest, chunks = digests_of(line_of(layer, variant, post_id), size)
        bucket = post_id % example.layout.buckets
        described.append(
            {
                "id": post_id,
                "extension": extension,
                "size": size,
                "digest": digest.hex(),
                "chunks": [[chunk.hex(), count] for chunk, count in chunks],
                "pack_offset": offsets.setdefault(bucket, 0),
            }
        )
        offsets[bucket] += size
    return described


def encode(example: Example, layer: str, variant: str) -> tuple[bytes, ManifestRef]:
    """The manifest itself."""
    said, described = example.layers[layer][1][variant], describe(example, layer, variant)
    table = tuple(dict.fromkeys(entry["extension"] for entry in described))
    chunks = [bytes.fromhex(c) * n for entry in described for c, n in entry["chunks"]]
    digests = [bytes.fromhex(entry["digest"]) for entry in described]
    entries = Entries(
        extensions=table,
        ids=np.array([entry["id"] for entry in described], np.uint32),
        sizes=np.array([entry["size"] for entry in described], np.uint64),
        exts=np.array([table.index(entry["extension"]) for entry in described], np.uint8),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        offsets=np.zeros(len(described), np.uint64),
        layers=np.zeros(len(described), np.uint16),
        chunks=np.frombuffer(b"".join(chunks), np.uint8).reshape(-1, 32),
    )
    ids = _in_order(said.removes, example.layout.buckets)
    reasons = sorted(set(said.removes.values()))
    removed = Removed(
        ids=np.array(ids, np.uint32),
        codes=np.array([reasons.index(said.removes[post_id]) for post_id in ids], np.uint8),
        reasons=tuple(reasons),
    )
    return manifest.encode(entries, removed, example.layout.buckets)


def compose(example: Example, variant: str) -> list[dict[str, Any]]:
    """The files of a release, by path."""
    held: dict[int, dict[str, Any]] = {}
    layout = example.layout
    for layer, (_, said) in example.layers.items():
        if variant not in said:
            continue
        for entry in describe(example, layer, variant):
            bucket = layout.bucket_name(entry["id"] % layout.buckets)
            held[entry["id"]] = {
                "path": f"{variant}/{bucket}/{entry['id']}.{entry['extension']}",
                "size": entry["size"],
                "digest": entry["digest"],
                "layer": layer,
                "pack": f"packs/{layer}/{variant}/{bucket}",
                "pack_offset": entry["pack_offset"],
            }
        for post_id in said[variant].removes:
            held.pop(post_id, None)
    return [held[post_id] for post_id in _in_order(held, layout.buckets)]


def describe_descriptor(
    example: Example,
    refs: Mapping[tuple[str, str], ManifestRef],
    tag_index: FramedRef | None,
    tables: tuple[TableRef, ...],
) -> Descriptor:
    """The descriptor of an example whose manifests are made."""
    releases = {variant: compose(example, variant) for variant in example.variants}
    names = list(example.layers)
    return Descriptor(
        dataset=example.dataset,
        release=names[-1],
        base=names[-2] if len(names) > 1 else None,
        created=example.layers[names[-1]][0],
        layout=example.layout,
        layers=tuple(
            LayerRef(
                name=layer,
                date=date,
                manifests={variant: refs[layer, variant] for variant in said},
            )
            for layer, (date, said) in example.layers.items()
        ),
        totals={
            variant: Totals(files=len(files), file_bytes=sum(file["size"] for file in files))
            for variant, files in releases.items()
        },
        assets=tuple(
            Asset(path=asset_path(path), size_bytes=len(data), digest=Digest.of(data))
            for path, data in sorted(example.assets.items())
        ),
        tag_index=tag_index,
        tables=tables,
    )


def in_hex(value: object) -> object:
    """A document with digests, and other bytes, in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: in_hex(inner) for key, inner in value.items()}
    return [in_hex(inner) for inner in value] if isinstance(value, list) else value


def describe_header(data: bytes) -> dict[str, Any]:
    """The header of a manifest, its columns turned into rows."""
    (length,) = struct.unpack_from("<I", data, 8)
    document = msgpack.unpackb(zstandard.decompress(data[16 : 16 + length]))
    digests = document.pop("digest")
    columns = {
        key: struct.unpack(f"<{document['rows']}{kind}", document.pop(key))
        for key, kind in ROW_COLUMNS.items()
    }
    document["rows"] = [
        {key: column[row] for key, column in columns.items()}
        | {"digest": digests[32 * row : 32 * row + 32].hex()}
        for row in range(document["rows"])
    ]
    return {key: in_hex(value) for key, value in document.items()}


def describe_removed(example: Example, layer: str, variant: str) -> list[dict[str, Any]]:
    """The ids that a layer takes away, and why."""
    removes = example.layers[layer][1][variant].removes
    ids = _in_order(removes, example.layout.buckets)
    return [{"id": post_id, "reason": removes[post_id]} for post_id in ids]


def describe_notices(notices: Notices | None) -> list[dict[str, Any]]:
    """What is unavailable."""
    return [
        {
            "layer": absence.layer,
            "variant": absence.variant,
            "reason": absence.reason,
            "ids": absence.ids.tolist(),
        }
        for absence in (notices.absences if notices else ())
    ]


def describe_metadata(
    index: tuple[bytes, FramedRef], tables: list[tuple[bytes, TableRef]]
) -> dict[str, Any]:
    """What ``expected.json`` has of a release with metadata besides."""
    rows = tagged_words.describe_rows()
    return {
        "tag_index": tagged_words.describe_index()
        | {"header": tagged_objects.describe_header(*index)},
        "tables": {
            table.name: {
                "header": tagged_objects.describe_header(data, table.ref),
                "rows": rows[table.name],
            }
            for data, table in tables
        },
    }


def make(name: str) -> None:
    """Write one example."""
    example, folder = EXAMPLES[name], FOLDER / name
    made = {
        (layer, variant): encode(example, layer, variant)
        for layer, (_, said) in example.layers.items()
        for variant in said
    }
    refs = {key: ref for key, (_, ref) in made.items()}
    index = tagged_objects.tag_index() if example.tables else None
    tables = [tagged_objects.table(table) for table in example.tables]
    data = describe_descriptor(
        example, refs, index[1] if index else None, tuple(ref for _, ref in tables)
    ).encode()
    framed = [blob for blob, _ in [*([index] if index else []), *tables]]
    for blob in [*(blob for blob, _ in made.values()), *example.assets.values(), *framed]:
        digest = Digest.of(blob).hex
        path = folder / "objects" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
    (folder / "descriptor.msgpack").write_bytes(data)
    if example.notices is not None:
        (folder / "notices.msgpack").write_bytes(example.notices.encode())
    expected = {
        "descriptor_digest": Digest.of(data).hex,
        "descriptor": in_hex(msgpack.unpackb(data)),
        "manifests": {
            f"{layer}/{variant}": {
                "header": describe_header(blob),
                "entries": describe(example, layer, variant),
                "removed": describe_removed(example, layer, variant),
            }
            for (layer, variant), (blob, _) in made.items()
        },
        "release": {variant: compose(example, variant) for variant in example.variants},
        "notices": describe_notices(example.notices),
    }
    if index:
        expected |= describe_metadata(index, tables)
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Make what is not there."""
    for name in EXAMPLES:
        if not (FOLDER / name).exists():
            make(name)


if __name__ == "__main__":
    main()
