"""Finding and unpacking metadata: any packing, any layout of folders, blocks of whole lines."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import zstandard

from manifests.errors import ConfigError
from manifests.metadata import lines
from manifests.metadata.faults import BadRow, RowFault
from manifests.metadata.rows import parse_block
from syncclient import metadata
from syncclient.metadata import Block, Kind, find_metadata, kind_of, read_blocks

Pack = Callable[[bytes], bytes]


def row(post_id: int, **fields: object) -> bytes:
    return orjson.dumps({"id": str(post_id), "file_ext": "jpg", **fields}) + b"\n"


def tar(
    data: bytes,
    name: str = "metadata/2017/2017000000000000",
    mode: str = "w",
    beside: str = "metadata/tags0.json",
) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for member, content in ((beside, b'{"id":"9"}\n'), (name, data)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


PACKINGS: dict[str, Pack] = {
    "plain": bytes,
    "gz": gzip.compress,
    "two gz members": lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]),
    "xz": lzma.compress,
    "zst": zstandard.compress,
    "two zst frames": lambda data: zstandard.compress(data[:9]) + zstandard.compress(data[9:]),
    "tar": tar,
    "tar.xz": lambda data: tar(data, mode="w:xz"),
    "tar.gz": lambda data: tar(data, mode="w:gz"),
    "tar.zst": lambda data: zstandard.compress(tar(data)),
    "tar of gz": lambda data: tar(gzip.compress(data), "posts0.json.gz"),
}
LINES = row(3) + row(1) + b"no json\n" + row(2)


def posts(path: Path) -> list[Block]:
    return list(read_blocks([path], {Kind.POSTS}))


def ids(path: Path) -> list[int]:
    batches = (parse_block(b.data, b.file, b.first_line)[0] for b in posts(path))
    return [post for batch in batches for post in batch.ids.tolist()]


def bad(path: Path) -> list[BadRow]:
    found: list[BadRow] = []
    for block in posts(path):
        found += [*parse_block(block.data, block.file, block.first_line)[1], *block.faults]
    return found


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_inside_is_found_by_its_bytes(tmp_path: Path, packing: str) -> None:
    path = write(tmp_path / "any name", PACKINGS[packing](LINES))
    assert ids(path) == [3, 1, 2]
    assert [(found.line, found.fault) for found in bad(path)] == [(3, RowFault.JSON)]
    assert bad(path)[0].file.startswith(str(path))


@pytest.mark.parametrize("packing", sorted(set(PACKINGS) - {"plain"}))
def test_a_cut_off_archive_is_reported_after_what_it_holds(tmp_path: Path, packing: str) -> None:
    rows = b"".join(row(n, md5=f"{n * 7919**5:032x}"[-32:]) for n in range(1, 9000))
    whole = PACKINGS[packing](rows)
    path = write(tmp_path / "cut", whole[: len(whole) * 2 // 3])
    found = ids(path)
    assert found == list(range(1, len(found) + 1))
    assert [fault.fault for fault in bad(path)] == [RowFault.FILE]


def test_folders_of_all_releases_and_what_is_not_read_in_them(tmp_path: Path) -> None:
    files = [
        "2017/2017000000000000",
        "2018/201805.json",
        "2021-old/2020000000000001.json",
        "posts000000000000.json",
        "posts000000000011.json.gz",
        "metadata.json.tar.xz",
    ]
    tables = [
        "tags000000000000.json",
        "tag_aliases000000000000.json.zst",
        "tag_implications0.jsonl",
        "pools.json.xz",
    ]
    others = ["artists0.json", "README", "notes0.json", "artist_commentaries0.json"]
    others += ["2017/x.txt", "0012/5.jpg", "tag_versions0.json"]
    for name in [*files, *tables, *others]:
        write(tmp_path / name, b"")
    wanted = tuple(tmp_path / name for name in sorted([*files, *tables]))
    assert find_metadata([tmp_path]) == wanted


def test_a_name_tells_what_is_in_a_file() -> None:
    names = ["posts_1.json.gz", "201705.json", "tags0.json", "tag_aliases.jsonl", "pools.json.xz"]
    more = ["tag_implications-2.json", "posts_of_2021.json", "notes.json", "posts.json.old"]
    assert [kind_of(name) for name in [*names, *more]] == [
        Kind.POSTS,
        Kind.POSTS,
        Kind.TAGS,
        Kind.TAG_ALIASES,
        Kind.POOLS,
        Kind.TAG_IMPLICATIONS,
        Kind.POSTS,
        None,
        None,
    ]


def test_only_the_kinds_that_are_asked_for_are_read(tmp_path: Path) -> None:
    write(tmp_path / "tags0.json", b'{"name":"x"}\n')
    write(tmp_path / "posts.tar", tar(row(7)))
    write(tmp_path / "posts0.json", row(8))
    every = {(block.kind, block.data) for block in read_blocks([tmp_path])}
    assert every == {
        (Kind.TAGS, b'{"name":"x"}\n'),
        (Kind.TAGS, b'{"id":"9"}\n'),
        (Kind.POSTS, row(7)),
        (Kind.POSTS, row(8)),
    }
    assert {b.kind for b in read_blocks([tmp_path], {Kind.POSTS})} == {Kind.POSTS}
    assert {b.kind for b in read_blocks([tmp_path], {Kind.TAGS})} == {Kind.TAGS}


def test_blocks_are_whole_lines_that_join_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "BLOCK_BYTES", 300)
    monkeypatch.setattr(metadata, "_UNPACKED_BYTES", 97)
    data = b"".join(row(n, source="x" * (n % 50)) + b"\r\n" * (n % 3) for n in range(1, 60))
    blocks = posts(write(tmp_path / "posts.json", data.rstrip()))
    assert b"".join(block.data for block in blocks) == data.rstrip()
    assert all(block.data.endswith(b"\n") for block in blocks[:-1])
    before = [b"".join(b.data for b in blocks[:n]) for n in range(len(blocks))]
    assert [block.first_line for block in blocks] == [1 + part.count(b"\n") for part in before]
    assert len(blocks) > 5


def test_a_file_is_read_whatever_its_name_and_once(tmp_path: Path) -> None:
    odd = write(tmp_path / "dump.txt", row(1))
    assert find_metadata([odd, tmp_path / "dump.txt"]) == (odd,)
    assert ids(odd) == [1]


def test_paths_that_hold_no_posts_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "tags0.json", b"")
    with pytest.raises(ConfigError, match="no file of posts"):
        find_metadata([tmp_path])
    with pytest.raises(ConfigError, match="no such file"):
        find_metadata([tmp_path / "missing"])


def test_an_archive_without_posts_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", tar(b"", "metadata/readme", beside="metadata/notes0.json"))
    assert [found.problem for found in bad(path)] == ["no file of posts or tags in this archive"]


def test_lines_that_are_too_long_are_counted_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 50)
    monkeypatch.setattr(metadata, "BLOCK_BYTES", 60)
    monkeypatch.setattr(metadata, "_UNPACKED_BYTES", 20)
    fits, long = row(1).rstrip().ljust(51) + b"\n", row(5, md5="0" * 500)
    path = write(tmp_path / "posts", fits[:-1] + b"\n" + row(2) + long + row(3) + long.rstrip())
    assert ids(path) == [2, 3]
    assert [(found.line, found.fault) for found in bad(path)] == [
        (1, RowFault.TOO_LONG),
        (3, RowFault.TOO_LONG),
        (5, RowFault.TOO_LONG),
    ]


def test_a_line_that_does_not_end_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "MAX_LINE_BYTES", 2**20)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2**20)
    data = row(1) + b"x" * 20_000_000 + b"\n" + row(2)
    path = write(tmp_path / "posts.json", data)
    del data
    tracemalloc.start()
    sizes = [len(block.data) for block in read_blocks([path])]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) < 4_000_000
    assert peak < 10_000_000
    assert ids(path) == [1, 2]
    assert [(found.line, found.fault) for found in bad(path)] == [(2, RowFault.TOO_LONG)]


def test_byte_order_mark_empty_lines_and_crlf(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbf" + row(1) + b"\n  \n" + row(2).rstrip() + b"\r\n" + row(3).rstrip()
    path = write(tmp_path / "posts.json", data)
    assert ids(path) == [1, 2, 3]
    assert bad(path) == []


def test_a_file_that_contains_itself_ends(tmp_path: Path) -> None:
    data = row(1)
    for _ in range(8):
        data = gzip.compress(data)
    path = write(tmp_path / "deep", data)
    assert ids(path) == []
    assert [found.fault for found in bad(path)] == [RowFault.FILE]


def test_archives_in_archives_end(tmp_path: Path) -> None:
    data = row(1)
    for _ in range(8):
        data = tar(data, "posts0.json", beside="notes0.json")
    path = write(tmp_path / "deep.tar", data)
    assert ids(path) == []
    assert [found.fault for found in bad(path)] == [RowFault.FILE]


@pytest.mark.parametrize(
    "data",
    [
        bz2.compress(LINES),
        b"Salted__\x04\x8f" + lzma.compress(LINES),
        b"PK\x03\x04\x14\x00\x01\x00\x08\x00" + bytes(99),
        b"\x85\x01\x8c\x03" + row(1),
    ],
    ids=["bzip2", "openssl", "encrypted zip", "openpgp"],
)
def test_what_is_no_text_is_one_fault_of_the_file(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path / "posts.json", data)
    assert ids(path) == []
    assert [(found.line, found.fault) for found in bad(path)] == [(0, RowFault.FILE)]


def test_a_first_line_with_odd_bytes_does_not_cost_the_file(tmp_path: Path) -> None:
    assert ids(write(tmp_path / "posts.json", b'{"id":1,"source":"\xe9"}\n' + row(2))) == [2]


def test_a_file_that_may_not_be_read_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "posts.json", row(1))
    monkeypatch.setattr(metadata, "find_metadata", list)
    path.unlink()
    assert [(found.line, found.fault) for found in bad(path)] == [(0, RowFault.FILE)]


def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "BLOCK_BYTES", 300_000)
    whole = b"".join(row(n, source="x" * 900) for n in range(1, 16001))
    path = write(tmp_path / "posts.json.gz", gzip.compress(whole))
    del whole
    tracemalloc.start()
    count = sum(block.data.count(b"\n") for block in read_blocks([path]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 16000
    assert peak < 4_000_000
