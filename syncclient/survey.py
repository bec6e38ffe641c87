"""Looking at a tree: what each bucket has, what it should have, what is to do.

The result is small: buckets with nothing to do leave only counts, the others what is to fetch or
to remove.  What was learnt by reading files is recorded bucket by bucket, so that an interrupted
look at a large adopted tree goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from manifests.errors import StoreError
from manifests.model import Descriptor, Totals
from manifests.units import counted
from syncclient.events import Listener, Notice, Phase, Progress
from syncclient.files import ABSENT_NS, FolderLook
from syncclient.places import Places
from syncclient.pool import Pool
from syncclient.selection import Selection
from syncclient.state import NOTHING_KNOWN, UNSURE, Glance, State, sure_mtime
from syncclient.tasks import FolderTask, list_task

if TYPE_CHECKING:
    from syncclient.plan import Plan
    from syncclient.release import ReleaseView
    from syncclient.settling import Settler, Work

# So many files gone at once looks like a disk that is not mounted.
_SUSPICIOUS_FILES = 100


@dataclass(slots=True, kw_only=True)
class Survey:
    """Counts of files over all buckets, and the work."""

    kept: int = 0
    added: int = 0
    changed: int = 0
    foreign: int = 0
    unavailable: int = 0
    removable: int = 0
    extra: int = 0
    hashed: int = 0
    adopted: int = 0
    fetch_bytes: int = 0
    works: list[Work] = field(default_factory=list)
    scan: str = "full"

    @property
    def found(self) -> int:
        """Files that stand where entries of the release do, or did."""
        return self.kept + self.changed + self.foreign + self.removable

    def count(self, plan: Plan, strays: int) -> None:
        """Add buckets that were compared, with as many files that no entry could be."""
        self.kept += len(plan.keep)
        self.added += len(plan.add)
        self.changed += len(plan.change)
        self.foreign += len(plan.foreign)
        self.unavailable += len(plan.unavailable)
        self.removable += len(plan.remove)
        self.extra += len(plan.extra) + strays
        self.hashed += int(plan.hashed.sum())
        self.adopted += int(plan.hashed[plan.wanted_at[plan.keep]].sum())
        self.fetch_bytes += plan.fetch_bytes

    def count_settled(self, glance: Glance) -> None:
        """Add a bucket that is as it was when nothing was to do."""
        self.kept += glance.files
        self.extra += glance.extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyor:
    """Looks at every bucket of a selection; blocking, for a worker thread.

    ``token`` names the wish (release, selection): a bucket recorded as settled for it is skipped
    by ``quick`` while its folder's mtime stands.  ``refetch`` makes a tree whose files all
    vanished be filled again instead of being refused.  ``stop``, once set, ends the look with
    CancelledError.
    """

    descriptor: Descriptor
    selection: Selection
    # Called with ``stop``, from the thread of the survey; may ask hosts.
    open_view: Callable[[Event], ReleaseView]
    places: Places
    state: State
    listen: Listener
    token: str
    quick: bool = False
    refetch: bool = False
    jobs: int = 0
    stop: Event = field(default_factory=Event)

    def run(self) -> Survey:
        """Survey all buckets; StoreError if a folder cannot be listed or a disk seems missing."""
        survey = Survey(scan="quick" if self.quick else "full")
        variants = (*self.selection.variants_of(self.descriptor.variants), *self._dropped())
        glances = {variant: self.state.glance(variant) for variant in variants}
        if not all(map(self._maybe_settled, glances.values())):
            self.open_view(self.stop)
        files = sum(total.files for total in self._totals(variants))
        share = len(self._buckets) / max(self.descriptor.layout.buckets, 1)
        total = 0 if self.selection.ids is not None else int(files * share)
        self.listen(Phase(name="scan", total_files=total))
        with Pool(int(files * share), self.jobs, self.stop) as pool:
            for variant in variants:
                before = survey.found
                with self.state.steadily() as written:
                    known = glances[variant]
                    recorded = self._survey_variant(variant, known, pool, survey, written)
                if variant in self.descriptor.totals:
                    self._refuse_missing_disk(variant, recorded, survey.found - before)
        return survey

    def _dropped(self) -> list[str]:
        """Variants that are here and that the release does not have, if all are wanted.

        What stands where assets of the release belong is none, whatever it was.
        """
        if self.selection.variants is not None:
            return []
        held = {*self.descriptor.totals, *(one.path.parts[0] for one in self.descriptor.assets)}
        return [name for name in sorted(self.state.variants() - held) if self._is_here(name)]

    def _is_here(self, variant: str) -> bool:
        """Whether a variant still has its folder; what is gone is forgotten, it is not wanted."""
        folder = Path(self.places.root(variant), *self.places.variant_parts(variant))
        if not os.path.lexists(folder):
            self.state.forget_variant(variant)
            return False
        if folder.is_symlink() or not folder.is_dir():
            text = f"{folder} is no folder any more; the release has no {variant}, so it is yours"
            self.listen(Notice(text=text, warning=True))
            return False
        return True

    def _totals(self, variants: Iterable[str]) -> list[Totals]:
        return [total for name, total in self.descriptor.totals.items() if name in variants]

    @property
    def _buckets(self) -> list[int]:
        """Those of the selection."""
        return self.selection.bucket_numbers(self.descriptor.layout.buckets)

    def _maybe_settled(self, glances: Mapping[int, Glance]) -> bool:
        """Whether every bucket was once as it is wanted now."""
        held = (glances.get(bucket, NOTHING_KNOWN) for bucket in self._buckets)
        return all(glance.settled == self.token for glance in held)

    def _refuse_missing_disk(self, variant: str, recorded: int, found: int) -> None:
        if found == 0 and recorded >= _SUSPICIOUS_FILES and not self.refetch:
            where = Path(self.places.root(variant), *self.places.variant_parts(variant))
            message = f"{where} had {recorded:,} files of this release and now has none"
            raise StoreError(
                message,
                hint="Is the disk mounted? To fetch everything again, add --yes.",
            )

    def _survey_variant(
        self,
        variant: str,
        glances: Mapping[int, Glance],
        pool: Pool,
        survey: Survey,
        written: Callable[[], None],
    ) -> int:
        """Survey one variant; the number of files that the state knew."""
        recorded = 0
        settler: Settler | None = None
        for bucket, looked_ns, look in self._looks(variant, glances, pool, survey):
            if look.columns is None:
                recorded += glances[bucket].files
                survey.count_settled(glances[bucket])
                mtime_ns = sure_mtime(look.mtime_ns, looked_ns)
                if mtime_ns != glances[bucket].folder_mtime_ns:
                    self.state.store_folder_mtime(variant, bucket, mtime_ns)
            else:
                settler = settler or self._settler(variant, pool, survey)
                glance = glances.get(bucket, NOTHING_KNOWN)
                settler.take(bucket, looked_ns, glance, look)
            written()
            self._tell(survey)
        if settler is not None:
            settler.finish()
            recorded += settler.recorded
            self._tell(survey)
        return recorded

    def _settler(self, variant: str, pool: Pool, survey: Survey) -> Settler:
        # What compares loads numpy and opens manifests, which most runs do not need.
        from syncclient.settling import Settler  # noqa: PLC0415

        return Settler(
            variant=variant,
            view=self.open_view(self.stop),
            places=self.places,
            state=self.state,
            token=self.token,
            pool=pool,
            survey=survey,
        )

    def _looks(
        self, variant: str, glances: Mapping[int, Glance], pool: Pool, survey: Survey
    ) -> Iterator[tuple[int, int, FolderLook]]:
        """Look at the folder of every bucket that may need it: bucket, time of the look, look."""
        root = self.places.root(variant)
        buckets = self._unsettled(variant, glances, survey)
        looked_ns = time.time_ns()
        if not os.path.lexists(Path(root, *self.places.variant_parts(variant))):
            for bucket in buckets:
                task = self._folder_task(variant, bucket, glances.get(bucket))
                yield bucket, looked_ns, FolderLook.of_nothing(task.expected)
            return
        tasks = (self._folder_task(variant, bucket, glances.get(bucket)) for bucket in buckets)
        for bucket, look in zip(buckets, pool.map(list_task, tasks), strict=True):
            yield bucket, looked_ns, look

    def _folder_task(self, variant: str, bucket: int, glance: Glance | None) -> FolderTask:
        """A bucket that is settled for this wish needs no columns if it looks as it did then."""
        settled = glance is not None and glance.settled == self.token
        return FolderTask(
            str(self.places.root(variant)),
            self.places.folder(variant, bucket),
            glance.fingerprint if glance is not None and settled else b"",
        )

    def _tell(self, survey: Survey) -> None:
        done = survey.kept + survey.added + survey.changed + survey.foreign
        self.listen(Progress(files=done))

    def _unsettled(self, variant: str, glances: Mapping[int, Glance], survey: Survey) -> list[int]:
        """The buckets to look at: all, or with ``quick`` those whose folder or wish changed.

        All are those of the selection, and those where an earlier selection left files.
        """
        buckets = sorted({*self._buckets, *glances})
        if not self.quick:
            return buckets
        left = []
        for bucket in buckets:
            glance = glances.get(bucket, NOTHING_KNOWN)
            folder = Path(self.places.root(variant), *self.places.folder(variant, bucket))
            sure = glance.settled == self.token and glance.folder_mtime_ns != UNSURE
            if sure and _mtime_of(folder) == glance.folder_mtime_ns:
                survey.count_settled(glance)
            else:
                left.append(bucket)
        return left


def _mtime_of(folder: Path) -> int:
    try:
        return folder.stat(follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return ABSENT_NS
    except OSError:
        return UNSURE


def tell_foreign(survey: Survey, listen: Callable[[Notice], None]) -> None:
    """Say that files of the user's are in the way, before anything is moved."""
    if survey.foreign:
        text = (
            f"{counted(survey.foreign, 'file')} here changed by someone else; each is moved aside "
            "into the trash and named, never overwritten"
        )
        listen(Notice(text=text, warning=True))
