"""What a publish makes of the metadata: posts to audit the files against, rows and tag index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from manifests.framedref import FramedRef
from manifests.metadata.columns import PostBatch
from manifests.model import TableRef
from server.audit.posts import PostCollector, PostTable
from server.progress import Progress
from server.publishing.crew import Crew
from server.publishing.framing import FramedObject
from server.publishing.othertables import find_other_tables, read_other_table
from server.publishing.reading import read_batches
from server.publishing.rowtables import RowTables
from server.repository import Repository


class Metadata(Struct, frozen=True, kw_only=True, eq=False):
    """Of a release without metadata all are empty."""

    posts: PostTable | None = None
    tables: tuple[TableRef, ...] = ()
    tag_index: FramedRef | None = None


def take_metadata(
    paths: Sequence[Path], repository: Repository, crew: Crew, progress: Progress
) -> Metadata:
    """Read everything once, and make the objects, which nothing names yet.

    ConfigError where there is no metadata at a path, OSError if the disk refuses.
    """
    # 0.02 s that a publish without metadata need not spend.
    from manifests.tagindex.build import KIND, IndexBuilder  # noqa: PLC0415

    collector, builder = PostCollector(), IndexBuilder()
    progress.begin("metadata", what="posts")
    with RowTables(repository) as tables:
        for block, content, faults in read_batches(paths, crew):
            collector.blame(faults)
            builder.add(block.kind, content)
            rows = len(content) if isinstance(content, PostBatch) else 0
            progress.advance(rows, len(block.data))
            if isinstance(content, PostBatch):
                collector.add(content)
                tables.add_posts(block.data, content)
            else:
                tables.add_lines(block.kind, block.data)
        for table, path in find_other_tables(paths):
            for data in read_other_table(path):
                tables.add_lines(table, data)
        progress.begin("rows of metadata", what="tables")
        stored = tables.store(crew)
    progress.begin("tag index", what="tags")
    with FramedObject(repository, KIND) as made:
        tag_index = made.finish(builder.finish(made.writer))
    return Metadata(posts=collector.table(), tables=stored, tag_index=tag_index)
