"""What the workers of a publish brought in, and the parts of a release that are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from msgspec.structs import replace

from manifests.columns import U32, Entries, concat, empty
from manifests.manifest import Removed, encode
from manifests.model import ManifestRef, Totals
from server.audit.findings import StrayLog
from server.audit.inspection import FileTable, merge_files
from server.publishing.piecehashes import PiecePlan
from server.publishing.work import BucketReport, Counts
from server.record import STAT_ROW, StatRows
from server.repository import Repository

GONE = "gone"


class Harvest:
    """The reports of all buckets, which come in any order and go out by variant and bucket."""

    def __init__(self, variants: tuple[str, ...]) -> None:
        self._parts: dict[str, dict[int, BucketReport]] = {variant: {} for variant in variants}
        self.strays = StrayLog()
        self._counts = dict.fromkeys(variants, Counts())
        # How files were hashed for torrents, by variant; none without torrents.
        self.plans: dict[str, PiecePlan] = {}

    def add(self, report: BucketReport) -> None:
        """Take the report of a bucket; hashes for torrents are not kept in memory."""
        self._parts[report.variant][report.bucket] = replace(report, pieces=None)
        self.strays.add(report.variant, report.strays)
        self._counts[report.variant] += report.counts

    def of(self, variant: str) -> Iterator[BucketReport]:
        """The reports of a variant, by bucket."""
        parts = self._parts[variant]
        return (parts[bucket] for bucket in sorted(parts))

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants of the release."""
        return tuple(self._parts)

    def reports(self) -> Iterator[BucketReport]:
        """All reports, by variant and bucket."""
        return (report for variant in self.variants for report in self.of(variant))

    def buckets(self, variant: str) -> Iterable[int]:
        """Every bucket of a variant that was looked at."""
        return self._parts[variant].keys()

    def intact(self) -> Iterator[tuple[str, int]]:
        """Variant and number of every bucket of which guarded layers have lost nothing."""
        return ((report.variant, report.bucket) for report in self.reports() if report.is_intact)

    def counts(self, variant: str) -> Counts:
        """Files and bytes of one variant."""
        return self._counts[variant]

    def totals(self) -> dict[str, Totals]:
        """Files and bytes of the whole release, by variant."""
        counts = {variant: self.counts(variant) for variant in self.variants}
        return {
            variant: Totals(files=count.files, file_bytes=count.file_bytes)
            for variant, count in counts.items()
        }

    def tables(self) -> dict[str, FileTable]:
        """All files for the audit, by variant."""
        return {
            variant: merge_files([report.files for report in self.of(variant)])
            for variant in self.variants
        }

    def stats(self) -> dict[str, StatRows]:
        """The served record of the layer, by variant."""
        return {
            variant: np.concatenate(
                [np.empty(0, STAT_ROW), *(report.stats for report in self.of(variant))]
            )
            for variant in self.variants
        }

    def put_manifests(
        self, repository: Repository, buckets: int, held: frozenset[str]
    ) -> Mapping[str, ManifestRef]:
        """Store the manifests of the layer; variants ``held`` by the base may need none.

        ManifestError if the files of a variant cannot be written down.
        """
        refs = {}
        for variant in self.variants:
            entries, removed = self.entries(variant), self._removed(variant)
            if variant in held and not len(entries) and not len(removed):
                continue
            gone = Removed(ids=removed, codes=np.zeros(len(removed), np.uint8), reasons=(GONE,))
            data, refs[variant] = encode(entries, gone if len(removed) else None, buckets)
            repository.put_object(data)
        return refs

    def entries(self, variant: str) -> Entries:
        """What the new layer holds of a variant."""
        parts = [report.put for report in self.of(variant) if len(report.put)]
        return concat(parts) if parts else empty()

    def _removed(self, variant: str) -> U32:
        parts = [report.removed for report in self.of(variant)]
        return np.concatenate([np.empty(0, np.uint32), *parts])
