"""The frozen releases: today's decoder reads them, today's encoder says the same again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import blake3
import numpy.typing as npt
import pytest

from manifests import manifest
from manifests.columns import Entries
from manifests.digest import Digest
from manifests.layers import LayerPart, compose
from manifests.manifest import Header, Removed
from manifests.model import Descriptor, ManifestRef
from manifests.notices import Notices
from tests.support import make_examples

FOLDER = Path(__file__).parents[3] / "manifests" / "examples"
# BLAKE3 of descriptor.msgpack, which vouches for the objects, and of expected.json.
FROZEN = {
    "tiny": (
        "a271cb27aefb3e93f481b8855ee987e3c04853da48ee769e2d72202714892016",
        "93896e4bf7f59077d01aa734b943745f535a3ca21f68b191ca5a3737dd90dd57",
    ),
    "layers": (
        "48305713356eb65894bb2955e129830d9e2b59fdad121ae783bdab38228b9405",
        "58eee6a6f2bc1451c54ef70231b065fd4c448336c9547693c20f30a50da40cf4",
    ),
    "tagged": (
        "ac9161ea9e89607240c88b2c24220ee5914f1fc65aae52d9dbfd35c6854a892d",
        "67be82e47cfbcb8144d8c05ce5eedfd08980baae357c32257159e7342a4874b6",
    ),
}


@dataclass(frozen=True)
class Manifest:
    """A manifest of an example, read by the project's own decoder."""

    data: bytes
    ref: ManifestRef
    layer: int

    @cached_property
    def header(self) -> Header:
        return manifest.decode_header(self.data[: self.ref.header_bytes], self.ref)

    @cached_property
    def entries(self) -> Entries:
        starts = self.header.row_start.tolist()
        rows = range(len(self.header))
        frames = [self.data[starts[row] : starts[row + 1]] for row in rows]
        return manifest.decode_rows(self.header, rows, frames, self.layer)

    @cached_property
    def removed(self) -> Removed:
        return manifest.decode_removed(self.header, self.data[self.header.removed_start :])


@dataclass(frozen=True)
class Example:
    """One frozen release."""

    name: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @cached_property
    def expected(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads((self.folder / "expected.json").read_bytes())
        return value

    @cached_property
    def descriptor(self) -> Descriptor:
        return Descriptor.decode((self.folder / "descriptor.msgpack").read_bytes())

    def read_object(self, digest: Digest) -> bytes:
        data = (self.folder / "objects" / digest.hex[:2] / digest.hex).read_bytes()
        assert Digest.of(data) == digest
        return data

    @cached_property
    def manifests(self) -> dict[str, Manifest]:
        return {
            f"{layer.name}/{variant}": Manifest(self.read_object(ref.digest), ref, number)
            for number, layer in enumerate(self.descriptor.layers)
            for variant, ref in layer.manifests.items()
        }


@pytest.fixture(params=sorted(FROZEN))
def example(request: pytest.FixtureRequest) -> Example:
    return Example(request.param)


def test_all_examples_are_here() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(FROZEN)


def test_the_examples_are_never_rewritten(example: Example) -> None:
    names = ("descriptor.msgpack", "expected.json")
    digests = [blake3.blake3((example.folder / name).read_bytes()).hexdigest() for name in names]
    assert tuple(digests) == FROZEN[example.name]


def test_the_descriptor_is_read(example: Example) -> None:
    read, expected = example.descriptor, example.expected["descriptor"]
    assert Digest.of(read.encode()).hex == example.expected["descriptor_digest"]
    assert [read.dataset, read.release, read.base] == [
        expected[key] for key in ("dataset", "release", "base")
    ]
    assert [read.created, read.layout.buckets, read.layout.digits] == [
        expected[key] for key in ("created", "buckets", "digits")
    ]
    assert make_examples.in_hex([layer.to_map() for layer in read.layers]) == expected["layers"]
    assert make_examples.in_hex([asset.to_map() for asset in read.assets]) == expected["assets"]
    index = read.tag_index
    assert make_examples.in_hex(index and index.to_map()) == expected.get("tag_index")
    tables = make_examples.in_hex([table.to_map() for table in read.tables])
    assert tables == expected.get("metadata", [])
    assert {
        name: {"files": total.files, "bytes": total.file_bytes}
        for name, total in read.totals.items()
    } == expected["variants"]


def rows_of(header: Header) -> list[dict[str, Any]]:
    columns: dict[str, npt.NDArray[Any]] = {
        "bucket": header.row_bucket,
        "first": header.row_first,
        "count": header.row_count,
        "bytes": header.row_bytes,
        "length": header.row_length,
    }
    return [
        {key: int(column[row]) for key, column in columns.items()}
        | {"digest": header.row_digest[row].tobytes().hex()}
        for row in range(len(header))
    ]


def entries_of(entries: Entries) -> list[dict[str, Any]]:
    starts = entries.chunk_starts().tolist()
    chunks = [chunk.tobytes().hex() for chunk in entries.chunks]
    return [
        {
            "id": int(entries.ids[row]),
            "extension": entries.extension(row),
            "size": int(entries.sizes[row]),
            "digest": entries.digests[row].tobytes().hex(),
            "chunks": [
                [digest, len(list(run))]
                for digest, run in groupby(chunks[starts[row] : starts[row + 1]])
            ],
            "pack_offset": int(entries.offsets[row]),
        }
        for row in range(len(entries))
    ]


def removed_of(removed: Removed) -> list[dict[str, Any]]:
    return [
        {"id": post_id, "reason": removed.reasons[code]}
        for post_id, code in zip(removed.ids.tolist(), removed.codes.tolist(), strict=True)
    ]


def test_the_manifests_are_read(example: Example) -> None:
    assert example.manifests.keys() == example.expected["manifests"].keys()
    for name, expected in example.expected["manifests"].items():
        held = example.manifests[name]
        assert entries_of(held.entries) == expected["entries"]
        assert removed_of(held.removed) == expected["removed"]
        header = expected["header"]
        assert rows_of(held.header) == header["rows"]
        assert list(held.header.extensions) == header["extensions"]
        assert list(held.header.reasons) == header["reasons"]
        assert held.header.buckets == header["buckets"] == example.descriptor.layout.buckets
        assert held.header.removed_count == header["removed"]
        assert held.header.removed_length == header["removed_length"]
        assert held.header.removed_digest.hex == header["removed_digest"]


def test_todays_encoder_says_the_same(example: Example) -> None:
    """The values, not the bytes: another version of zstd may compress otherwise."""
    for name, expected in example.expected["manifests"].items():
        held = example.manifests[name]
        data, ref = manifest.encode(held.entries, held.removed, held.header.buckets)
        again = Manifest(data, ref, held.layer)
        assert entries_of(again.entries) == expected["entries"]
        assert removed_of(again.removed) == expected["removed"]
        sums = (ref.entries, ref.file_bytes, ref.removed)
        assert sums == (held.ref.entries, held.ref.file_bytes, held.ref.removed)


def test_the_releases_compose(example: Example) -> None:
    descriptor = example.descriptor
    layout, names = descriptor.layout, [layer.name for layer in descriptor.layers]
    assert sorted(example.expected["release"]) == list(descriptor.variants)
    for variant, expected in example.expected["release"].items():
        parts = [
            LayerPart(entries=held.entries, removed_ids=held.removed.ids)
            for name, held in example.manifests.items()
            if name.endswith(f"/{variant}")
        ]
        entries = compose(parts, layout.buckets)
        found = []
        for row, post_id in enumerate(entries.ids.tolist()):
            layer = names[entries.layers[row]]
            bucket = layout.bucket_name(post_id % layout.buckets)
            found.append(
                {
                    "path": layout.entry_path(variant, post_id, entries.extension(row)).text,
                    "size": int(entries.sizes[row]),
                    "digest": entries.digests[row].tobytes().hex(),
                    "layer": layer,
                    "pack": f"packs/{layer}/{variant}/{bucket}",
                    "pack_offset": int(entries.offsets[row]),
                }
            )
        assert found == expected
        total = descriptor.totals[variant]
        assert (total.files, total.file_bytes) == (len(entries), entries.file_bytes)


def test_the_notices_are_read(example: Example) -> None:
    path = example.folder / "notices.msgpack"
    notices = Notices.decode(path.read_bytes()) if path.exists() else Notices()
    assert make_examples.describe_notices(notices) == example.expected["notices"]


def test_the_assets_are_objects(example: Example) -> None:
    for asset in example.descriptor.assets:
        assert len(example.read_object(asset.digest)) == asset.size_bytes


def test_the_maker_would_make_the_same_values(example: Example) -> None:
    """So the script that is kept is the one that was used."""
    made = make_examples.EXAMPLES[example.name]
    for name, expected in example.expected["manifests"].items():
        assert make_examples.describe_removed(made, *name.split("/")) == expected["removed"]
    for asset in example.descriptor.assets:
        assert Digest.of(made.assets[asset.path.text]) == asset.digest
    for layer, (date, said) in made.layers.items():
        (ref,) = (held for held in example.descriptor.layers if held.name == layer)
        assert (ref.date, set(ref.manifests)) == (date, set(said))
        for variant, words in said.items():
            held = example.expected["manifests"][f"{layer}/{variant}"]["entries"]
            assert {e["id"]: (e["size"], e["extension"]) for e in held} == words.puts
