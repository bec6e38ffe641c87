"""Which reader takes which kind of metadata; the kinds are named like the tables of an export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from manifests.metadata.columns import PostBatch
from manifests.metadata.faults import BadRow
from manifests.metadata.rows import parse_block
from manifests.metadata.tables import (
    PoolTable,
    Relations,
    TagTable,
    parse_pools,
    parse_relations,
    parse_tags,
)

Content: TypeAlias = PostBatch | TagTable | Relations | PoolTable
# Takes a block of whole lines, the name of its file, and the number of its first line.
Parser: TypeAlias = Callable[[bytes, str, int], tuple[Content, list[BadRow]]]

PARSERS: Final[Mapping[str, Parser]] = {
    "posts": parse_block,
    "tags": parse_tags,
    "tag_aliases": parse_relations,
    "tag_implications": parse_relations,
    "pools": parse_pools,
}
