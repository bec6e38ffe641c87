"""Going through a tree: every bucket surveyed, read and linked where needed, and remembered."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from manifests.model import Descriptor
from manifests.paths import Layout, SafePath
from manifests.torrents.grouping import SizeSums, choose_piece_bytes
from server.progress import Progress
from server.publishing.absences import Guard
from server.publishing.buckets import carry_out, survey
from server.publishing.capacity import require_room, usable_methods
from server.publishing.crew import Crew
from server.publishing.harvest import Harvest
from server.publishing.lineage import LayerFile, lineage_buckets, manifests_digest, manifests_of
from server.publishing.links import ROOM_HINT, Method, Target
from server.publishing.memory import Memory
from server.publishing.order import Order
from server.publishing.piecehashes import PiecePlan
from server.publishing.work import BucketReport, BucketTask, Placement, Workload
from server.repository import Repository
from server.walk import walk_variant

# Other processes take about 0.02 s to start and end, so work that ends as soon is done here.
_TRIAL_S: Final = 0.02
_ALONE_S: Final = 0.1
_ALONE_FILES: Final = 1000
_ALONE_BYTES: Final = 50 * 10**6
# Most buckets of most publishes are looked at in less time than a message takes.  So many go with
# one if no trial has told how many are done in _TRIAL_S, and at most so many if one has.
_SURVEYED_AT_ONCE: Final = 8
_MOST_AT_ONCE: Final = 32
_NS: Final = 10**9


class _Aim(Struct, frozen=True, kw_only=True, eq=False):
    """What all tasks of a run share; ``resumes`` if an earlier run began this layer.

    ``held`` names what the base holds of each variant.
    """

    target: Target | None
    held: dict[str, bytes]
    lineages: dict[str, tuple[LayerFile, ...]]
    resumes: bool


class Gathering(Struct, frozen=True, kw_only=True, eq=False):
    """One passage through a tree."""

    order: Order
    repository: Repository
    layout: Layout
    base: Descriptor | None
    memory: Memory
    guard: Guard
    crew: Crew
    progress: Progress

    def gather(self, variants: tuple[str, ...]) -> tuple[Harvest, list[SafePath]]:
        """Do everything that the buckets of a tree need; their reports, and assets found there.

        StoreError if a file cannot be read, or changes while it is, or the disk has no room.
        What was done until then is remembered.
        """
        harvest, assets = Harvest(variants), list[SafePath]()
        aim = _Aim(
            target=self._target(variants),
            held={variant: manifests_digest(self.base, variant) for variant in variants},
            lineages={variant: self._lineage(variant) for variant in variants},
            resumes=self.order.release in self.memory.unfinished_layers(),
        )
        places: list[tuple[str, int]] = []
        for variant in variants:
            walk = walk_variant(self.order.tree, variant, self.layout)
            harvest.strays.add(variant, walk.strays)
            assets += walk.assets
            buckets = lineage_buckets(aim.lineages[variant]) | {int(name) for name in walk.buckets}
            places += [(variant, bucket) for bucket in sorted(buckets)]
        for report in self._reports(places, aim, harvest):
            self._settle(report, aim.target)
            harvest.add(report)
            assets += report.assets
        return harvest, assets

    def _reports(
        self, places: list[tuple[str, int]], aim: _Aim, harvest: Harvest
    ) -> Iterator[BucketReport]:
        """The report of each bucket; those without work come first."""
        left = []
        sums = dict.fromkeys(harvest.variants, SizeSums())
        tasks = (self._task(*place, aim) for place in places)
        for result in self._survey(tasks, len(places)):
            if isinstance(result, Workload):
                left.append(result)
                sums[result.variant] += result.sizes
            else:
                sums[result.variant] += SizeSums.of(result.files.rows["size"])
                self.progress.advance(result.counts.files)
                yield result
        harvest.plans = self._plans(sums)
        yield from self._carry_out(left, aim, harvest.plans)

    def _plans(self, sums: Mapping[str, SizeSums]) -> dict[str, PiecePlan]:
        """How each variant is hashed for torrents.

        That depends on all of its files, so that it is the same whatever has to be read now.
        """
        wish = self.order.torrents
        if wish is None:
            return {}
        return {
            variant: PiecePlan(choose_piece_bytes(found, wish.piece_bytes), wish.hybrid)
            for variant, found in sums.items()
        }

    def _carry_out(
        self, left: list[Workload], aim: _Aim, plans: Mapping[str, PiecePlan]
    ) -> Iterator[BucketReport]:
        """Do what the survey left to do, if the disk has room for it."""
        files = sum(work.read_files for work in left)
        size_bytes = sum(work.read_bytes for work in left)
        linked = sum(work.copy_files for work in left)
        copied = sum(work.copy_bytes for work in left)
        copies = aim.target is not None and aim.target.methods == (Method.COPY,)
        times = copies + self.order.materialize_packs
        if times:
            require_room(self.repository, linked * copies, copied * times, ROOM_HINT)
        self.progress.begin("read", files, size_bytes)
        # The largest first, so that no worker is left alone with one at the end.
        left.sort(key=lambda work: work.read_bytes)
        tasks = self._tasks(left, aim, plans)
        few = max(files, linked) < _ALONE_FILES and max(size_bytes, copied) < _ALONE_BYTES
        for report in self.crew.run(carry_out, tasks, here=few):
            self.progress.advance(report.counts.hashed, report.counts.hashed_bytes)
            yield report

    def _tasks(
        self, left: list[Workload], aim: _Aim, plans: Mapping[str, PiecePlan]
    ) -> Iterator[BucketTask]:
        """The tasks of what is ``left``, from its end, where each is taken away."""
        while left:
            work = left.pop()
            task = self._task(work.variant, work.bucket, aim)
            yield replace(task, pieces=plans.get(work.variant), sight=work.sight)

    def _survey(
        self, tasks: Iterator[BucketTask], count: int
    ) -> Iterator[BucketReport | Workload]:
        """Survey ``count`` buckets, here as long as other processes would not end sooner."""
        began_at, to_read, batch = time.monotonic(), 0, _SURVEYED_AT_ONCE
        for done in range(count):
            elapsed_s = time.monotonic() - began_at
            left_s = elapsed_s / done * (count - done) if done else 0.0
            if self.crew.is_eager:
                break
            if elapsed_s > _TRIAL_S and left_s > _ALONE_S:
                batch = min(done, _MOST_AT_ONCE)
                break
            result = survey(next(tasks))
            if isinstance(result, Workload):
                to_read += result.read_files + result.copy_files
                if to_read > _ALONE_FILES:
                    self.crew.start()
            yield result
        yield from self.crew.run(survey, tasks, batch=batch)

    def _task(self, variant: str, bucket: int, aim: _Aim) -> BucketTask:
        tree, release = str(self.order.tree), self.order.release
        look, held = self.memory.look(tree, variant, bucket) or (None, b"")
        is_settled = held == aim.held[variant]
        return BucketTask(
            tree=tree,
            variant=variant,
            bucket=bucket,
            layout=self.layout,
            lineage=aim.lineages[variant],
            look=look,
            is_settled=is_settled,
            links=self.memory.links(release, variant, bucket) if aim.resumes else None,
            target=aim.target,
            guarded=self.guard.tasks(variant, bucket) if is_settled else None,
        )

    def _lineage(self, variant: str) -> tuple[LayerFile, ...]:
        """The manifests of a variant that the base has, oldest first."""
        return tuple(
            LayerFile(path=str(self.repository.object_path(ref.digest)), ref=ref)
            for ref in manifests_of(self.base, variant)
        )

    def _target(self, variants: tuple[str, ...]) -> Target | None:
        if self.order.is_in_place:
            return None
        sample = _any_file(self.order.tree / variant for variant in variants)
        return Target(
            layer=str(self.repository.layer_folder(self.order.release)),
            stages=str(self.repository.stages / secrets.token_hex(8)),
            date_ns=self.order.date * _NS,
            methods=usable_methods(self.repository, sample, self.order.methods),
        )

    def _settle(self, report: BucketReport, target: Target | None) -> None:
        """Make a bucket's stage its folder in the layer, then remember the bucket."""
        variant, name = report.variant, self.layout.bucket_name(report.bucket)
        # What lies where nothing must be goes in the end, with all that no bucket has.
        if report.placement is Placement.STAGED and target is not None:
            final = self.repository.layer_folder(self.order.release) / variant / name
            if final.exists():
                final.replace(self.repository.new_temporary())
            final.parent.mkdir(parents=True, exist_ok=True)
            Path(target.stage(variant, name)).replace(final)
        self.memory.keep_bucket(
            str(self.order.tree),
            self.order.release,
            variant,
            report.bucket,
            look=report.look,
            links=report.links,
            pieces=report.pieces,
        )


def _any_file(folders: Iterable[Path]) -> Path | None:
    """Some regular file in some bucket folder."""
    buckets = chain.from_iterable(folder.iterdir() for folder in folders)
    files = chain.from_iterable(bucket.iterdir() for bucket in buckets if bucket.is_dir())
    return next((file for file in files if file.is_file() and not file.is_symlink()), None)
