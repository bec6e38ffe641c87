"""What is in a file, and whether it is whole: real files, cut anywhere, and made to mislead."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from server.audit import media as media_module
from server.audit.content import (
    Content,
    Kind,
    Problem,
    inspect_bytes,
    inspect_open,
    kind_of_extension,
)
from tests.support import media

FILES: dict[str, tuple[bytes, Kind, tuple[int, int]]] = {
    "baseline": (media.encoded("JPEG"), Kind.JPEG, (40, 30)),
    "progressive": (media.encoded("JPEG", progressive=True), Kind.JPEG, (40, 30)),
    "png": (media.encoded("PNG"), Kind.PNG, (40, 30)),
    "gif": (media.encoded("GIF"), Kind.GIF, (40, 30)),
    "animation": (media.animation(), Kind.GIF, (40, 30)),
    "webp": (media.encoded("WEBP"), Kind.WEBP, (40, 30)),
    "lossless": (media.encoded("WEBP", lossless=True), Kind.WEBP, (40, 30)),
    "bmp": (media.encoded("BMP"), Kind.BMP, (40, 30)),
    "avif": (media.avif(), Kind.AVIF, (40, 30)),
    "svg": (media.SVG, Kind.SVG, (0, 0)),
    "zip": (media.ugoira(), Kind.ZIP, (0, 0)),
    "mp4": (media.film(), Kind.MP4, (64, 48)),
    "webm": (media.webm(), Kind.WEBM, (0, 0)),
    "swf": (media.swf(), Kind.SWF, (0, 0)),
}


def opened(path: Path, data: bytes) -> Content:
    """The same by way of an open file."""
    path.write_bytes(data)
    with path.open("rb") as file:
        return inspect_open(file.fileno(), len(data))


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file(name: str) -> None:
    data, kind, pixels = FILES[name]
    content = inspect_bytes(data)
    assert (content.kind, content.width, content.height) == (kind, *pixels)
    assert content.problem is Problem.NONE
    assert content.complete


@pytest.mark.parametrize("name", FILES)
def test_no_beginning_of_a_file_passes_for_the_whole(name: str) -> None:
    data, kind, _ = FILES[name]
    passed = [
        length
        for length in range(len(data.rstrip()))
        if (content := inspect_bytes(data[:length])).kind is kind and content.complete
    ]
    assert passed == []


@pytest.mark.parametrize("name", FILES)
def test_an_open_file_is_read_in_pieces_with_the_same_outcome(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_module, "_WINDOW_BYTES", 40)
    monkeypatch.setattr(media_module, "_FIRST_SEARCH_BYTES", 3)
    data = FILES[name][0]
    for length in {len(data), len(data) - 1, len(data) // 2, len(data) // 3}:
        assert opened(tmp_path / "file", data[:length]) == inspect_bytes(data[:length])


@pytest.mark.parametrize("name", ["baseline", "png", "gif", "animation", "webp"])
def test_what_follows_the_end_does_no_harm(name: str) -> None:
    data, kind, _ = FILES[name]
    assert inspect_bytes(data + b"trailing \x00\x01 bytes") == inspect_bytes(data)
    assert inspect_bytes(data + bytes(9)).kind is kind


def test_a_large_picture_with_a_long_tail(tmp_path: Path) -> None:
    data = media.encoded("JPEG") + bytes(300_000)
    assert opened(tmp_path / "1.jpg", data).complete


@pytest.mark.parametrize("tail", range(30))
def test_an_end_marker_is_found_across_the_pieces_that_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    monkeypatch.setattr(media_module, "_FIRST_SEARCH_BYTES", 3)
    assert opened(tmp_path / "1.jpg", media.encoded("JPEG") + bytes(tail)).complete


def test_an_end_marker_in_an_embedded_thumbnail_is_not_the_end() -> None:
    thumbnail = media.encoded("JPEG", 8, 8)
    whole = media.encoded("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
    data = whole[:2] + segment + whole[2:]
    assert inspect_bytes(data).complete
    cut = inspect_bytes(data[:-40])
    assert (cut.problem, cut.width) == (Problem.NO_END, 40)


def test_segments_of_a_broken_jpeg() -> None:
    whole = media.encoded("JPEG")
    assert inspect_bytes(b"\xff\xd8\xff\xd9" + bytes(20)).problem is Problem.NO_PICTURE
    assert inspect_bytes(whole[:20] + b"no marker" + whole[20:]).problem is Problem.BROKEN
    filled = whole[:2] + b"\xff" * 5 + whole[2:]
    assert inspect_bytes(filled) == inspect_bytes(whole)


def test_chunks_of_a_broken_png() -> None:
    whole = media.encoded("PNG")
    wrong = whole[:16] + b"\x00\x00\xff\x00" + whole[20:]
    assert inspect_bytes(wrong).problem is Problem.CHECKSUM
    no_header = whole[:12] + b"IDAT" + whole[16:]
    assert inspect_bytes(no_header).problem is Problem.BROKEN
    nothing = whole[:33] + whole[-12:]
    assert inspect_bytes(nothing) == Content(
        kind=Kind.PNG, width=40, height=30, problem=Problem.NO_PICTURE
    )
    odd = whole[:33] + struct.pack(">I4sI", 0, b"\x00\x01\x02\x03", 0) + whole[33:]
    assert inspect_bytes(odd).problem is Problem.BROKEN


def test_blocks_of_a_gif() -> None:
    whole = media.encoded("GIF")
    assert whole.endswith(b";")
    assert inspect_bytes(whole[:-1] + bytes(25) + b";").complete
    assert inspect_bytes(whole[:-1] + b"?;").problem is Problem.BROKEN
    assert inspect_bytes(whole[:13] + bytes(3 * 256) + b";").problem is Problem.NO_PICTURE


def test_a_gif_of_many_full_sub_blocks() -> None:
    screen = b"GIF89a" + struct.pack("<HHBBB", 5, 6, 0, 0, 0)
    start = screen + b"," + bytes(9) + b"\x08"
    blocks = (b"\xff" + bytes(255)) * 500 + b"\x07" + bytes(7) + b"\x00"
    assert inspect_bytes(start + blocks + b";").complete
    assert inspect_bytes(start + blocks[:-9] + b";").problem is Problem.NO_END


def test_an_old_bmp() -> None:
    head = b"BM" + struct.pack("<IIIIHHHH", 30, 0, 26, 12, 1, 1, 1, 24)
    assert inspect_bytes(head + bytes(4)) == Content(kind=Kind.BMP, width=1, height=1)
    assert inspect_bytes(head + bytes(3)).problem is Problem.PAST_END


def test_a_zip_with_bytes_missing_in_its_middle() -> None:
    whole = media.ugoira()
    assert inspect_bytes(whole[:200] + whole[300:]).problem is Problem.NO_DIRECTORY
    end = whole.rindex(b"PK\x05\x06")
    assert inspect_bytes(whole[: end - 9] + whole[end:]).problem is Problem.NO_DIRECTORY


def test_a_zip_whose_numbers_are_too_large_for_its_end_record() -> None:
    whole = bytearray(media.ugoira())
    whole[-6:-2] = b"\xff\xff\xff\xff"
    assert inspect_bytes(bytes(whole)).problem is Problem.NO_DIRECTORY
    locator = b"PK\x06\x07" + bytes(16)
    assert inspect_bytes(bytes(whole[:-22]) + locator + bytes(whole[-22:])).complete


def test_films_without_an_index_or_with_boxes_of_other_shapes() -> None:
    start = media.box(b"ftyp", b"isom", bytes(4))
    assert inspect_bytes(start + media.box(b"mdat", bytes(50))).problem is Problem.NO_INDEX
    long_box = struct.pack(">I4sQ", 1, b"mdat", 16 + 20) + bytes(20)
    to_the_end = struct.pack(">I4s", 0, b"mdat") + bytes(99)
    index = media.box(b"moov", media.box(b"trak"))
    assert inspect_bytes(start + long_box + index).complete
    assert inspect_bytes(start + index + to_the_end).complete
    assert inspect_bytes(start + index).problem is Problem.NO_PICTURE
    beyond = media.box(b"moov", struct.pack(">I4s", 999, b"trak"))
    assert inspect_bytes(start + long_box + beyond).problem is Problem.PAST_END


def test_a_live_webm_states_no_length() -> None:
    assert inspect_bytes(media.webm(sized=False)).complete
    assert inspect_bytes(b"\x1aE\xdf\xa3\x84webm" + bytes(20)).problem is Problem.BROKEN
    assert inspect_bytes(b"\x1aE\xdf\xa3\x00webm" + bytes(20)).problem is Problem.CUT_HEADER


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Kind.EMPTY),
        (b"x", Kind.UNKNOWN),
        (bytes(5000), Kind.UNKNOWN),
        (b"BMW and other cars, a text of some length", Kind.UNKNOWN),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", Kind.UNKNOWN),
        (media.HTML, Kind.HTML),
        (b"\xef\xbb\xbf \n<!-- a --><HTML lang=en>", Kind.HTML),
        (b'<?xml version="1.0"?><!DOCTYPE html><html/>', Kind.HTML),
        (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', Kind.UNKNOWN),
        (b"<!DOCTYPE svg PUBLIC 'x'><svg></svg>", Kind.SVG),
        (b"<s:svg xmlns:s='x'></s:svg>", Kind.SVG),
        (b"CWS\x09" + bytes(20), Kind.SWF),
        (b"PK\x05\x06" + bytes(18), Kind.ZIP),
        (media.box(b"ftyp", b"mp42", bytes(4)), Kind.MP4),
        (media.box(b"ftyp", b"avis", bytes(4)), Kind.AVIF),
    ],
)
def test_kinds(data: bytes, kind: Kind) -> None:
    assert inspect_bytes(data).kind is kind


@pytest.mark.parametrize(
    "data",
    [
        b"\n<!--x-->" * 60,
        b"<?xml ?>" * 64,
        b"\xff\xd8" + b"\xff" * 2_000_000,
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 500_000,
        b"GIF89a" + bytes(1_000_000),
        b"GIF89a" + bytes(7) + b"," + bytes(10) + b"\x01\x01" * 500_000,
        b"\x00\x00\x00\x08ftyp" * 100_000,
    ],
)
def test_bytes_made_to_keep_a_walker_busy(data: bytes) -> None:
    assert inspect_bytes(data).problem is not Problem.NONE or b"<" in data


def test_a_file_of_too_many_parts_is_not_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_module, "_MAX_READS", 10)
    monkeypatch.setattr(media_module, "_WINDOW_BYTES", 16)
    chunks = struct.pack(">I4sI", 0, b"tEXt", 0) * 1000
    data = media.encoded("PNG")[:33] + chunks
    assert opened(tmp_path / "1.png", data) == Content(kind=Kind.PNG)
    assert inspect_bytes(data).problem is Problem.NO_END


def test_extensions() -> None:
    assert kind_of_extension("jpg") is kind_of_extension("JPEG") is Kind.JPEG
    assert kind_of_extension("png") is Kind.PNG
    assert kind_of_extension("zip") is Kind.ZIP
    assert kind_of_extension("txt") is None


def test_every_kind_and_problem_has_words() -> None:
    assert all(kind.text for kind in Kind)
    assert all(problem.text for problem in Problem if problem is not Problem.NONE)
