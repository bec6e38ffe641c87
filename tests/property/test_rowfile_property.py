"""Rows of metadata: whatever the bytes, rows or ManifestError; whatever the rows, they return."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from manifests.columns import U32
from manifests.digest import Digest
from manifests.errors import ManifestError
from manifests.framed import FramedHeader, FramedWriter, decode_framed, pack_parts, pack_planes
from manifests.framedref import FramedRef
from manifests.metadata.rowfile import KIND, SECTION, RowFrame, decode_rows, encode_frames

LINES = st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), min_size=1)


def header_of(key: int, data: bytes) -> FramedHeader:
    parts: list[bytes] = []
    writer = FramedWriter(KIND, parts.append)
    writer.add(SECTION, key, data)
    size, digest, header_bytes = writer.finish({})
    whole = b"".join(parts)
    ref = FramedRef(
        digest=Digest.of(whole), size_bytes=size, header_digest=digest, header_bytes=header_bytes
    )
    return decode_framed(whole[-header_bytes:], ref, KIND, "t")


@given(lines=LINES, source=st.data())
def test_rows_return(lines: list[bytes], source: st.DataObject) -> None:
    keys = source.draw(
        st.sets(st.integers(1, 2**32 - 1), min_size=len(lines), max_size=len(lines))
    )
    frame = RowFrame(keys=sorted(keys), lines=lines)
    (data,) = encode_frames([frame])
    rows = decode_rows(header_of(frame.keys[0], data), (SECTION, 0), data)
    assert rows.keys.tolist() == frame.keys
    chosen: U32 = np.array(frame.keys[::2], np.uint32)
    assert rows.pick(chosen) == b"".join(line + b"\n" for line in lines[::2])


@given(data=st.binary(max_size=200), key=st.integers(0, 2**32 - 1))
def test_any_bytes_are_rows_or_an_error(data: bytes, key: int) -> None:
    with suppress(ManifestError):
        decode_rows(header_of(key, data), (SECTION, 0), data)


@given(
    steps=st.lists(st.integers(0, 2**32 - 1), max_size=8),
    text=st.binary(max_size=20).map(lambda line: line.replace(b"a", b"\n")),
    key=st.integers(0, 2**32 - 1),
)
def test_any_keys_and_lines_are_rows_or_an_error(steps: list[int], text: bytes, key: int) -> None:
    columns = pack_planes(np.array(steps, np.uint32))
    data = pack_parts([columns, zstandard.ZstdCompressor().compress(text)])
    try:
        rows = decode_rows(header_of(key, data), (SECTION, 0), data)
    except ManifestError:
        return
    assert rows.text == text
    assert len(rows) == text.count(b"\n") == len(steps)
    assert sorted(set(rows.keys.tolist())) == rows.keys.tolist()
