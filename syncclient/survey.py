"""Looking at a tree: what each bucket has, what it should have, what is to do.

The result is small: buckets with nothing to do leave only counts, the others what is to fetch or
to remove.  What was learnt by reading files is recorded bucket by bucket, so that an interrupted
look at a large adopted tree goes on where it was.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct, field

from manifests.errors import StoreError
from manifests.model import Descriptor, Totals
from manifests.units import counted
from syncclient.events import Listener, Notice, Phase, Progress
from syncclient.files import ABSENT_NS, UNKNOWN, UNSURE, AsLeft, FolderLook
from syncclient.places import Places
from syncclient.pool import Pool
from syncclient.selection import Selection
from syncclient.state import NOTHING_KNOWN, Glance, State, sure_mtime
from syncclient.tasks import FolderTask, list_task

if TYPE_CHECKING:
    from manifests.columns import U32
    from syncclient.plan import Plan
    from syncclient.release import ReleaseView
    from syncclient.settling import Settler, Work

# So many buckets are asked at once what later layers say of them.
_BUCKETS_AT_ONCE = 64
# With more extensions, trying each for an id costs more than comparing the whole bucket.
_MOST_EXTENSIONS = 16
# So many files gone at once looks like a disk that is not mounted.
_SUSPICIOUS_FILES = 100


class Survey(Struct, kw_only=True):
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


class Question(NamedTuple):
    """A bucket to look at, and what is known of it.

    As it was left it fulfils the wish as far as its first ``layers`` layers go (0: nothing is
    known); ``spoken`` are the ids, ascending, of which later ones speak.
    """

    bucket: int
    glance: Glance
    layers: int
    spoken: U32 | None
    left: AsLeft


class Surveyor(Struct, frozen=True, kw_only=True):
    """Looks at every bucket of a selection; blocking, for a worker thread.

    ``token`` names the wish (release, selection): a bucket recorded as settled for it is not
    compared while its folder looks the same, and with ``quick`` not looked into while the folder's
    mtime stands.  ``earlier`` gives the tokens of the same wish for releases to which this one
    only added layers, with the number of layers of each: a bucket settled for one is compared at
    the ids of which later layers speak, and nowhere else.  ``refetch`` makes a tree whose files
    all vanished be filled again instead of being refused.  ``stop``, once set, ends the look with
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
    earlier: Callable[[], Mapping[str, int]] = dict[str, int]
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
        recorded, begun = 0, len(survey.works)
        settlers: dict[int, Settler] = {}
        for question, looked_ns, look in self._looks(variant, glances, pool, survey):
            glance, as_left = question.glance, look.fingerprint == question.left.fingerprint
            if as_left and question.spoken is None:
                recorded += glance.files
                survey.count_settled(glance)
                self._note(variant, question, sure_mtime(look.mtime_ns, looked_ns))
            else:
                layers = question.layers if as_left else 0
                if layers not in settlers:
                    settlers[layers] = self._settler(variant, layers, pool, survey)
                settlers[layers].take(question, looked_ns, look)
            written()
            self._tell(survey)
        for settler in settlers.values():
            settler.finish()
            recorded += settler.recorded
            self._tell(survey)
        # Each settler has its own buckets, and more than one may be at work.
        survey.works[begun:] = sorted(survey.works[begun:], key=attrgetter("bucket"))
        return recorded

    def _settler(self, variant: str, layers: int, pool: Pool, survey: Survey) -> Settler:
        # What compares loads numpy and opens manifests, which most runs do not need.
        from syncclient.settling import Settler  # noqa: PLC0415

        return Settler(
            variant=variant,
            layers=layers,
            view=self.open_view(self.stop),
            places=self.places,
            state=self.state,
            token=self.token,
            pool=pool,
            survey=survey,
        )

    def _looks(
        self, variant: str, glances: Mapping[int, Glance], pool: Pool, survey: Survey
    ) -> Iterator[tuple[Question, int, FolderLook]]:
        """Look at the folder of every bucket that may need it; each with the time of the look."""
        root = self.places.root(variant)
        questions = self._questions(variant, glances)
        if self.quick:
            questions = self._without_settled(variant, questions, survey)
        looked_ns = time.time_ns()
        if not os.path.lexists(Path(root, *self.places.variant_parts(variant))):
            for question in questions:
                yield question, looked_ns, FolderLook.of_nothing(question.left)
            return
        asked = deque[Question]()

        def tasks() -> Iterator[FolderTask]:
            for question in questions:
                asked.append(question)
                folder = self.places.folder(variant, question.bucket)
                yield FolderTask(str(root), folder, question.left)

        for look in pool.map(list_task, tasks()):
            yield asked.popleft(), looked_ns, look

    def _tell(self, survey: Survey) -> None:
        done = survey.kept + survey.added + survey.changed + survey.foreign
        self.listen(Progress(files=done))

    def _note(self, variant: str, question: Question, mtime_ns: int) -> None:
        """Record that a bucket fulfils this wish as it is."""
        glance = question.glance
        if (glance.settled, glance.folder_mtime_ns) != (self.token, mtime_ns):
            self.state.settle(variant, question.bucket, self.token, mtime_ns)

    def _questions(self, variant: str, glances: Mapping[int, Glance]) -> Iterator[Question]:
        """Each bucket of the selection, and each where an earlier selection left files."""
        known = {self.token: len(self.descriptor.layers)}
        buckets = sorted({*self._buckets, *glances})
        others = any(glance.settled not in {"", self.token} for glance in glances.values())
        if others and variant in self.descriptor.totals:
            known |= self.earlier()
        for first in range(0, len(buckets), _BUCKETS_AT_ONCE):
            some = buckets[first : first + _BUCKETS_AT_ONCE]
            held = {bucket: glances.get(bucket, NOTHING_KNOWN) for bucket in some}
            layers = {
                bucket: known.get(glance.settled, 0) if glance.fingerprint else 0
                for bucket, glance in held.items()
            }
            spoken = self._spoken(variant, layers)
            for bucket, glance in held.items():
                if not layers[bucket]:
                    yield Question(bucket, glance, 0, None, UNKNOWN)
                    continue
                ids, names = spoken.get(bucket, (None, ()))
                sure_ns = glance.folder_mtime_ns if self.quick else UNSURE
                left = AsLeft(glance.fingerprint, names, sure_ns)
                yield Question(bucket, glance, layers[bucket], ids, left)

    def _spoken(
        self, variant: str, layers: dict[int, int]
    ) -> dict[int, tuple[U32, tuple[str, ...]]]:
        """What later layers speak of in buckets of which the first ``layers`` are known.

        Ids, and the names that files of them could have.  Buckets that are better compared whole
        get no layers.
        """
        found = {}
        for count in {*layers.values()} - {0, len(self.descriptor.layers)}:
            buckets = [bucket for bucket, known in layers.items() if known == count]
            view = self.open_view(self.stop)
            extensions = view.extensions(variant)
            if len(extensions) > _MOST_EXTENSIONS:
                layers.update(dict.fromkeys(buckets, 0))
                continue
            for bucket, ids in view.spoken_of(variant, buckets, count):
                names = (f"{post_id}.{ext}" for post_id in ids.tolist() for ext in extensions)
                found[bucket] = ids, tuple(names)
        return found

    def _without_settled(
        self, variant: str, questions: Iterable[Question], survey: Survey
    ) -> Iterator[Question]:
        """Those that the time of the folder does not answer."""
        for question in questions:
            glance = question.glance
            sure = question.layers and question.spoken is None and glance.folder_mtime_ns != UNSURE
            folder = Path(self.places.root(variant), *self.places.folder(variant, question.bucket))
            if sure and _mtime_of(folder) == glance.folder_mtime_ns:
                survey.count_settled(glance)
                self._note(variant, question, glance.folder_mtime_ns)
            else:
                yield question


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
