"""Forged frames and removals: all digests match, and what is inside is wrong."""

from __future__ import annotations

import struct

import pytest
from msgspec.structs import replace

from manifests import manifest
from manifests.columns import CHUNK_BYTES
from manifests.errors import ExitCode, ManifestError
from manifests.model import MAX_FILE_BYTES, MAX_REMOVED
from manifests.paths import MAX_ID
from tests.support.forgery import (
    HOSTILE_FRAMES,
    Forgery,
    Frame,
    compress,
    lies_about_its_size,
    peak_bytes_of_refusal,
    skippable,
)

MIB = 2**20


def refused_rows(*frames: Frame, rows: list[int] | None = None) -> ManifestError:
    forged = Forgery(frames=frames).make()
    header = manifest.decode_header(forged.header, forged.ref, "m")
    wanted = list(range(len(frames))) if rows is None else rows
    with pytest.raises(ManifestError) as caught:
        manifest.decode_rows(header, wanted, [forged.frames[row] for row in wanted], 0, "m")
    return caught.value


LARGE = CHUNK_BYTES + 1
GOOD = Frame(bucket=0, first=1)


@pytest.mark.parametrize(
    ("frame", "what", "problem"),
    [
        (Frame(bucket=1, steps=[1]), ".ids", "not strictly ascending"),
        (Frame(bucket=1, steps=[0, 0], sizes=[1, 1]), ".ids", "not strictly ascending"),
        (Frame(bucket=1, steps=[1, 0], sizes=[1, 1]), ".ids", "not strictly ascending"),
        (Frame(bucket=1, steps=[0, 1, 0, 1], sizes=[1] * 4), ".ids", "not strictly ascending"),
        (
            Frame(bucket=1, first=1, steps=[0, MAX_ID // 10], sizes=[1, 1]),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (
            Frame(bucket=1, steps=[0, 2**32 - 1, 3], sizes=[1, 1, 1]),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (
            Frame(bucket=6, first=MAX_ID // 10),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (
            Frame(bucket=1, steps=[0, *[2**32 - 1] * 127], sizes=[1] * 128),
            ".ids",
            "an id outside 1 to 4294967295",
        ),
        (Frame(bucket=1, exts=[1]), ".extensions", "stands for no extension"),
        (Frame(bucket=1, steps=[0, 1], sizes=[1, 1], exts=[0, 255]), ".extensions", "stands for"),
        (Frame(bucket=1, file_bytes=99), ".sizes", "do not add up"),
        (Frame(bucket=1, sizes=[2**40 - 1], file_bytes=2**32 - 1), ".sizes", "do not add up"),
        (Frame(bucket=1, sizes=[2**32], file_bytes=1), ".sizes", "do not add up"),
        (Frame(bucket=1, sizes=[LARGE]), ".chunks", "not one digest for each chunk"),
        (Frame(bucket=1, sizes=[LARGE], chunks=bytes(32)), ".chunks", "not one digest"),
        (Frame(bucket=1, sizes=[LARGE], chunks=bytes(63)), ".chunks", "not one digest"),
        (Frame(bucket=1, sizes=[CHUNK_BYTES], chunks=bytes(32)), ".chunks", "not one digest"),
        (Frame(bucket=1, extra=b"x"), ".chunks", "not one digest for each chunk"),
        (Frame(bucket=1, sizes=[LARGE], chunks=bytes(64), extra=b"x"), "", "at most"),
        (Frame(bucket=1, extra=bytes(33)), "", "states 75 bytes, at most 74 are possible"),
        (Frame(bucket=1, raw=bytes(41)), "", "41 bytes are too few for 1 entries"),
        (Frame(bucket=1, raw=b""), "", "0 bytes are too few for 1 entries"),
        (
            Frame(bucket=1, steps=[0, 1], sizes=[1, 99], count=1, file_bytes=100),
            "",
            "states 84 bytes",
        ),
        (Frame(bucket=1, count=2), "", "42 bytes are too few for 2 entries"),
    ],
)
def test_a_forged_frame_is_refused_with_its_place(frame: Frame, what: str, problem: str) -> None:
    for error in (refused_rows(GOOD, frame), refused_rows(GOOD, frame, rows=[1])):
        assert error.where == f"m.rows[1]{what}"
        assert problem in error.problem
        assert error.exit_code is ExitCode.REFUSED


def test_id_zero_is_refused() -> None:
    error = refused_rows(Frame(bucket=0, first=0))
    assert str(error) == "m.rows[0].ids: an id outside 1 to 4294967295"


def test_the_largest_id_is_read() -> None:
    forged = Forgery(frames=[Frame(bucket=5, first=MAX_ID // 10)]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert manifest.decode_rows(header, [0], forged.frames, 0).ids.tolist() == [MAX_ID]


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 1], [0]])
@pytest.mark.parametrize("last", [5, 6])
def test_a_frame_may_not_reach_into_the_next(rows: list[int], last: int) -> None:
    reaching = Frame(first=1, steps=[0, last - 1], sizes=[1, 1])
    error = refused_rows(reaching, Frame(first=5), Frame(bucket=1, first=0), rows=rows)
    assert str(error) == "m.rows[0].ids: reaches into the next row"


def test_a_frame_may_end_right_before_the_next_and_reach_past_that_of_another_bucket() -> None:
    frames = [
        Frame(first=1, steps=[0, 3], sizes=[1, 1]),
        Frame(first=5, steps=[0, 90], sizes=[1, 1]),
        Frame(bucket=1, first=0, steps=[0, 90], sizes=[1, 1]),
    ]
    forged = Forgery(frames=frames).make()
    header = manifest.decode_header(forged.header, forged.ref)
    entries = manifest.decode_rows(header, range(3), forged.frames, 0)
    assert entries.ids.tolist() == [10, 40, 50, 950, 1, 901]


@pytest.mark.parametrize("what", HOSTILE_FRAMES)
def test_a_frame_is_one_frame_of_the_stated_size(what: str) -> None:
    frame = Frame(bucket=1, data=HOSTILE_FRAMES[what](Frame(bucket=1).inside()))
    error = refused_rows(GOOD, frame)
    assert error.where in {"m.rows[1]", "m.rows[1].chunks"}
    assert what != "no size stated" or error.problem.startswith("states -1 bytes")


def test_a_row_must_agree_with_itself() -> None:
    """The digest is that of the frame, but its length is another."""
    frames = [Frame(bucket=1), Frame(bucket=2)]
    lengths = [len(frame.stored()) for frame in frames]
    spoiled = struct.pack("<2I", lengths[0] + 1, lengths[1] - 1)
    forged = Forgery(frames=frames, fields={"length": spoiled}).make()
    header = manifest.decode_header(forged.header, forged.ref)
    for row in (0, 1):
        assert not manifest.frame_is_intact(header, row, forged.frames[row])
        with pytest.raises(ManifestError, match="not the bytes that the header names"):
            manifest.decode_rows(header, [row], [forged.frames[row]], 0)


def test_frames_must_be_those_that_the_header_names() -> None:
    forged = Forgery(frames=[Frame(bucket=1), Frame(bucket=2)]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    frames = forged.frames
    for bad in (frames[1][:-1], frames[1] + b"\0", bytes(len(frames[1])), b""):
        with pytest.raises(ManifestError, match=r"^m\.rows\[1\]: not the bytes that the header"):
            manifest.decode_rows(header, [0, 1], [frames[0], bad], 0, "m")


def refused_removed(raw: bytes, count: int, **changes: object) -> ManifestError:
    forged = Forgery(removed=count, tail=raw, **changes).make()  # type: ignore[arg-type]
    header = manifest.decode_header(forged.header, forged.ref, "m")
    with pytest.raises(ManifestError) as caught:
        manifest.decode_removed(header, forged.tail, "m")
    return caught.value


def packed(*ids: int, codes: bytes | None = None) -> bytes:
    return struct.pack(f"<{len(ids)}I", *ids) + (bytes(len(ids)) if codes is None else codes)


@pytest.mark.parametrize(
    ("raw", "count", "what", "problem"),
    [
        (packed(0, 1), 2, ".ids", "positive, unique and sorted"),
        (packed(2, 1), 2, ".ids", "positive, unique and sorted"),
        (packed(1, 1), 2, ".ids", "positive, unique and sorted"),
        (packed(9, 10), 2, ".ids", "positive, unique and sorted"),
        (packed(1, 2, codes=b"\0\1"), 2, ".codes", "a code that stands for no reason"),
        (packed(1, 2), 1, "", "states 10 bytes, at most 5 are possible"),
        (packed(1, 2), 3, "", "10 bytes are not 3 removed entries"),
        (b"", 1, "", "0 bytes are not 1 removed entries"),
    ],
)
def test_a_forged_list_of_removals_is_refused(
    raw: bytes, count: int, what: str, problem: str
) -> None:
    error = refused_removed(compress(raw), count)
    assert error.where == f"m.removed{what}"
    assert problem in error.problem


@pytest.mark.parametrize("what", HOSTILE_FRAMES)
def test_a_list_of_removals_is_one_frame_of_its_size(what: str) -> None:
    assert refused_removed(HOSTILE_FRAMES[what](packed(1, 2)), 2).where == "m.removed"


def test_a_list_of_no_removals_is_no_bytes() -> None:
    for tail in (b"garbage", compress(b""), skippable(b"")):
        assert str(refused_removed(tail, 0)).startswith("m.removed: ")
    assert refused_removed(b"", 1).where == "m.removed"
    assert refused_removed(bytes(5 + 1024), 1).where == "m.removed"


def test_removals_must_be_those_that_the_header_names() -> None:
    forged = Forgery(removed=2, tail=compress(packed(1, 2))).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert manifest.decode_removed(header, forged.tail).ids.tolist() == [1, 2]
    for bad in (b"", forged.tail[:-1], forged.tail + b"\0", bytes(len(forged.tail))):
        with pytest.raises(ManifestError, match=r"^manifest\.removed: not the bytes"):
            manifest.decode_removed(header, bad)
    longer = replace(header, removed_length=header.removed_length + 1)
    with pytest.raises(ManifestError, match=r"^manifest\.removed: not the bytes"):
        manifest.decode_removed(longer, forged.tail)


@pytest.mark.parametrize("what", ["states its size", "lies"])
def test_a_bomb_in_a_frame_does_not_go_off(what: str) -> None:
    bomb = compress(bytes(20 * MIB))
    data = bomb if what == "states its size" else lies_about_its_size(bytes(42), 2**32 - 1)
    forged = Forgery(frames=[Frame(data=data[:1098])]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    attempt = lambda: manifest.decode_rows(header, [0], forged.frames, 0)  # noqa: E731
    assert peak_bytes_of_refusal(attempt) < MIB


def test_the_largest_frame_costs_little() -> None:
    """One file of a TiB has 8 MiB of chunk digests; nothing in a frame can claim more."""
    frame = Frame(file_bytes=MAX_FILE_BYTES, data=compress(bytes(42 + 32 * 2**18)))
    forged = Forgery(frames=[frame]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    attempt = lambda: manifest.decode_rows(header, [0], forged.frames, 0)  # noqa: E731
    assert peak_bytes_of_refusal(attempt) < 40 * MIB


def test_a_bomb_in_the_removals_does_not_go_off() -> None:
    forged = Forgery(removed=100_000, tail=compress(bytes(20 * MIB))).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert peak_bytes_of_refusal(lambda: manifest.decode_removed(header, forged.tail)) < MIB
    assert MAX_REMOVED * 5 < 400 * MIB
