"""The last steps of a publish before the signature: all that the descriptor will name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from manifests.digest import Digest
from manifests.errors import ConfigError, ManifestError
from manifests.model import Asset, Descriptor, LayerRef, Totals
from manifests.paths import Layout
from manifests.torrents.refs import TorrentSet
from server.publishing.crew import Crew
from server.publishing.harvest import Harvest
from server.publishing.metadata import Metadata
from server.publishing.order import Order
from server.publishing.packing import PackTask, write_pack
from server.publishing.work import BucketReport, Placement
from server.record import HARD, IN_PLACE, write_served
from server.repository import Repository

_NS: Final = 10**9


def describe(  # noqa: PLR0913 (everything that a descriptor says)
    repository: Repository,
    dataset: str,
    layout: Layout,
    order: Order,
    base: Descriptor | None,
    harvest: Harvest,
    assets: tuple[Asset, ...],
    metadata: Metadata,
    torrents: Mapping[str, TorrentSet],
) -> Descriptor:
    """Store the manifests and name them; ConfigError if the release cannot be written down."""
    layers = base.layers if base is not None else ()
    held = frozenset(variant for layer in layers for variant in layer.manifests)
    try:
        own = LayerRef(
            name=order.release,
            date=order.date,
            manifests=harvest.put_manifests(repository, layout.buckets, held),
            torrents=torrents,
        )
        descriptor = Descriptor(
            dataset=dataset,
            release=order.release,
            base=base.release if base is not None else None,
            created=order.date,
            layout=layout,
            layers=(*layers, own),
            totals=harvest.totals(),
            assets=assets,
            tables=metadata.tables,
            tag_index=metadata.tag_index,
        )
        # What a client would refuse is not worth a signature.
        return Descriptor.decode(descriptor.encode())
    except ManifestError as error:
        raise ConfigError(
            f"this tree cannot be a release: {error}", hint=error.hint or "Nothing was published."
        ) from error


def release_fields(descriptor: Descriptor, digest: Digest) -> dict[str, Any]:
    """What is signed beside the descriptor, so that a list of releases needs none of them."""
    return {
        "blake3": digest.hex,
        "base": descriptor.base,
        "created": descriptor.created,
        "variants": {name: _sums(totals) for name, totals in descriptor.totals.items()},
    }


def _sums(totals: Totals) -> dict[str, int]:
    return {"files": totals.files, "bytes": totals.file_bytes}


def sweep_layer(repository: Repository, order: Order, layout: Layout, harvest: Harvest) -> None:
    """Take away what an earlier run put into the layer and the release will not have."""
    kept = {
        (report.variant, layout.bucket_name(report.bucket))
        for report in harvest.reports()
        if report.placement is not Placement.EMPTY
    }
    for variant in _folders(repository.layer_folder(order.release)):
        for bucket in _folders(variant):
            if (variant.name, bucket.name) not in kept:
                bucket.replace(repository.new_temporary())
        if not any(variant.iterdir()):
            variant.rmdir()


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def guard_layer(repository: Repository, order: Order, harvest: Harvest) -> bool:
    """Record the stats of the files if they are the tree's own; whether they are."""
    shutil.rmtree(repository.private / "served" / order.release, ignore_errors=True)
    hard_links = sum(report.counts.hard_links for report in harvest.reports())
    guarded = order.is_in_place or hard_links > 0
    if guarded:
        write_served(
            repository.root,
            order.release,
            links=IN_PLACE if order.is_in_place else HARD,
            tree=order.tree,
            stats=harvest.stats(),
        )
    return guarded


def write_packs(
    repository: Repository, order: Order, layout: Layout, harvest: Harvest, crew: Crew
) -> None:
    """Write a pack of each bucket that the layer has files in; StoreError if a file changed."""
    folder = repository.pack_folder(order.release)
    if folder.exists():
        folder.replace(repository.new_temporary())
    tasks = _pack_tasks(repository, order, layout, harvest.reports())
    for task in crew.run(write_pack, tasks):
        final = folder / task.variant / layout.bucket_name(task.bucket)
        final.parent.mkdir(parents=True, exist_ok=True)
        Path(task.temporary).replace(final)


def _pack_tasks(
    repository: Repository, order: Order, layout: Layout, reports: Iterator[BucketReport]
) -> Iterator[PackTask]:
    layer = repository.layer_folder(order.release)
    files = order.tree if order.is_in_place else layer
    for report in reports:
        if len(report.put):
            yield PackTask(
                variant=report.variant,
                bucket=report.bucket,
                folder=str(files / report.variant / layout.bucket_name(report.bucket)),
                entries=report.put,
                temporary=str(repository.new_temporary()),
                date_ns=order.date * _NS,
            )
