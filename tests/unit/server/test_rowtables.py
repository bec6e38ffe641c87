"""Rows of metadata as a publish ships them: in order, one each, the same object every time."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from manifests.framed import FramedHeader, decode_framed
from manifests.metadata.rowfile import KIND, decode_rows, row_frames
from manifests.metadata.rows import parse_block
from manifests.model import TableRef
from server.publishing.crew import Crew
from server.publishing.rowtables import RowTables
from server.publishing.sorting import RowSorter
from server.repository import Repository


def line(post_id: int, note: str = "") -> bytes:
    return b'{"id":"%d","note":"%s"}' % (post_id, note.encode())


def store(repo: Path, *blocks: bytes, table: str = "posts") -> tuple[TableRef, ...]:
    """Publish blocks of lines of one table."""
    with Crew(1) as crew, RowTables(Repository(root=repo)) as tables:
        for block in blocks:
            if table == "posts":
                tables.add_posts(block, parse_block(block, "posts.json", 1)[0])
            else:
                tables.add_lines(table, block)
        return tables.store(crew)


def opened(repo: Path, table: TableRef) -> tuple[FramedHeader, bytes]:
    data = Repository(root=repo).object_path(table.ref.digest).read_bytes()
    start, stop = table.ref.header_span
    return decode_framed(data[start:stop], table.ref, KIND, "t"), data


def read(repo: Path, table: TableRef) -> tuple[list[int], bytes]:
    """All keys and lines of a table."""
    header, data = opened(repo, table)
    rows = [
        decode_rows(header, frame, data[slice(*header.span(frame))])
        for frame in row_frames(header, None)
    ]
    text = b"".join(part.text for part in rows)
    assert (table.rows, table.raw_bytes) == (sum(map(len, rows)), len(text))
    return [key for part in rows for key in part.keys.tolist()], text


def joined(lines: list[bytes]) -> bytes:
    return b"".join(text + b"\n" for text in lines)


def test_posts_come_by_id_whatever_the_order_and_the_blocks(tmp_path: Path) -> None:
    ids = random.Random(1).sample(range(1, 200_000), 3000)  # noqa: S311 (test data)
    lines = [line(post_id, "x" * 100) for post_id in ids]
    blocks = [joined(lines[at : at + 700]) for at in range(0, len(lines), 700)]
    (table,) = store(tmp_path, *blocks)
    keys, text = read(tmp_path, table)
    assert keys == sorted(ids)
    assert text == joined([line(post_id, "x" * 100) for post_id in sorted(ids)])
    in_one = joined([line(post_id, "x" * 100) for post_id in sorted(ids)])
    assert store(tmp_path / "other", in_one) == (table,)


def test_of_several_lines_about_a_post_the_last_counts(tmp_path: Path) -> None:
    first = joined([line(5, "old"), line(7), line(5, "mid")])
    (table,) = store(tmp_path, first, joined([line(9), line(5, "new")]))
    assert read(tmp_path, table) == ([5, 7, 9], joined([line(5, "new"), line(7), line(9)]))


def test_lines_are_kept_to_the_byte(tmp_path: Path) -> None:
    odd = [b'  {"id": 3, "u": "\xc3\xa9\\u00e9"} \r', line(4) + b"\r"]
    (table,) = store(tmp_path, joined(odd) + b"\n\r\n" + line(8))
    assert read(tmp_path, table) == ([3, 4, 8], joined([*odd, line(8)]))


def test_a_line_without_an_id_is_no_row(tmp_path: Path) -> None:
    (table,) = store(tmp_path, joined([b'{"score":"3"}', line(2), b"no JSON", b"{}"]))
    assert read(tmp_path, table) == ([2], joined([line(2)]))
    assert store(tmp_path, b"no JSON\n") == ()


def test_other_tables_come_whole_and_in_their_order(tmp_path: Path) -> None:
    lines = [b'{"id":"9"}', b'{"id":"1"}', b"no JSON", b'{"id":"9"}']
    (table,) = store(
        tmp_path, joined(lines[:2]) + b"\n \n", joined(lines[2:])[:-1], table="artists"
    )
    assert table.name == "artists"
    assert read(tmp_path, table) == ([1, 2, 3, 4], joined(lines))


@pytest.mark.parametrize("held_bytes", [1, 5000, 10**9])
def test_what_went_to_the_disk_is_older_than_what_is_held(tmp_path: Path, held_bytes: int) -> None:
    source, newest = random.Random(2), dict[int, bytes]()  # noqa: S311 (test data)
    with RowSorter(tmp_path, held_bytes) as sorter:
        for round_number in range(40):
            keys = [source.randrange(1, 100_000) for _ in range(50)]
            keys += keys[:3]
            lines = [b"%d of %d at %d" % (key, round_number, n) for n, key in enumerate(keys)]
            sorter.add(np.array(keys, np.uint32), lines)
            newest |= dict(zip(keys, lines, strict=True))
        assert list(sorter.rows()) == sorted(newest.items())
    assert not any(tmp_path.iterdir())


def test_nothing_is_left_where_it_was_made(tmp_path: Path) -> None:
    store(tmp_path, joined([line(1)]))
    assert not any(Repository(root=tmp_path).stages.iterdir())
