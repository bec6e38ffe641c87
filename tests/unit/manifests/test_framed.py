"""Framed objects: the header is the one that was named, and each frame the one in the header."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from msgspec.structs import replace

from manifests.codec import encode
from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.framed import (
    MAX_FRAME_BYTES,
    MAX_SECTIONS,
    FramedHeader,
    FramedWriter,
    decode_framed,
    pack_bytes,
    pack_parts,
    unpack_count,
    unpack_parts,
    unpack_planes,
)
from manifests.framedref import FramedRef
from tests.support.framedobjects import framed


def written(sections: int = 1) -> tuple[FramedRef, bytes]:
    """How an object of one frame a section is named, and its bytes."""

    def write(writer: FramedWriter) -> dict[str, str]:
        for number in range(sections):
            writer.add(f"s{number}", 0, b"frame")
        return {}

    return framed("birds", write)


def read(ref: FramedRef, data: bytes, kind: str = "birds") -> FramedHeader:
    return decode_framed(data[slice(*ref.header_span)], ref, kind, "o")


def test_a_frame_is_what_the_header_names() -> None:
    header = read(*written())
    assert header.check(("s0", 0), b"frame") == b"frame"
    for bad in (b"Frame", b"frame ", b""):
        with pytest.raises(ManifestError, match=r"^o\.s0\[0\]: not the bytes that the header"):
            header.check(("s0", 0), bad)


def test_a_header_is_what_was_named() -> None:
    ref, data = written()
    header = data[slice(*ref.header_span)]
    stated_longer = replace(ref, header_bytes=ref.header_bytes + 1)
    for named, bad in ((ref, header + b" "), (ref, b"?" + header[1:]), (stated_longer, header)):
        with pytest.raises(ManifestError, match=r"^o\.header: not the bytes that the descriptor"):
            decode_framed(bad, named, "birds", "o")


def test_an_object_of_another_kind_is_refused() -> None:
    with pytest.raises(ManifestError, match="kind: expected 'fish', got 'birds'"):
        read(*written(), kind="fish")


def test_sections_have_a_limit() -> None:
    assert len(read(*written(MAX_SECTIONS)).sections) == MAX_SECTIONS
    with pytest.raises(ManifestError, match=f"more than {MAX_SECTIONS} sections"):
        read(*written(MAX_SECTIONS + 1))


@pytest.mark.parametrize("more", [0, 1])
def test_frames_have_a_limit(more: int) -> None:
    length = MAX_FRAME_BYTES + more
    section = {
        "frames": 1,
        "start": struct.pack("<Q", 8),
        "length": struct.pack("<I", length),
        "key": bytes(4),
        "digest": bytes(32),
    }
    packed = pack_bytes(
        encode({"format": 1, "kind": "birds", "about": {}, "sections": {"s": section}})
    )
    ref = FramedRef(
        digest=Digest.of(b""),
        size_bytes=8 + length + len(packed),
        header_digest=Digest.of(packed),
        header_bytes=len(packed),
    )
    if more:
        with pytest.raises(ManifestError, match=f"a frame of more than {MAX_FRAME_BYTES} bytes"):
            decode_framed(packed, ref, "birds", "o")
    else:
        header = decode_framed(packed, ref, "birds", "o")
        assert header.span(("s", 0)) == (8, 8 + length)


def test_parts_are_all_of_a_frame() -> None:
    data = pack_parts([b"", b"ab"])
    assert [bytes(part) for part in unpack_parts(data, 2, "f")] == [b"", b"ab"]
    assert unpack_parts(pack_parts([b""]), 1, "f") == [b""]
    with pytest.raises(ManifestError, match="expected 2 parts, got 7 bytes"):
        unpack_parts(data[:7], 2, "f")
    for bad in (data[:-1], data + b"c"):
        with pytest.raises(ManifestError, match="expected 10 bytes, got"):
            unpack_parts(bad, 2, "f")


def test_a_count_has_its_length_and_limit() -> None:
    assert unpack_count(memoryview(struct.pack("<I", 7)), 7, "f") == 7
    with pytest.raises(ManifestError, match="expected at most 6, got 7"):
        unpack_count(memoryview(struct.pack("<I", 7)), 6, "f")
    for bad in (bytes(3), bytes(5)):
        with pytest.raises(ManifestError, match=f"expected a count, got {len(bad)} bytes"):
            unpack_count(memoryview(bad), 7, "f")


def test_a_column_has_so_many_values() -> None:
    assert unpack_planes(pack_parts([b"\1\2"]), 2, np.uint8, "f").tolist() == [1, 2]
    with pytest.raises(ManifestError, match="expected 9 values, got 8"):
        unpack_planes(pack_parts([pack_bytes(b"\1" * 8)]), 9, np.uint8, "f")
