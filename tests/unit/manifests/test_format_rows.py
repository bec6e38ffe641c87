"""A reader of rows of metadata written from docs/reference/format.md alone.

It must not import anything of ours but what makes the object: its own reading is the check.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import blake3
import msgpack
import zstandard

from server.publishing.crew import Crew
from server.publishing.rowtables import RowTables
from server.repository import Repository

DOCUMENT = Path(__file__).parents[3] / "docs/reference/format.md"


def digest(data: bytes) -> bytes:
    return blake3.blake3(data).digest()


def decompress(data: bytes, limit: int) -> bytes:
    assert zstandard.get_frame_parameters(data).content_size <= limit
    return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)


def parts(data: bytes, count: int) -> list[bytes]:
    """The section "Parts"."""
    found, start = [], 4 * count
    for length in struct.unpack_from(f"<{count}I", data):
        found.append(data[start : start + length])
        start += length
    assert start == len(data)
    return found


def planes(data: bytes, count: int) -> list[int]:
    """The section "Planes", of u32."""
    values = [0] * count
    for place, part in enumerate(parts(data, 4)):
        plane = part or bytes(count)
        plane = plane if len(plane) == count else decompress(plane, count)
        assert len(plane) == count
        values = [v | byte << 8 * place for v, byte in zip(values, plane, strict=True)]
    return values


def read_rows(data: bytes, ref: dict[str, Any]) -> dict[int, bytes]:
    """The sections "Framed objects" and "Rows of metadata"."""
    assert (digest(data), len(data)) == (ref["digest"], ref["size"])
    assert data[:8] == b"bsyncfr1"
    tail = data[-ref["header_size"] :]
    assert digest(tail) == ref["header_digest"]
    header = msgpack.unpackb(decompress(tail, 2**28))
    assert (header["format"], header["kind"], header["about"]) == (1, "rows", {})
    section = header["sections"]["rows"]
    count = section["frames"]
    starts = struct.unpack(f"<{count}Q", section["start"])
    lengths = struct.unpack(f"<{count}I", section["length"])
    keys = struct.unpack(f"<{count}I", section["key"])
    rows: dict[int, bytes] = {}
    for number, (start, length, key) in enumerate(zip(starts, lengths, keys, strict=True)):
        frame = data[start : start + length]
        assert digest(frame) == section["digest"][32 * number : 32 * number + 32]
        column, packed = parts(frame, 2)
        text = decompress(packed, 2**24 + 2)
        assert text.endswith(b"\n")
        lines = text.split(b"\n")[:-1]
        for step, line in zip(planes(column, len(lines)), lines, strict=True):
            key += step  # noqa: PLW2901 (the key of a row follows from the one before)
            rows[key] = line
    assert list(rows) == sorted(rows)
    return rows


def test_rows_of_metadata(tmp_path: Path) -> None:
    lines = [b'{"name":"%d","pad":"%s"}\r' % (n, b"x" * (n % 300)) for n in range(2000)]
    with Crew(1) as crew, RowTables(Repository(root=tmp_path)) as tables:
        tables.add_lines("tags", b"\n".join(lines))
        (table,) = tables.store(crew)
    ref = table.to_map()
    path = tmp_path / "objects" / ref["digest"].hex()[:2] / ref["digest"].hex()
    rows = read_rows(path.read_bytes(), ref)
    assert rows == dict(enumerate(lines, 1))
    assert (ref["name"], ref["rows"]) == ("tags", len(lines))
    assert ref["bytes"] == sum(map(len, lines)) + len(lines)


def test_the_page_has_the_limits() -> None:
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    for said in (
        "| header of a framed object | 256 MiB |",
        "| a line of metadata | 16 MiB |",
        "| tables of metadata | 100 |",
        "at most 16 MiB + 2 bytes decompressed",
    ):
        assert said in text
