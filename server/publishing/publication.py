"""Publishing: from a tree to a signed release.

Rules:

* Nothing that a live release names is changed, and nothing names what is not on the disk yet:
  files, objects and descriptor are written and synced first, and signed last.  Killed anywhere
  before that, the repository serves what it served; the same command then goes on where it was.
* The same tree, base and date give the same objects and descriptor, whoever does the work and in
  what order.
* Columns only: what is kept of a file until the end is a few dozen bytes.

:meth:`Publication.prepare` surveys, reads and links every bucket, stores the assets and audits;
:meth:`Publication.finish` makes manifests, notices, packs and descriptor, and signs.  Their caller
holds the repository's lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from manifests.digest import Digest
from manifests.model import Asset, Descriptor
from manifests.notices import TARGET_NAME, Notices
from manifests.paths import METADATA_FOLDER, SafePath
from server.audit.announce import tell_no_metadata
from server.audit.auditing import AuditReport, audit_files
from server.progress import Progress
from server.publishing.absences import Guard
from server.publishing.assets import (
    StoredAsset,
    asset_tasks,
    decode_seen,
    encode_seen,
    limit_assets,
    store_assets,
)
from server.publishing.crew import Crew
from server.publishing.finishing import (
    describe,
    guard_layer,
    release_fields,
    sweep_layer,
    write_packs,
)
from server.publishing.gather import Gathering
from server.publishing.harvest import Harvest
from server.publishing.lineage import manifests_digest
from server.publishing.memory import Memory
from server.publishing.metadata import Metadata, take_metadata
from server.publishing.order import (
    Order,
    check_folders,
    check_keys,
    check_name_is_new,
    check_variants,
    choose_base,
)
from server.publishing.torrents import MadeTorrents, TorrentMaker
from server.record import ServedRecord
from server.repository import DESCRIPTOR_SUFFIX, Repository, read_history, sync_file_system
from server.signing import Signing
from server.walk import find_variants, folders_with_buckets, walk_assets
from syncclient.output import Output


class Draft(Struct, frozen=True, kw_only=True, eq=False):
    """A release that is complete but for its manifests and its signature."""

    harvest: Harvest
    assets: tuple[Asset, ...]
    assets_hashed: int
    audit: AuditReport
    metadata: Metadata


class Published(Struct, frozen=True, kw_only=True, eq=False):
    """A release that is signed, the torrents of its own layer, and what it says of older ones."""

    descriptor: Descriptor
    digest: Digest
    notices: Notices
    torrents: Mapping[str, MadeTorrents]


class Publication:
    """The making of one release; for one use, by who holds the repository's lock."""

    def __init__(self, signing: Signing, order: Order, crew: Crew, out: Output) -> None:
        """Refuse with ConfigError what can be refused before anything is read."""
        self._repository = Repository(root=signing.repo)
        self._signing = signing
        self._order = order
        self._crew = crew
        self._out = out
        self._layout = signing.settings.layout
        self._history = read_history(signing)
        record = ServedRecord(self._repository.root)
        self._guard = Guard(record, sorted(self._history.layers), self._layout)
        check_name_is_new(order, self._history)
        check_folders(order, self._repository, signing.keys.folder)
        check_keys(signing)
        self.base = choose_base(order, self._history, self._layout)
        self._variants = find_variants(order.tree, self._layout, order.variants)
        self._warn_of_base()

    def _warn_of_base(self) -> None:
        warning = check_variants(self._order, self._variants, self.base)
        if warning:
            self._out.warn(warning)
        newest = self._history.newest
        mine = (self._order.date, self._order.release)
        if newest is not None and mine < (newest.created, newest.release):
            self._out.warn(
                f"{newest.release} stays the newest release: by date and name it comes after "
                f"{self._order.release}"
            )

    def prepare(self) -> Draft:
        """Read, link, store and audit everything; nothing of it is visible to anybody yet.

        StoreError where a file cannot be read, changes while it is read, or the disk is full.
        """
        with closing(self._memory()) as memory, Progress(self._out) as progress:
            self._remove_leftovers(memory)
            metadata = self._metadata(progress)
            progress.begin("scan")
            gathering = Gathering(
                order=self._order,
                repository=self._repository,
                layout=self._layout,
                base=self.base,
                memory=memory,
                guard=self._guard,
                crew=self._crew,
                progress=progress,
            )
            with self._repository.written_early():
                harvest, found = gathering.gather(self._variants)
            assets, hashed = self._store_assets(memory, harvest, found)
        report = audit_files(harvest.tables(), metadata.posts, harvest.strays, self._layout)
        return Draft(
            harvest=harvest, assets=assets, assets_hashed=hashed, audit=report, metadata=metadata
        )

    def _remove_leftovers(self, memory: Memory) -> None:
        """Take away stages of earlier runs, and layers that were begun under another name."""
        self._repository.remove_stages()
        memory.forget_pieces_but(self._order.release)
        for layer in memory.unfinished_layers():
            if layer == self._order.release:
                continue
            if layer not in self._history.layers:
                self._out.say(f"taking away what is left of {layer}, which was never signed")
                self._repository.remove_layer(layer)
            memory.forget_layer(layer)

    def _metadata(self, progress: Progress) -> Metadata:
        """What the metadata say; nothing where none were given."""
        paths, beside = self._order.metadata, self._order.tree / METADATA_FOLDER
        if not paths and beside.is_dir():
            paths = (beside,)
        if not paths:
            tell_no_metadata(self._order.tree, self._variants, self._out)
            return Metadata()
        return take_metadata(paths, self._repository, self._crew, progress)

    def _store_assets(
        self, memory: Memory, harvest: Harvest, found: list[SafePath]
    ) -> tuple[tuple[Asset, ...], int]:
        """Make objects of the assets; how many had to be read."""
        order, tree = self._order, self._order.tree
        # A variant that is left out is no pile of assets.
        apart = {*self._variants, *folders_with_buckets(tree, self._layout)}
        apart |= {path.name for path in tree.iterdir() if path.name.casefold() == METADATA_FOLDER}
        beside = walk_assets(tree, self._layout, apart=apart)
        harvest.strays.add("", beside.strays)
        paths = limit_assets(tree, [*found, *beside.assets], order.assets)
        seen = decode_seen(memory.assets(str(tree)))
        tasks = asset_tasks(tree, self._repository, paths, seen, order.date)
        stored: list[StoredAsset] = []
        for batch in self._crew.run(store_assets, tasks, here=len(tasks) == 1):
            stored += batch
        stored.sort(key=lambda item: item.path)
        memory.keep_assets(str(tree), encode_seen(stored))
        return tuple(item.asset for item in stored), sum(item.hashed for item in stored)

    def finish(self, draft: Draft) -> Published:
        """Make all that the signature will name, bring it to the disk, and sign.

        Until the last step nothing is visible to anybody.  Raises ConfigError if the tree cannot
        be a release, such as for two assets at one path.
        """
        repository, order, harvest = self._repository, self._order, draft.harvest
        torrents = self._make_torrents(harvest)
        dataset = self._signing.settings.dataset
        descriptor = describe(
            repository,
            dataset,
            self._layout,
            order,
            self.base,
            harvest,
            draft.assets,
            draft.metadata,
            {variant: made.torrents for variant, made in torrents.items()},
        )
        sweep_layer(repository, order, self._layout, harvest)
        guard_layer(repository, order, harvest)
        if order.materialize_packs:
            write_packs(repository, order, self._layout, harvest, self._crew)
        notices = self._guard.notices(self._crew, self._history.notices, harvest.intact())
        for root in (repository.root, order.tree) if order.is_in_place else (repository.root,):
            sync_file_system(root)
        digest = self._sign(descriptor, notices)
        # While the layer is remembered as unfinished, a run after a kill would take these away.
        repository.remove_stages()
        with closing(self._memory()) as memory:
            memory.forget_layer(order.release)
            for variant in harvest.variants:
                held = manifests_digest(descriptor, variant)
                memory.keep_release(str(order.tree), variant, held, harvest.buckets(variant))
        return Published(descriptor=descriptor, digest=digest, notices=notices, torrents=torrents)

    def _make_torrents(self, harvest: Harvest) -> dict[str, MadeTorrents]:
        with closing(self._memory()) as memory, Progress(self._out) as progress:
            maker = TorrentMaker(self._repository, self._order, self._layout, memory, self._crew)
            return maker.make(harvest, progress)

    def _sign(self, descriptor: Descriptor, notices: Notices) -> Digest:
        data = descriptor.encode()
        # What a client would refuse must never be signed.
        Descriptor.decode(data, descriptor.release)
        digest = Digest.of(data)
        name = f"{descriptor.release}{DESCRIPTOR_SUFFIX}"
        targets: dict[str, tuple[bytes, dict[str, Any]]] = {
            name: (data, release_fields(descriptor, digest))
        }
        if notices.encode() != self._history.notices.encode():
            targets[TARGET_NAME] = (notices.encode(), {})
        self._signing.publish_targets(targets, now=datetime.now(UTC))
        return digest

    def _memory(self) -> Memory:
        return Memory(self._repository.private / "record.db", self._out.warn)


def signed_before_a_kill(signing: Signing, release: str, out: Output) -> Descriptor | None:
    """The release of that name if a run signed it and was killed before it could say so.

    The same command is then complete; what it left behind is taken away.
    """
    repository = Repository(root=signing.repo)
    with closing(Memory(repository.private / "record.db", out.warn)) as memory:
        if release not in memory.unfinished_layers():
            return None
        signed = read_history(signing).releases.get(release)
        if signed is not None:
            repository.remove_stages()
            memory.forget_layer(release)
        return signed
