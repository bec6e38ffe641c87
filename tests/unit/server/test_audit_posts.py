"""Batches of posts become one sorted table, whoever reads them and in how many blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import ConfigError
from manifests.metadata.columns import PostBatch
from manifests.metadata.faults import RowFault
from manifests.metadata.tables import PoolTable, Relations, TagTable
from server.audit.posts import BANNED, DELETED, MAX_BAD_ROWS
from server.publishing.crew import Crew
from server.publishing.reading import read_batches, read_posts
from syncclient import metadata
from syncclient.metadata import Kind
from tests.support.metadata import post, post_table


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def test_posts_become_a_sorted_table_where_the_later_row_wins(tmp_path: Path) -> None:
    first = [
        post(9, image_width=1),
        post(5, file_ext="png", is_deleted=True, is_banned=True),
        post(9, image_width=2),
    ]
    second = [
        post(5, file_ext="gif", is_banned=True),
        post(1, file_size="77", image_height="8", is_deleted=True),
    ]
    paths = [write(tmp_path / "a", *first), write(tmp_path / "b", *second, b"{}", b"?")]
    posts = read_posts(paths, Crew(1))
    assert posts.ids.tolist() == [1, 5, 9]
    assert [posts.extension(place) for place in range(3)] == ["jpg", "gif", "jpg"]
    assert posts.column("width").tolist() == [0, 0, 2]
    assert posts.column("height").tolist() == [8, 0, 0]
    assert posts.column("size").tolist() == [77, 0, 0]
    assert posts.column("flags").tolist() == [DELETED, BANNED, 0]
    assert sorted(posts.superseded.tolist()) == [5, 9]
    assert posts.faults == {RowFault.NO_ID: 1, RowFault.JSON: 1}
    assert [found.line for found in posts.bad_rows] == [4]
    assert read_posts(paths[:1], Crew(1)).column("flags").tolist() == [DELETED | BANNED, 0]


def test_columns_hold_the_largest_values_there_are() -> None:
    largest = post(2**32 - 1, file_size=2**63 - 1, image_width=2**32 - 1, image_height=2**32 - 1)
    posts = post_table([largest, post(1)])
    names = ("id", "width", "height", "size")
    pixels = 2**32 - 1
    assert [int(posts.rows[name][1]) for name in names] == [pixels, pixels, pixels, 2**63 - 1]


def test_a_table_finds_ids() -> None:
    posts = post_table(post(n) for n in (2, 4, 6))
    known, places = posts.find(posts.ids[::2] + 0)
    assert (known.tolist(), places.tolist()) == ([True, True], [0, 2])
    empty = post_table([])
    assert len(empty) == 0
    known, places = empty.find(posts.ids)
    assert not known.any()
    assert not len(places)
    known, places = posts.find(posts.ids + 1)
    assert not known.any()


def test_a_bad_field_keeps_the_post_and_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "posts.json", post(1), post(2, md5="xyz", file_size="7"))
    posts = read_posts([path], Crew(1))
    assert posts.ids.tolist() == [1, 2]
    assert posts.column("size").tolist() == [0, 7]
    assert posts.faults == {RowFault.FIELD: 1}
    assert [(found.file, found.line) for found in posts.bad_rows] == [(str(path), 2)]
    assert posts.bad_rows[0].problem.startswith("md5: ")


def test_faults_are_all_counted_but_not_all_kept() -> None:
    posts = post_table([b"?"] * (MAX_BAD_ROWS + 5))
    assert posts.faults == {RowFault.JSON: MAX_BAD_ROWS + 5}
    assert len(posts.bad_rows) == MAX_BAD_ROWS


@pytest.mark.parametrize("jobs", [1, 2])
def test_blocks_come_in_their_order_whoever_decodes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(metadata, "BLOCK_BYTES", 500)
    monkeypatch.setattr(metadata, "_UNPACKED_BYTES", 100)
    path = write(tmp_path / "posts.json", *(post(n) for n in range(1, 400)), b"?")
    with Crew(jobs, eager=True) as crew:
        readings = list(read_batches([path], crew))
    assert len(readings) > 10
    ids, lines = [], []
    for block, content, _ in readings:
        assert isinstance(content, PostBatch)
        ids += content.ids.tolist()
        places = zip(content.line_starts, content.line_lengths, strict=True)
        lines += [block.data[start : start + length] for start, length in places]
    assert ids == list(range(1, 400))
    assert lines == [post(n) for n in range(1, 400)]
    assert [fault.line for reading in readings for fault in reading.faults] == [400]


def test_every_kind_has_its_reader(tmp_path: Path) -> None:
    write(tmp_path / "posts0.json", post(1))
    write(tmp_path / "tags0.json", b'{"name":"x","category":"0"}')
    write(tmp_path / "pools0.json", b'{"id":1,"name":"x","post_ids":[1],"category":"series"}')
    for table in ("tag_aliases", "tag_implications"):
        write(tmp_path / f"{table}0.json", b'{"antecedent_name":"a","consequent_name":"b"}')
    found = {r.block.kind: type(r.content) for r in read_batches([tmp_path], Crew(1))}
    assert found == {
        Kind.POSTS: PostBatch,
        Kind.TAGS: TagTable,
        Kind.TAG_ALIASES: Relations,
        Kind.TAG_IMPLICATIONS: Relations,
        Kind.POOLS: PoolTable,
    }


def test_a_file_that_is_cut_off_is_a_fault_after_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "posts.json.xz"
    path.write_bytes(b"\xfd7zXZ\x00\x00\x04cut")
    assert read_posts([path], Crew(1)).faults == {RowFault.FILE: 1}
    with pytest.raises(ConfigError, match="no such file"):
        read_posts([tmp_path / "missing"], Crew(1))
