"""Framed objects, rows of metadata and the tag index, read from docs/reference/format.md alone.

The other half of ``test_format_document.py``: nothing here is the project's own code either.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.imports import imported, is_within
from tests.support.page_reader import MIB, decompress, digest, document

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "manifests" / "examples" / "tagged"
READERS = (
    Path(__file__),
    Path(__file__).with_name("test_format_document.py"),
    ROOT / "tests" / "support" / "page_reader.py",
)
# What the table of columns says: the type as struct has it.
COLUMNS = {
    "id": "I",
    "rating": "B",
    "flags": "H",
    **dict.fromkeys(("score", "up_score", "down_score"), "i"),
    "fav_count": "I",
    **dict.fromkeys(("created_at", "updated_at"), "q"),
    **dict.fromkeys(("last_noted_at", "last_commented_at", "last_comment_bumped_at"), "q"),
    **dict.fromkeys(("image_width", "image_height"), "I"),
    "file_size": "Q",
    "file_ext": "B",
    **dict.fromkeys(("parent_id", "uploader_id", "approver_id"), "I"),
    "pixiv_id": "Q",
    "duration_ms": "I",
    **{f"tags_{kind}": "H" for kind in ("general", "artist", "copyright", "character", "meta")},
}


# ------------------------------------------------------------------------------ "Framed objects"


class Frame(NamedTuple):
    """Where a frame lies, its key, and that of the next frame of the section, if there is one."""

    start: int
    length: int
    key: int
    digest: bytes
    next_key: int | None


class Framed:
    """A framed object, read by ranges."""

    def __init__(self, ref: dict[str, Any], kind: str) -> None:
        name = ref["digest"].hex()
        self.path = FOLDER / "objects" / name[:2] / name
        self.ref = ref
        assert ref["header_size"] <= min(ref["size"], 256 * MIB)
        data = self.fetch(ref["size"] - ref["header_size"], ref["header_size"])
        assert digest(data) == ref["header_digest"]
        self.header = document(decompress(data, 256 * MIB))
        assert self.header["kind"] == kind
        self.about = self.header["about"]
        assert len(self.header["sections"]) <= 1000
        self.sections = {
            section: self.frames_of(columns)
            for section, columns in self.header["sections"].items()
        }

    def fetch(self, start: int, length: int) -> bytes:
        data: bytes = self.path.read_bytes()[start : start + length]
        assert len(data) == length
        return data

    def frames_of(self, columns: dict[str, Any]) -> list[Frame]:
        k = columns["frames"]
        starts = struct.unpack(f"<{k}Q", columns["start"])
        lengths = struct.unpack(f"<{k}I", columns["length"])
        keys = struct.unpack(f"<{k}I", columns["key"])
        digests = [columns["digest"][32 * row : 32 * row + 32] for row in range(k)]
        assert len(columns["digest"]) == 32 * k
        assert list(keys) == sorted(keys)
        for start, length in zip(starts, lengths, strict=True):
            assert start >= 8
            assert start + length <= self.ref["size"] - self.ref["header_size"]
            assert length <= 256 * MIB
        following = [*keys[1:], None]
        return list(map(Frame, starts, lengths, keys, digests, following))

    def read(self, section: str) -> Iterator[tuple[Frame, bytes]]:
        for frame in self.sections.get(section, []):
            data = self.fetch(frame.start, frame.length)
            assert digest(data) == frame.digest
            yield frame, data


def parts(data: bytes, k: int) -> list[bytes]:
    lengths = struct.unpack_from(f"<{k}I", data)
    bounds = list(accumulate(lengths, initial=4 * k))
    assert bounds[-1] == len(data)
    return [data[start:stop] for start, stop in pairwise(bounds)]


def planes(data: bytes, n: int, kind: str) -> list[int]:
    width = struct.calcsize(f"<{kind}")
    raw = b"".join(map(bytes, zip(*byte_planes(data, n, width), strict=True)))
    return list(struct.unpack(f"<{n}{kind}", raw))


def byte_planes(data: bytes, n: int, width: int) -> list[bytes]:
    """The planes, each n bytes."""
    found = []
    for part in parts(data, width):
        plane = part if len(part) == n else decompress(part, n) if part else bytes(n)
        assert len(plane) == n
        found.append(plane)
    return found


def zero_ended(data: bytes, n: int, limit: int) -> list[str]:
    """Texts with a zero byte after each."""
    *texts, rest = decompress(data, limit).split(b"\0")
    assert (len(texts), rest) == (n, b"")
    return [text.decode() for text in texts]


def one_u32(part: bytes) -> int:
    (value,) = struct.unpack("<I", part)
    return int(value)


# -------------------------------------------------------------------------- "Rows of metadata"


def read_rows(table: Framed) -> Iterator[tuple[int, bytes]]:
    assert table.about == {}
    for frame, data in table.read("rows"):
        steps, packed = parts(data, 2)
        *lines, rest = decompress(packed, 16 * MIB + 2).split(b"\n")
        assert lines
        assert rest == b""
        differences = planes(steps, len(lines), "I")
        assert differences[0] == 0
        keys = list(accumulate(differences[1:], initial=frame.key))
        assert all(one < other for one, other in pairwise(keys))
        assert keys[-1] < (2**32 if frame.next_key is None else frame.next_key)
        yield from zip(keys, lines, strict=True)


# --------------------------------------------------------------------------------- "Tag index"


class Index:
    """All that a tag index says."""

    def __init__(self, ref: dict[str, Any]) -> None:
        self.framed = Framed(ref, "tags")
        about = self.framed.about
        self.posts, self.tags = about["posts"], about["tags"]
        assert self.posts <= 2**28
        assert self.tags <= 2**26

    def rows_of(self, section: str, total: int, most: int) -> Iterator[tuple[int, bytes]]:
        """Frames of a fixed number of values: how many, and the bytes."""
        keys = [frame.key for frame in self.framed.sections.get(section, [])]
        assert keys == list(range(0, total, most))
        for frame, data in self.framed.read(section):
            yield min(most, total - frame.key), data

    def names(self) -> Iterator[dict[str, Any]]:
        numbers = list[tuple[int, ...]]()
        names, firsts = list[str](), list[str]()
        for k, data in self.rows_of("names", self.tags, 1024):
            texts, categories, counts, aliases = parts(data, 4)
            found = name_list(texts, k)
            firsts.append(found[0])
            names += found
            columns = (planes(categories, k, "B"), planes(counts, k, "I"), planes(aliases, k, "I"))
            numbers += zip(*columns, strict=True)
        ((key, data),) = ((frame.key, data) for frame, data in self.framed.read("first_names"))
        assert (key, name_list(data, -(-self.tags // 1024))) == (0, firsts)
        for name, (category, count, alias) in zip(names, numbers, strict=True):
            target = names[alias - 1] if alias else None
            yield {"name": name, "category": category, "count": count, "alias_of": target}

    def implications(self) -> list[tuple[int, int]]:
        ((frame, data),) = self.framed.read("implications")
        assert frame.key == 0
        head, first, second = parts(data, 3)
        k = one_u32(head)
        assert k <= 2**22
        pairs = list(zip(planes(first, k, "I"), planes(second, k, "I"), strict=True))
        assert all(one < self.tags and other < self.tags for one, other in pairs)
        return pairs

    def postings(self) -> Iterator[tuple[int, list[int]]]:
        """The form of the frame of each tag, and its ordinals."""
        keys = [frame.key for frame in self.framed.sections.get("postings", [])]
        assert keys[:1] == [0] * min(self.tags, 1)
        assert keys == sorted(set(keys))
        for frame, data in self.framed.read("postings"):
            stop = self.tags if frame.next_key is None else frame.next_key
            form, packed_lengths, body = parts(data, 3)
            lengths = planes(packed_lengths, stop - frame.key, "I")
            assert sum(lengths) <= max(16_384, self.posts)
            decode = {b"\0": self.from_gaps, b"\1": self.from_bits}[form]
            for ordinals in decode(body, lengths):
                assert all(one < other for one, other in pairwise(ordinals))
                assert all(ordinal < self.posts for ordinal in ordinals)
                yield form[0], ordinals

    def from_gaps(self, body: bytes, lengths: list[int]) -> Iterator[list[int]]:
        gaps = iter(planes(body, sum(lengths), "I"))
        for length in lengths:
            ordinals: list[int] = []
            for _ in range(length):
                ordinals.append(next(gaps) + (ordinals[-1] + 1 if ordinals else 0))
            yield ordinals

    def from_bits(self, body: bytes, lengths: list[int]) -> Iterator[list[int]]:
        size = -(-self.posts // 8)
        bits = decompress(body, size)
        assert len(bits) == size
        ordinals = [i for i in range(8 * size) if bits[i // 8] >> (i % 8) & 1]
        assert lengths == [len(ordinals)]
        yield ordinals

    def column(self, name: str) -> list[int]:
        found = []
        for k, data in self.rows_of(name, self.posts, 65_536):
            if name in {"created_at", "updated_at"}:
                found += folded_steps(planes(data, k, "Q"))
            elif name == "id":
                found += [step % 2**32 for step in accumulate(planes(data, k, "I"))]
            else:
                found += planes(data, k, COLUMNS[name])
        return found

    def sources(self) -> list[str]:
        frames = self.rows_of("source", self.posts, 65_536)
        return [text for k, data in frames for text in zero_ended(data, k, 256 * MIB)]

    def md5s(self) -> list[tuple[bytes, int]]:
        found: list[tuple[bytes, int]] = []
        for frame, data in self.framed.read("md5"):
            head, values, ordinals = parts(data, 3)
            k = one_u32(head)
            assert 1 <= k <= 4096
            mine = list(map(bytes, zip(*byte_planes(values, k, 16), strict=True)))
            assert int.from_bytes(mine[0][:4], "big") == frame.key
            found += zip(mine, planes(ordinals, k, "I"), strict=True)
        assert found == sorted(found)
        assert all(ordinal < self.posts for _, ordinal in found)
        return found

    def pools(self) -> Iterator[dict[str, Any]]:
        for frame, data in self.framed.read("pools"):
            head, ids, flags, names, counts, posts = parts(data, 6)
            k = one_u32(head)
            assert k <= 4096
            sizes = planes(counts, k, "I")
            assert sum(sizes) <= 2**24
            members = iter(planes(posts, sum(sizes), "I"))
            texts = zero_ended(names, k, 64 * MIB)
            numbers = zip(planes(ids, k, "I"), planes(flags, k, "B"), texts, sizes, strict=True)
            for number, (pool, flag, name, size) in enumerate(numbers):
                assert number or pool == frame.key
                own = [next(members) for _ in range(size)]
                yield {"id": pool, "flags": flag, "name": name, "posts": own}


def name_list(data: bytes, k: int) -> list[str]:
    packed_lengths, packed = parts(data, 2)
    lengths = planes(packed_lengths, k, "H")
    assert max(lengths, default=0) <= 1024
    raw = decompress(packed, sum(lengths))
    assert len(raw) == sum(lengths)
    names = [raw[start:stop] for start, stop in pairwise(accumulate(lengths, initial=0))]
    assert all(one < other for one, other in pairwise(names))
    return [name.decode() for name in names]


def folded_steps(stored: list[int]) -> list[int]:
    value, found = 0, []
    for f in stored:
        value = (value + (-(f + 1) // 2 if f % 2 else f // 2)) % 2**64
        found.append(value - 2**64 if value >= 2**63 else value)
    return found


# --------------------------------------------------------------------------------- what it finds


@pytest.fixture(scope="module")
def descriptor() -> dict[str, Any]:
    return document((FOLDER / "descriptor.msgpack").read_bytes())


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    value: dict[str, Any] = json.loads((FOLDER / "expected.json").read_bytes())
    return value


@pytest.fixture(scope="module")
def index(descriptor: dict[str, Any]) -> Index:
    return Index(descriptor["tag_index"])


@pytest.fixture(scope="module")
def wanted(expected: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = expected["tag_index"]
    return value


@pytest.mark.parametrize("path", READERS, ids=lambda path: path.name)
def test_the_reader_has_nothing_of_the_project(path: Path) -> None:
    own = [
        name
        for name in imported(path.read_text(encoding="utf-8"))
        if any(is_within(name, package) for package in ("manifests", "syncclient", "server"))
    ]
    assert own == []


def test_the_objects(descriptor: dict[str, Any], expected: dict[str, Any]) -> None:
    """Whole ones, and their headers."""
    tables = {table["name"]: table for table in descriptor["metadata"]}
    assert sorted(tables) == [table["name"] for table in descriptor["metadata"]]
    held = [(descriptor["tag_index"], "tags", expected["tag_index"])]
    held += [(ref, "rows", expected["tables"][name]) for name, ref in tables.items()]
    for ref, kind, said in held:
        framed = Framed(ref, kind)
        data = framed.path.read_bytes()
        assert (len(data), digest(data), data[:8]) == (ref["size"], ref["digest"], b"bsyncfr1")
        sections = {
            name: [
                {"start": f.start, "length": f.length, "key": f.key, "digest": f.digest.hex()}
                for f in frames
            ]
            for name, frames in framed.sections.items()
        }
        assert framed.header | {"sections": sections} == said["header"]


def test_the_rows(descriptor: dict[str, Any], expected: dict[str, Any]) -> None:
    names = set()
    for ref in descriptor["metadata"]:
        rows = list(read_rows(Framed(ref, "rows")))
        said = [
            (row["key"], row["line"].encode()) for row in expected["tables"][ref["name"]]["rows"]
        ]
        assert rows == said
        assert ref["rows"] == len(rows)
        assert ref["bytes"] == sum(len(line) + 1 for _, line in rows)
        names.add(ref["name"])
    assert names == expected["tables"].keys()


def test_the_names(index: Index, wanted: dict[str, Any]) -> None:
    said = [
        {key: tag[key] for key in ("name", "category", "alias_of")} | {"count": len(tag["posts"])}
        for tag in wanted["tags"]
    ]
    assert list(index.names()) == said
    names = [tag["name"] for tag in said]
    pairs = [[names[one], names[other]] for one, other in index.implications()]
    assert pairs == wanted["implications"]
    assert sorted(index.framed.about["tables"]) == sorted(wanted["tables"])


def test_the_posting_lists(index: Index, wanted: dict[str, Any]) -> None:
    ids = index.column("id")
    lists = list(index.postings())
    said = [tag["posts"] for tag in wanted["tags"]]
    assert [[ids[ordinal] for ordinal in ordinals] for _, ordinals in lists] == said
    total = sum(map(len, said))
    assert index.framed.about["instances"] == wanted["instances"] == total
    # The example has every form, a list without posts, and frames of several lists.
    assert {form for form, _ in lists} == {0, 1}
    assert [] in said
    assert len(index.framed.sections["postings"]) < len(said)


@pytest.mark.parametrize("name", COLUMNS)
def test_the_columns(index: Index, wanted: dict[str, Any], name: str) -> None:
    found: list[Any] = index.column(name)
    if name == "file_ext":
        found = [index.framed.about["extensions"][code] for code in found]
    assert found == [post[name] for post in wanted["posts"]]


def test_no_column_is_left_out(index: Index, wanted: dict[str, Any]) -> None:
    assert wanted["posts"][0].keys() == {*COLUMNS, "source", "md5"}
    names = {"first_names", "names", "implications", "postings", "source", "md5", "pools"}
    assert index.framed.sections.keys() == {*COLUMNS, *names}


def test_the_sources(index: Index, wanted: dict[str, Any]) -> None:
    assert index.sources() == [post["source"] for post in wanted["posts"]]


def test_the_md5s(index: Index, wanted: dict[str, Any]) -> None:
    said = [
        (bytes.fromhex(post["md5"]), ordinal)
        for ordinal, post in enumerate(wanted["posts"])
        if post["md5"]
    ]
    assert index.md5s() == sorted(said)


def test_the_pools(index: Index, wanted: dict[str, Any]) -> None:
    pools = list(index.pools())
    assert pools == wanted["pools"]
    ids = [pool["id"] for pool in pools]
    assert ids == sorted(set(ids))
