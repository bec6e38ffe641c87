"""Frames of rows: keys and lines in, the same out, and a few of them picked."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.framed import (
    FramedHeader,
    FramedWriter,
    decode_framed,
    pack_bytes,
    pack_parts,
    pack_planes,
)
from manifests.framedref import FramedRef
from manifests.metadata.rowfile import (
    FRAME_TEXT_BYTES,
    KIND,
    SECTION,
    RowFrame,
    cut_frames,
    decode_rows,
    encode_frames,
    row_frames,
)


def made_of(frames: list[tuple[int, bytes]]) -> tuple[FramedHeader, bytes]:
    """A header and its object, of frames by first key."""
    parts: list[bytes] = []
    writer = FramedWriter(KIND, parts.append)
    for key, data in frames:
        writer.add(SECTION, key, data)
    size, digest, header_bytes = writer.finish({})
    data = b"".join(parts)
    ref = FramedRef(
        digest=Digest.of(data), size_bytes=size, header_digest=digest, header_bytes=header_bytes
    )
    return decode_framed(data[-header_bytes:], ref, KIND, "t"), data


def encoded(frames: list[RowFrame]) -> list[tuple[int, bytes]]:
    return [(f.keys[0], data) for f, data in zip(frames, encode_frames(frames), strict=True)]


def one(frame: RowFrame) -> bytes:
    return encode_frames([frame])[0]


ROWS = [(3 * n + 1, b'{"id":"%d","pad":"%s"}' % (3 * n + 1, b"x" * 500)) for n in range(1000)]


def test_a_frame_ends_at_64_kib_or_after_one_line() -> None:
    rows = [*ROWS[:300], (5000, b"y" * 3 * FRAME_TEXT_BYTES), (5001, b"z")]
    frames = list(cut_frames(rows))
    sizes = [frame.text_bytes for frame in frames]
    assert [len(frame.keys) for frame in frames][-2:] == [1, 1]
    assert max(sizes[:-2]) <= FRAME_TEXT_BYTES
    assert min(sizes[:-3]) > FRAME_TEXT_BYTES - 600
    assert [key for frame in frames for key in frame.keys] == [key for key, _ in rows]


def test_all_rows_come_back() -> None:
    frames = list(cut_frames(ROWS))
    header, data = made_of(encoded(frames))
    text, keys = b"", list[int]()
    for frame in row_frames(header, None):
        rows = decode_rows(header, frame, data[slice(*header.span(frame))])
        text += rows.text
        keys += rows.keys.tolist()
    assert text == b"".join(line + b"\n" for _, line in ROWS)
    assert keys == [key for key, _ in ROWS]


@pytest.mark.parametrize("wanted", [[], [1], [2], [1, 4, 2998], [1000, 1300], list(range(3001))])
def test_some_rows_come_from_their_frames_alone(wanted: list[int]) -> None:
    header, data = made_of(encoded(list(cut_frames(ROWS))))
    keys = np.array(wanted, np.uint32)
    frames = row_frames(header, keys)
    assert len(frames) <= max(len(wanted), 0)
    text = b"".join(
        decode_rows(header, frame, data[slice(*header.span(frame))]).pick(keys) for frame in frames
    )
    assert text == b"".join(line + b"\n" for key, line in ROWS if key in wanted)


def test_lines_are_kept_to_the_byte() -> None:
    lines = [b' {"a": 1}\r', b"\xff\x00 no JSON at all", b"\xe2\x80\xa8"]
    frame = RowFrame(keys=[1, 2, 2**32 - 1], lines=lines)
    header, data = made_of(encoded([frame]))
    rows = decode_rows(header, (SECTION, 0), data[slice(*header.span((SECTION, 0)))])
    assert rows.text == b"\n".join([*lines, b""])
    assert rows.pick(np.array([2, 2**32 - 1], np.uint32)) == b"\n".join([*lines[1:], b""])


def test_what_cannot_be_rows_is_refused_where_it_stands() -> None:
    good = one(RowFrame(keys=[5, 9], lines=[b"a", b"b"]))
    overlapping, _ = made_of([(5, good), (9, good)])
    with pytest.raises(ManifestError, match=r"t\.rows\[0\]\.keys: not ascending"):
        decode_rows(overlapping, (SECTION, 0), good)
    header, _ = made_of([(5, good)])
    lines = one(RowFrame(keys=[1], lines=[b"a"]))
    twice = one(RowFrame(keys=[5, 5], lines=[b"a", b"b"]))
    half = pack_parts([pack_planes(np.zeros(1, np.uint32)), pack_bytes(b"a\nb")])
    later = pack_parts([pack_planes(np.ones(2, np.uint32)), pack_bytes(b"a\nb\n")])
    for bad, place in ((half, "lines: expected whole"), (later, "keys: not ascending")):
        with pytest.raises(ManifestError, match=rf"t\.rows\[0\]\.{place}"):
            decode_rows(header, (SECTION, 0), bad)
    for bad, place in ((twice, "keys"), (lines[:-1], ""), (pack_parts([b"", b""]), "lines")):
        with pytest.raises(ManifestError, match=rf"t\.rows\[0\].*{place}"):
            decode_rows(header, (SECTION, 0), bad)
