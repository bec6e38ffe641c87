"""Metadata of a publish or an audit: read once, decoded by the crew, handed out in its order.

Of two rows about one post the later counts, so order matters; what is held at a time is a window
of blocks, however much metadata there is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from manifests.metadata.columns import PostBatch
from manifests.metadata.faults import BadRow
from manifests.metadata.parsing import PARSERS, Content
from server.audit.posts import PostCollector, PostTable
from server.publishing.crew import Crew
from syncclient.metadata import ALL_KINDS, Block, Kind, find_metadata, read_blocks

# Less metadata than this is read before other processes have started.
_SMALL_METADATA_BYTES: Final = 16 * 2**20


class Reading(NamedTuple):
    """A block of lines, what they say (a PostBatch for posts), and the faults of lines and file.

    ``content.line_starts`` of posts are places in ``block.data``.
    """

    block: Block
    content: Content
    faults: Sequence[BadRow]


def read_batches(
    paths: Sequence[Path], crew: Crew, kinds: Collection[Kind] = ALL_KINDS
) -> Iterator[Reading]:
    """Everything of some kinds that the metadata at ``paths`` says, in its order.

    Raises ConfigError as :func:`syncclient.metadata.find_metadata` does; bad rows and bad files
    raise nothing, and are faults.
    """
    files = find_metadata(paths)
    small = sum(path.stat().st_size for path in files) < _SMALL_METADATA_BYTES
    blocks = read_blocks(files, kinds)
    for block, (content, faults) in crew.run_in_order(_parse, blocks, here=small):
        yield Reading(block, content, [*faults, *block.faults])


def read_posts(paths: Sequence[Path], crew: Crew) -> PostTable:
    """What an audit needs to know of the posts at ``paths``."""
    collector = PostCollector()
    for reading in read_batches(paths, crew, {Kind.POSTS}):
        collector.blame(reading.faults)
        if isinstance(reading.content, PostBatch):
            collector.add(reading.content)
    return collector.table()


def _parse(block: Block) -> tuple[Content, list[BadRow]]:
    return PARSERS[block.kind](block.data, block.file, block.first_line)
