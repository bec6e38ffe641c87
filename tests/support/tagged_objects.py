"""The framed objects of the frozen release ``tagged``, made with the product's own writers."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import msgpack
import zstandard

from manifests.framed import FramedWriter
from manifests.framedref import FramedRef
from manifests.metadata import rowfile
from manifests.metadata.parsing import PARSERS
from manifests.metadata.rowfile import RowFrame, encode_frames
from manifests.model import TableRef
from manifests.tagindex import build, postings
from manifests.tagindex.build import IndexBuilder
from tests.support import tagged_words as words
from tests.support.framedobjects import framed

# A writer may close a frame early.  A dozen posts fill no frame of 16,384 ordinals, and only a
# list that has a frame of its own can be one bit a post.
FRAME_GAPS = 4
FRAME_ROWS = 5


def tag_index() -> tuple[bytes, FramedRef]:
    """The index of the posts and tables of :mod:`tests.support.tagged_words`."""
    given = {
        "posts": [words.post_line(post) for post in reversed(words.POSTS)],
        "tag_aliases": words.alias_lines(),
        "tag_implications": words.implication_lines(),
        "pools": words.pool_lines(),
    }
    builder = IndexBuilder()
    for kind, lines in given.items():
        content, faults = PARSERS[kind](b"".join([line + b"\n" for line in lines]), kind, 1)
        if faults:
            raise ValueError(faults)
        builder.add(kind, content)
    with patch.object(postings, "FRAME_GAPS", FRAME_GAPS):
        ref, data = framed(build.KIND, builder.finish)
        return data, ref


def table(name: str) -> tuple[bytes, TableRef]:
    """One table of rows, in several frames if it has more than a few."""
    rows = [(row["key"], row["line"].encode()) for row in words.describe_rows()[name]]
    frames = [
        RowFrame(
            keys=[key for key, _ in rows[first : first + FRAME_ROWS]],
            lines=[line for _, line in rows[first : first + FRAME_ROWS]],
        )
        for first in range(0, len(rows), FRAME_ROWS)
    ]

    def write(writer: FramedWriter) -> Mapping[str, Any]:
        for frame, data in zip(frames, encode_frames(frames), strict=True):
            writer.add(rowfile.SECTION, frame.keys[0], data)
        return {}

    ref, data = framed(rowfile.KIND, write)
    text_bytes = sum(frame.text_bytes for frame in frames)
    return data, TableRef(name=name, rows=len(rows), raw_bytes=text_bytes, ref=ref)


def describe_header(data: bytes, ref: FramedRef) -> dict[str, Any]:
    """The header of a framed object, the columns of its sections turned into rows."""
    document = msgpack.unpackb(zstandard.decompress(data[slice(*ref.header_span)]))
    document["sections"] = {
        name: _frames_of(section) for name, section in document["sections"].items()
    }
    return dict(document)


def _frames_of(section: dict[str, Any]) -> list[dict[str, Any]]:
    count = section["frames"]
    kinds = {"start": "Q", "length": "I", "key": "I"}
    columns = {
        name: struct.unpack(f"<{count}{kind}", section[name]) for name, kind in kinds.items()
    }
    return [
        {name: column[row] for name, column in columns.items()}
        | {"digest": section["digest"][32 * row : 32 * row + 32].hex()}
        for row in range(count)
    ]
