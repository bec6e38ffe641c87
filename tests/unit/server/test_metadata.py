"""Reading metadata as it comes: any packing, any layout of folders, lines that are no posts."""

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
from manifests.rows import PostRow, RowFault, parse_row
from server.audit import metadata
from server.audit.metadata import BadRow, find_metadata, iter_rows
from server.audit.posts import BANNED, DELETED, collect_posts, merge_posts, read_posts

Pack = Callable[[bytes], bytes]


def row(post_id: int, **fields: object) -> bytes:
    return orjson.dumps({"id": str(post_id), "file_ext": "jpg", **fields}) + b"\n"


def tar(data: bytes, name: str = "metadata/2017/2017000000000000", mode: str = "w") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for member, content in (("metadata/tags0.json", b'{"id":"9"}\n'), (name, data)):
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


def ids(path: Path) -> list[int]:
    return [found.id for found in iter_rows([path]) if isinstance(found, PostRow)]


def bad(path: Path) -> list[BadRow]:
    return [found for found in iter_rows([path]) if isinstance(found, BadRow)]


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
    lines = b"".join(row(n, md5=f"{n * 7919**5:032x}"[-32:]) for n in range(1, 9000))
    whole = PACKINGS[packing](lines)
    path = write(tmp_path / "cut", whole[: len(whole) * 2 // 3])
    found = ids(path)
    assert found == list(range(1, len(found) + 1))
    assert bad(path)[-1].fault is RowFault.FILE


def test_folders_of_all_releases_and_what_is_not_read_in_them(tmp_path: Path) -> None:
    posts = [
        "2017/2017000000000000",
        "2018/201805.json",
        "2021-old/2020000000000001.json",
        "posts000000000000.json",
        "posts000000000011.json.gz",
        "metadata.json.tar.xz",
    ]
    others = ["tags000000000000.json", "tag_aliases000000000000.json", "artists0.json", "README"]
    others += [
        "notes0.json",
        "pools0.json",
        "artist_commentaries0.json",
        "2017/x.txt",
        "0012/5.jpg",
    ]
    for name in [*posts, *others]:
        write(tmp_path / name, b"")
    assert find_metadata([tmp_path]) == tuple(tmp_path / name for name in sorted(posts))


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
    path = write(tmp_path / "x.tar", tar(b"", "metadata/readme"))
    assert [found.problem for found in bad(path)] == ["no file of posts in this archive"]


def test_lines_that_are_too_long_are_counted_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "MAX_LINE_BYTES", 50)
    fits, long = row(1).rstrip().ljust(50) + b"\n", row(5, md5="0" * 500)
    path = write(tmp_path / "posts", fits[:-1] + b"\n" + row(2) + long + row(3) + long.rstrip())
    assert ids(path) == [2, 3]
    assert [(found.line, found.fault) for found in bad(path)] == [
        (1, RowFault.TOO_LONG),
        (3, RowFault.TOO_LONG),
        (5, RowFault.TOO_LONG),
    ]


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
    assert bad(path)[0].fault is RowFault.JSON


def test_a_packing_that_is_not_known_gives_bad_rows(tmp_path: Path) -> None:
    assert ids(write(tmp_path / "posts.bz2", bz2.compress(LINES))) == []


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    lines = b"".join(row(n, source="x" * 900) for n in range(1, 8001))
    path = write(tmp_path / "posts.json.gz", gzip.compress(lines))
    del lines
    tracemalloc.start()
    count = sum(1 for _ in iter_rows([path]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < 2_000_000


def test_posts_become_a_sorted_table_where_the_later_row_wins(tmp_path: Path) -> None:
    first = row(9, image_width=1) + row(5, file_ext="png", is_deleted=True) + row(9, image_width=2)
    second = row(5, file_ext="gif", is_banned=True) + row(1, file_size="77", image_height="8")
    parts = [
        read_posts(write(tmp_path / "a", first)),
        read_posts(write(tmp_path / "b", second + b"{}\n" + b"?\n")),
    ]
    posts = merge_posts(parts)
    assert posts.ids.tolist() == [1, 5, 9]
    assert [posts.extension(place) for place in range(3)] == ["jpg", "gif", "jpg"]
    assert posts.column("width").tolist() == [0, 0, 2]
    assert posts.column("size").tolist() == [77, 0, 0]
    assert posts.column("flags").tolist() == [0, BANNED, 0]
    assert parts[0].column("flags").tolist() == [DELETED, 0]
    assert sorted(posts.superseded.tolist()) == [5, 9]
    assert posts.faults == {RowFault.NO_ID: 1, RowFault.JSON: 1}
    assert [found.line for found in posts.bad_rows] == [4]


def test_columns_hold_the_largest_values_there_are() -> None:
    largest = row(2**32 - 1, file_size=2**63 - 1, image_width=2**32 - 1, image_height=2**32 - 1)
    posts = collect_posts(parse_row(line) for line in (largest, row(1)))
    assert [int(posts.rows[name][1]) for name in ("id", "width", "height", "size")] == [
        2**32 - 1,
        2**32 - 1,
        2**32 - 1,
        2**63 - 1,
    ]


def test_a_table_finds_ids() -> None:
    posts = collect_posts(parse_row(row(n)) for n in (2, 4, 6))
    known, places = posts.find(merge_posts([posts]).ids[::2] + 0)
    assert (known.tolist(), places.tolist()) == ([True, True], [0, 2])
    empty = merge_posts([])
    assert len(empty) == 0
    known, places = empty.find(posts.ids)
    assert not known.any()
    assert not len(places)
    known, places = posts.find(posts.ids + 1)
    assert not known.any()
