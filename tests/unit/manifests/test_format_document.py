"""A reader written from docs/reference/format.md alone, without a line of the project's code.

It reads the frozen examples and must find in them what ``expected.json`` says.  If this file has
to change, then the format has changed, or the document was wrong.  ``test_format_metadata.py`` is
the rest of it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.page_reader import MIB, decompress, digest, document

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(
    path.parent for path in (ROOT / "manifests" / "examples").glob("*/expected.json")
)
CHUNK = 4 * MIB


# ----------------------------------------------------------------------------------- "Manifest"


class Row(NamedTuple):
    """A row of a header, and where its frame lies."""

    bucket: int
    first: int
    entries: int
    file_bytes: int
    length: int
    digest: bytes
    start: int
    pack_offset: int


class Entry(NamedTuple):
    """One entry."""

    id: int
    extension: str
    size: int
    digest: bytes
    chunks: list[bytes]
    pack_offset: int


class Manifest:
    """Reads an object by ranges, as over HTTP, and counts what it asked for."""

    def __init__(self, path: Path, ref: dict[str, Any], buckets: int) -> None:
        self.path, self.ref, self.fetched = path, ref, 0
        head = self.fetch(0, ref["header_size"])
        assert digest(head) == ref["header_digest"]
        magic, length, raw_bytes = struct.unpack("<8sII", head[:16])
        assert magic == b"bsyncmf1"
        assert ref["header_size"] == 16 + length
        raw = decompress(head[16:], min(512 * MIB, 2 * MIB + 54 * ref["entries"]))
        assert len(raw) == raw_bytes
        self.header = document(raw)
        assert self.header["buckets"] == buckets
        self.rows = list(self.read_rows())
        self.check()

    def fetch(self, start: int, stop: int) -> bytes:
        self.fetched += stop - start
        data = self.path.read_bytes()[start:stop]
        assert len(data) == stop - start
        return data

    def read_rows(self) -> Iterator[Row]:
        header, start = self.header, self.ref["header_size"]
        count = header["rows"]
        columns = [
            struct.unpack(f"<{count}{kind}", header[key])
            for key, kind in (("bucket", "I"), ("first", "I"), ("count", "H"), ("bytes", "Q"))
        ]
        lengths = struct.unpack(f"<{count}I", header["length"])
        digests = [header["digest"][32 * row : 32 * row + 32] for row in range(count)]
        pack_ends: dict[int, int] = {}
        for numbers, length, name in zip(
            zip(*columns, strict=True), lengths, digests, strict=True
        ):
            bucket, first, entries, file_bytes = numbers
            offset = pack_ends.get(bucket, 0)
            yield Row(bucket, first, entries, file_bytes, length, name, start, offset)
            start, pack_ends[bucket] = start + length, offset + file_bytes

    def check(self) -> None:
        """The rules of the section "Header"."""
        rows, header, ref = self.rows, self.header, self.ref
        places = [(row.bucket, row.first) for row in rows]
        assert places == sorted(set(places))
        for row in rows:
            assert row.bucket < header["buckets"]
            assert row.first <= (2**32 - 1) // header["buckets"]
            assert 1 <= row.entries <= 128
            assert row.file_bytes <= (
                2**40 - 1 if row.entries == 1 else (4096 + row.entries) * CHUNK
            )
            raw = self.raw_limit(row)
            assert row.length <= raw + raw // 256 + 1024
        assert sum(row.entries for row in rows) == ref["entries"]
        assert sum(row.file_bytes for row in rows) == ref["bytes"]
        assert header["removed"] == ref["removed"]
        sizes = [ref["header_size"], *(row.length for row in rows), header["removed_length"]]
        assert sum(sizes) == ref["size"]

    def raw_limit(self, row: Row) -> int:
        return 42 * row.entries + 32 * (row.file_bytes // CHUNK + row.entries)

    def read_frame(self, number: int) -> list[Entry]:
        """The section "Frame"."""
        row, table = self.rows[number], self.header["extensions"]
        data = self.fetch(row.start, row.start + row.length)
        assert digest(data) == row.digest
        raw, n = decompress(data, self.raw_limit(row)), row.entries
        steps = struct.unpack_from(f"<{n}I", raw, 0)
        low = struct.unpack_from(f"<{n}I", raw, 4 * n)
        high, codes = raw[8 * n : 9 * n], raw[9 * n : 10 * n]
        assert steps[0] == 0
        assert all(steps[1:])
        entries, slot, offset, chunk = [], row.first, row.pack_offset, 42 * n
        for i in range(n):
            slot, size = slot + steps[i], low[i] + (high[i] << 32)
            chunks = -(-size // CHUNK) if size > CHUNK else 0
            named = [raw[at : at + 32] for at in range(chunk, chunk + 32 * chunks, 32)]
            post_id = slot * self.header["buckets"] + row.bucket
            assert 1 <= post_id <= 2**32 - 1
            name = raw[10 * n + 32 * i : 10 * n + 32 * i + 32]
            entries.append(Entry(post_id, table[codes[i]], size, name, named, offset))
            offset, chunk = offset + size, chunk + 32 * chunks
        assert chunk == len(raw)
        assert sum(entry.size for entry in entries) == row.file_bytes
        following = self.rows[number + 1 : number + 2]
        if following and following[0].bucket == row.bucket:
            assert slot < following[0].first
        return entries

    def read_removed(self) -> list[tuple[int, str]]:
        """The section "Removed ids"."""
        n, size = self.header["removed"], self.ref["size"]
        data = self.fetch(size - self.header["removed_length"], size)
        assert digest(data) == self.header["removed_digest"]
        if not n:
            assert data == b""
            return []
        raw = decompress(data, 5 * n)
        assert len(raw) == 5 * n
        ids = struct.unpack_from(f"<{n}I", raw, 0)
        order = [(post_id % self.header["buckets"], post_id) for post_id in ids]
        assert order == sorted(set(order))
        return [
            (i, self.header["reasons"][code]) for i, code in zip(ids, raw[4 * n :], strict=True)
        ]

    def find(self, post_id: int) -> Entry | None:
        """The section "Fetching some ids"."""
        buckets = self.header["buckets"]
        place = (post_id % buckets, post_id // buckets)
        before = [n for n, row in enumerate(self.rows) if (row.bucket, row.first) <= place]
        if not before or self.rows[before[-1]].bucket != place[0]:
            return None
        held = [entry for entry in self.read_frame(before[-1]) if entry.id == post_id]
        return held[0] if held else None


# ------------------------------------------------------------------------ "Releases from layers"


class Release:
    """An example, opened by its descriptor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = (folder / "descriptor.msgpack").read_bytes()
        self.descriptor = document(self.data)

    def object_path(self, name: bytes) -> Path:
        return self.folder / "objects" / name.hex()[:2] / name.hex()

    def open(self, layer: dict[str, Any], variant: str) -> Manifest:
        ref = layer["manifests"][variant]
        return Manifest(self.object_path(ref["digest"]), ref, self.descriptor["buckets"])

    def bucket_name(self, post_id: int) -> str:
        return f"{post_id % self.descriptor['buckets']:0{self.descriptor['digits']}}"

    def compose(self, variant: str) -> list[dict[str, Any]]:
        release: dict[int, tuple[Entry, str]] = {}
        for layer in self.descriptor["layers"]:
            if variant not in layer["manifests"]:
                continue
            held = self.open(layer, variant)
            for number in range(len(held.rows)):
                for entry in held.read_frame(number):
                    release[entry.id] = (entry, layer["name"])
            for post_id, _ in held.read_removed():
                release.pop(post_id, None)
        order = sorted(release, key=lambda i: (i % self.descriptor["buckets"], i))
        return [self.describe(variant, *release[post_id]) for post_id in order]

    def describe(self, variant: str, entry: Entry, layer: str) -> dict[str, Any]:
        bucket = self.bucket_name(entry.id)
        return {
            "path": f"{variant}/{bucket}/{entry.id}.{entry.extension}",
            "size": entry.size,
            "digest": entry.digest.hex(),
            "layer": layer,
            "pack": f"packs/{layer}/{variant}/{bucket}",
            "pack_offset": entry.pack_offset,
        }


def in_hex(value: Any) -> Any:  # noqa: ANN401 (a document)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: in_hex(inner) for key, inner in value.items()}
    return [in_hex(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest) -> Release:
    return Release(request.param)


@pytest.fixture
def expected(release: Release) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((release.folder / "expected.json").read_bytes())
    return value


def test_the_descriptor(release: Release, expected: dict[str, Any]) -> None:
    assert in_hex(release.descriptor) == expected["descriptor"]
    assert digest(release.data).hex() == expected["descriptor_digest"]
    for asset in release.descriptor["assets"]:
        data = release.object_path(asset["digest"]).read_bytes()
        assert (len(data), digest(data)) == (asset["size"], asset["digest"])


def test_the_manifests(release: Release, expected: dict[str, Any]) -> None:
    names = set()
    for layer in release.descriptor["layers"]:
        for variant, ref in layer["manifests"].items():
            name = f"{layer['name']}/{variant}"
            names.add(name)
            held, wanted = release.open(layer, variant), expected["manifests"][name]
            assert digest(held.path.read_bytes()) == ref["digest"]
            entries = [entry for n in range(len(held.rows)) for entry in held.read_frame(n)]
            assert [describe_entry(entry) for entry in entries] == wanted["entries"]
            removed = [{"id": post_id, "reason": why} for post_id, why in held.read_removed()]
            assert removed == wanted["removed"]
            assert held.fetched == ref["size"]
    assert names == expected["manifests"].keys()


def describe_entry(entry: Entry) -> dict[str, Any]:
    runs = [[name.hex(), len(list(same))] for name, same in groupby(entry.chunks)]
    return in_hex(entry._asdict()) | {"chunks": runs}  # type: ignore[no-any-return]


def test_the_releases(release: Release, expected: dict[str, Any]) -> None:
    assert release.descriptor["variants"].keys() == expected["release"].keys()
    for variant, wanted in expected["release"].items():
        composed = release.compose(variant)
        assert composed == wanted
        total = {"files": len(composed), "bytes": sum(file["size"] for file in composed)}
        assert total == release.descriptor["variants"][variant]


def test_single_ids(release: Release, expected: dict[str, Any]) -> None:
    """Each costs the header and one frame at most."""
    for layer in release.descriptor["layers"]:
        for variant in layer["manifests"]:
            wanted = expected["manifests"][f"{layer['name']}/{variant}"]["entries"]
            ids = {entry["id"] for entry in wanted}
            for post_id in [*ids, *(near + 1 for near in ids), 3, 2**32 - 1]:
                held = release.open(layer, variant)
                found = held.find(post_id)
                assert (found is not None) == (post_id in ids)
                lengths = [row.length for row in held.rows]
                assert held.fetched <= held.ref["header_size"] + max(lengths, default=0)


def test_the_notices(release: Release, expected: dict[str, Any]) -> None:
    path = release.folder / "notices.msgpack"
    absences = document(path.read_bytes())["absences"] if path.exists() else []
    found = []
    for absence in absences:
        ids = list(struct.unpack(f"<{absence['count']}I", absence["ids"]))
        names = {key: absence[key] for key in ("layer", "variant", "reason")}
        found.append(names | {"ids": ids})
    assert found == expected["notices"]


def test_the_files(release: Release, expected: dict[str, Any]) -> None:
    """The rule of the examples' README gives the bytes whose digests the manifests name."""
    for name, held in expected["manifests"].items():
        packs: dict[str, bytes] = {}
        for entry in held["entries"]:
            if entry["size"] > 2 * CHUNK:
                continue
            line = f"{name}/{entry['id']}".ljust(63).encode() + b"\n"
            data = (line * (entry["size"] // 64 + 1))[: entry["size"]]
            assert digest(data).hex() == entry["digest"]
            chunks = [digest(data[at : at + CHUNK]).hex() for at in range(0, len(data), CHUNK)]
            named = [[chunk, len(list(same))] for chunk, same in groupby(chunks)]
            assert entry["chunks"] == (named if len(data) > CHUNK else [])
            bucket = release.bucket_name(entry["id"])
            pack = packs.setdefault(bucket, b"")
            assert entry["pack_offset"] == len(pack) or entry["pack_offset"] > 2**32
            packs[bucket] = pack + data
