"""The torrents of a new layer, made of the hashes that its files were read for."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from manifests.columns import Entries, concat
from manifests.digest import Digest
from manifests.paths import Layout
from manifests.torrents.grouping import Group, Padding, group_entries, padding
from manifests.torrents.metainfo import Outer, Torrent, contents_of, make_torrent
from manifests.torrents.pieces import PieceColumns
from manifests.torrents.refs import TorrentRef, TorrentSet
from server.progress import Progress
from server.publishing.crew import Crew
from server.publishing.harvest import Harvest
from server.publishing.memory import Memory
from server.publishing.order import Order, TorrentWish
from server.publishing.piecehashes import PiecePlan, decode_hashes, hash_again
from server.publishing.work import BucketReport
from server.repository import Repository

# Below, other processes would take longer to start.
_FILES_ALONE = 5_000


class MadeTorrents(Struct, frozen=True, kw_only=True):
    """The torrents of one variant of the new layer, and what they cost."""

    torrents: TorrentSet
    files: int
    file_bytes: int
    padding: Padding

    @property
    def metainfo_bytes(self) -> int:
        """Bytes of all .torrent files."""
        return sum(torrent.size_bytes for torrent in self.torrents)


class _Bucket(Struct, frozen=True, kw_only=True, eq=False):
    """What the layer has of a bucket, where it lies, and the hashes that are remembered of it."""

    put: Entries
    folder: str
    hashes: bytes | None


class _Task(Struct, frozen=True, kw_only=True, eq=False):
    """One torrent to make; ``group`` counts rows from the first of its buckets on."""

    layout: Layout
    variant: str
    group: Group
    buckets: tuple[_Bucket, ...]
    plan: PiecePlan
    private: bool
    outer: Outer


class TorrentMaker:
    """Makes the torrents of the layer of one publish."""

    def __init__(
        self, repository: Repository, order: Order, layout: Layout, memory: Memory, crew: Crew
    ) -> None:
        self._repository = repository
        self._order = order
        self._layout = layout
        self._memory = memory
        self._crew = crew

    def make(self, harvest: Harvest, progress: Progress) -> dict[str, MadeTorrents]:
        """Make and store them all, by variant; StoreError if a file has changed."""
        wish, made = self._order.torrents, dict[str, MadeTorrents]()
        if wish is None:
            return made
        entries = {variant: harvest.entries(variant) for variant in harvest.plans}
        progress.begin("torrents", sum(len(found) for found in entries.values()))
        for variant, found in entries.items():
            if found.sizes.any():
                made[variant] = self._make(variant, found, harvest, wish, progress)
        return made

    def _make(
        self,
        variant: str,
        entries: Entries,
        harvest: Harvest,
        wish: TorrentWish,
        progress: Progress,
    ) -> MadeTorrents:
        plan = harvest.plans[variant]
        groups = group_entries(entries, self._layout, plan.piece_bytes, hybrid=plan.hybrid)
        tasks = self._tasks(variant, groups, harvest, plan, wish)
        refs: list[TorrentRef] = []
        few = len(entries) < _FILES_ALONE
        for group, (_, torrent) in zip(
            groups, self._crew.run_in_order(_make_one, tasks, here=few), strict=True
        ):
            self._repository.put_object(torrent.data)
            refs.append(
                TorrentRef(
                    first_bucket=group.first_bucket,
                    last_bucket=group.last_bucket,
                    part=group.part,
                    digest=Digest.of(torrent.data),
                    size_bytes=len(torrent.data),
                    info_hashes=torrent.info_hashes,
                )
            )
            progress.advance(group.stop - group.start)
        return MadeTorrents(
            torrents=TorrentSet(
                piece_bytes=plan.piece_bytes,
                hybrid=plan.hybrid,
                private=wish.private,
                torrents=tuple(refs),
            ),
            files=len(entries),
            file_bytes=int(entries.sizes.sum()),
            padding=padding(entries.sizes, plan.piece_bytes),
        )

    def _tasks(
        self,
        variant: str,
        groups: list[Group],
        harvest: Harvest,
        plan: PiecePlan,
        wish: TorrentWish,
    ) -> Iterator[_Task]:
        reports = [report for report in harvest.of(variant) if len(report.put)]
        first_rows = [0]
        for report in reports:
            first_rows.append(first_rows[-1] + len(report.put))
        for group in groups:
            chosen = [
                (first, report)
                for first, report in zip(first_rows, reports, strict=False)
                if group.first_bucket <= report.bucket <= group.last_bucket
            ]
            before = chosen[0][0]
            yield _Task(
                layout=self._layout,
                variant=variant,
                group=replace(group, start=group.start - before, stop=group.stop - before),
                buckets=tuple(self._bucket(report) for _, report in chosen),
                plan=plan,
                private=wish.private,
                outer=wish.outer(self._order.release),
            )

    def _bucket(self, report: BucketReport) -> _Bucket:
        order, name = self._order, self._layout.bucket_name(report.bucket)
        layer = self._repository.layer_folder(order.release)
        files = order.tree if order.is_in_place else layer
        return _Bucket(
            put=report.put,
            folder=str(files / report.variant / name),
            hashes=self._memory.pieces(order.release, report.variant, report.bucket),
        )


def _make_one(task: _Task) -> Torrent:
    """Make one torrent; the hashes of a bucket that are not remembered are made again."""
    plan = task.plan
    hashes = PieceColumns.concat(
        [
            decode_hashes(bucket.hashes, bucket.put, plan)
            or hash_again(bucket.folder, bucket.put, plan)
            for bucket in task.buckets
        ]
    )
    contents = contents_of(
        concat([bucket.put for bucket in task.buckets]),
        hashes.rows(task.group.start, task.group.stop),
        task.group,
        layout=task.layout,
        variant=task.variant,
        private=task.private,
    )
    return make_torrent(contents, task.outer)
