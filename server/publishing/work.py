"""What a publish hands to its workers and gets back: plain values, columns inside."""

from __future__ import annotations

from enum import Enum

import numpy as np
from msgspec import Struct
from msgspec.structs import fields

from manifests.columns import U32, Entries
from manifests.paths import Layout, SafePath
from manifests.torrents.grouping import SizeSums
from server.audit.inspection import FileTable
from server.publishing.guards import GuardTask
from server.publishing.lineage import LayerFile
from server.publishing.links import Target
from server.publishing.look import is_racy
from server.publishing.piecehashes import PiecePlan
from server.record import StatRows
from server.walk import BucketWalk, Stray


class Sight(Struct, frozen=True, kw_only=True, eq=False):
    """A bucket's folder as it was seen from ``at_ns`` on; nothing that changed later is older."""

    at_ns: int
    walk: BucketWalk

    def has_all_names(self, folder_mtime_ns: int) -> bool:
        """Whether the names seen are those in the folder, whose mtime is this by now.

        What the files hold and how they look may have changed, and whoever reads one finds out.
        """
        seen_ns = self.walk.entries.folder_mtime_ns
        return seen_ns == folder_mtime_ns and not is_racy(np.array([seen_ns]), self.at_ns)[0]


class BucketTask(Struct, frozen=True, kw_only=True):
    """One bucket to look at.

    ``look`` and ``links`` are what the publisher remembers of it; with ``is_settled`` the base
    holds just what ``look`` saw.  ``lineage`` are the layers of the base.  Without a ``target``
    (``--in-place``) no file is made.  ``sight`` is that of a survey, which spares a second one.
    ``guarded`` is what guarded layers have of a settled bucket; None: do not look at that.
    """

    tree: str
    variant: str
    bucket: int
    layout: Layout
    lineage: tuple[LayerFile, ...]
    look: bytes | None
    is_settled: bool
    links: bytes | None
    target: Target | None
    pieces: PiecePlan | None = None
    sight: Sight | None = None
    guarded: tuple[GuardTask, ...] | None = None

    @property
    def folder_name(self) -> str:
        """The name of the bucket's folder."""
        return self.layout.bucket_name(self.bucket)

    @property
    def place(self) -> str:
        """The bucket's folder below the tree."""
        return f"{self.variant}/{self.folder_name}"


class Workload(Struct, frozen=True, kw_only=True):
    """What is left to do for a bucket.

    Files and bytes to read; and how many files and bytes (in whole blocks) copies in the layer
    would take, as far as can be told before reading.  ``sizes`` are of all files of the bucket,
    ``sight`` is what was seen of them.
    """

    variant: str
    bucket: int
    read_files: int
    read_bytes: int
    copy_files: int
    copy_bytes: int
    sizes: SizeSums
    sight: Sight


class Placement(Enum):
    """What there is of the bucket's part of the layer, and what the publisher has to do."""

    EMPTY = "no folder must be there"
    KEPT = "the folder is as it must be"
    STAGED = "the stage is to become the folder"


class Counts(Struct, frozen=True, kw_only=True):
    """Files and bytes of one bucket, or of many added up."""

    files: int = 0
    file_bytes: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    hashed: int = 0
    hashed_bytes: int = 0
    linked_bytes: int = 0
    reflinks: int = 0
    hard_links: int = 0
    copies: int = 0

    @property
    def unchanged(self) -> int:
        """Files that the base release holds as they are."""
        return self.files - self.added - self.changed

    def __add__(self, other: Counts) -> Counts:
        """Both, added up."""
        names = [item.name for item in fields(self)]
        return Counts(**{name: getattr(self, name) + getattr(other, name) for name in names})


class BucketReport(Struct, frozen=True, kw_only=True, eq=False):
    """Everything a publish needs of one bucket that is done.

    ``put`` and ``removed`` are the bucket's part of the new layer, ``stats`` are of the files that
    will be served.  ``files`` is for the audit; ``assets`` and ``strays`` are as
    :mod:`server.walk` found them.  ``look``, ``links`` and ``pieces`` (the hashes of ``put``) are
    news to remember, None where there are none.  ``is_intact`` says that guarded layers have lost
    nothing of this bucket.
    """

    variant: str
    bucket: int
    put: Entries
    removed: U32
    stats: StatRows
    files: FileTable
    counts: Counts
    placement: Placement
    assets: tuple[SafePath, ...]
    strays: tuple[Stray, ...]
    look: bytes | None
    links: bytes | None
    pieces: bytes | None
    is_intact: bool = False
