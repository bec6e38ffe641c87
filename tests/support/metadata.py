"""Rows of metadata as the audit meets them, made of a few fields."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from manifests.metadata.faults import BadRow
from manifests.metadata.rows import parse_block
from server.audit.posts import PostCollector, PostTable


def post(post_id: int, **fields: object) -> bytes:
    """One line, without its end."""
    return orjson.dumps({"id": str(post_id), "file_ext": "jpg", **fields})


def post_table(rows: Iterable[bytes], faults: Iterable[BadRow] = ()) -> PostTable:
    """The table of some lines, and of faults that were found elsewhere."""
    collector = PostCollector()
    batch, own = parse_block(b"\n".join(rows), "posts.json", 1)
    collector.add(batch)
    collector.blame([*own, *faults])
    return collector.table()
