"""The numbers in docs/reference/format.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from manifests import codec, framed, framedref, manifest, model, notices
from manifests.columns import MAX_EXTENSIONS
from manifests.metadata import lines, rowfile
from manifests.paths import MAX_BUCKETS, MAX_ID
from manifests.tagindex import build, names, pools, postings, values

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "format.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
# One file of 1 TiB: its entry, and the digests of its chunks.
LARGEST_FRAME = 42 + 32 * (model.MAX_FILE_BYTES // 2**22 + 1)
LIMITS = {
    "ids": [MAX_ID],
    "size of a file": [model.MAX_FILE_BYTES],
    "buckets": [MAX_BUCKETS],
    "layers of a release": [model.MAX_LAYERS],
    "variants of a layer": [model.MAX_VARIANTS],
    "assets": [model.MAX_ASSETS],
    "extensions, reasons of a manifest": [MAX_EXTENSIONS],
    "entries of a frame of a manifest": [manifest.FRAME_ENTRIES],
    "frame of a manifest, once decompressed": [LARGEST_FRAME],
    "removed ids of a layer": [model.MAX_REMOVED],
    "descriptor, notices": [model.MAX_DESCRIPTOR_BYTES, notices.MAX_NOTICES_BYTES],
    "header of a manifest": [model.MAX_HEADER_BYTES],
    "tables of metadata": [model.MAX_TABLES],
    "a line of metadata": [lines.MAX_LINE_BYTES],
    "header of a framed object": [framedref.MAX_HEADER_BYTES],
    "sections of a framed object": [framed.MAX_SECTIONS],
    "a frame of a framed object": [framed.MAX_FRAME_BYTES],
    "posts of a tag index": [values.MAX_POSTS],
    "names of a tag index": [names.MAX_TAGS],
    "name of a tag": [names.MAX_NAME_BYTES],
    "implications": [names.MAX_IMPLICATIONS],
    "extensions of a tag index": [values.MAX_EXTENSIONS],
    "ordinals of several lists in a frame": [postings.FRAME_GAPS],
    "sources of a frame, once decompressed": [values.MAX_SOURCES_BYTES],
    "source of a post": [build._MAX_SOURCE_BYTES],
    "md5 of a frame, pools of a frame": [values.FRAME_MD5S, pools.FRAME_POOLS],
    "names of the pools of a frame, once decompressed": [pools.MAX_NAMES_BYTES],
    "posts of the pools of a frame": [pools.MAX_MEMBERS],
}
# With the minus sign of the page.
_AMOUNT = re.compile(r"(2\^\d+|\d{1,3}(?:,\d{3})*)( \u2212 1)?( MiB)?")


def amounts(cell: str) -> list[int]:
    """The numbers of a cell: ``2^26``, ``32 MiB, 64 MiB``, ``8,388,650 bytes``."""
    found = []
    for digits, less_one, mebibytes in _AMOUNT.findall(cell):
        base, _, power = digits.replace(",", "").partition("^")
        value = int(base) ** int(power or 1)
        found.append((value - bool(less_one)) * (2**20 if mebibytes else 1))
    return found


def rows() -> dict[str, str]:
    """The table of limits: what, and at most how much."""
    section = TEXT.split("\n## Limits\n")[1].split("\n## ")[0]
    cells = [line.split("|") for line in section.splitlines() if line.startswith("| ")]
    return {cell[1].strip(): cell[2] for cell in cells[1:]}


def test_every_limit_is_looked_at() -> None:
    assert rows().keys() == LIMITS.keys()


@pytest.mark.parametrize("what", LIMITS)
def test_limits_in_the_document(what: str) -> None:
    assert amounts(rows()[what]) == LIMITS[what]


@pytest.mark.parametrize(
    "text",
    [
        f"at most {codec._MAX_ITEMS:,} items",
        f"more than {codec._MAX_LENGTH:,} members",
        f"0 to {model.MAX_TIME_S}",
        f"frames of {values.FRAME_ROWS:,}",
        f"| {values.FRAME_ROWS:,} posts each",
        f"| {names.FRAME_NAMES:,} tags each",
        f"| at most {values.FRAME_MD5S:,} posts each",
        f"| at most {pools.FRAME_POOLS:,} pools each",
        f"more than {postings.FRAME_GAPS:,} ordinals",
        f"at most {rowfile.MAX_LINE_BYTES // 2**20} MiB + {rowfile.MAX_LINE_BYTES % 2**20} bytes",
        f"more than {rowfile.FRAME_TEXT_BYTES // 2**10} KiB",
    ],
)
def test_numbers_in_the_text(text: str) -> None:
    assert text in " ".join(TEXT.split())
