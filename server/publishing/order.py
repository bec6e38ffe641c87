"""What a publisher asks for, and what can be refused before a single file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from msgspec import Struct
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from manifests.errors import ConfigError, ManifestError
from manifests.model import Descriptor
from manifests.notices import NOTICES_NAME
from manifests.paths import Layout, check_name
from manifests.torrents.metainfo import Outer
from server.publishing.links import Method
from server.repository import History, Repository
from server.signing import Signing

NO_BASE: Final = "none"
NEWEST_BASE: Final = ""
_SIGNED_ROLES: Final = (Targets.type, Snapshot.type, Timestamp.type)


class TorrentWish(Struct, frozen=True, kw_only=True):
    """How torrents of the new layer are to be made.

    ``piece_bytes`` is None for the rule's choice.  ``trackers`` are tiers of announce URLs;
    ``web_seeds`` are addresses of the repository.
    """

    piece_bytes: int | None = None
    hybrid: bool = True
    private: bool = False
    trackers: tuple[tuple[str, ...], ...] = ()
    web_seeds: tuple[str, ...] = ()

    def outer(self, layer: str) -> Outer:
        """What stands around the info dictionaries of a layer's torrents."""
        # The files of a layer never change, as a web seed's must not.
        urls = tuple(f"{url.rstrip('/')}/files/{layer}/" for url in self.web_seeds)
        return Outer(trackers=self.trackers, web_seeds=urls)


class Order(Struct, frozen=True, kw_only=True):
    """One release to be made of ``tree``, an absolute path, dated ``date`` (Unix seconds).

    ``base`` is the name of a release, NO_BASE or NEWEST_BASE; ``methods`` are the ways to make the
    files of the layer, best first, empty for ``--in-place``; ``torrents`` is None for none.
    """

    release: str
    tree: Path
    date: int
    base: str = NEWEST_BASE
    metadata: tuple[Path, ...] = ()
    variants: tuple[str, ...] = ()
    assets: tuple[Path, ...] = ()
    methods: tuple[Method, ...] = (Method.REFLINK, Method.COPY)
    materialize_packs: bool = False
    torrents: TorrentWish | None = None

    @property
    def is_in_place(self) -> bool:
        """Whether the layer has no files of its own."""
        return not self.methods


def check_name_is_new(order: Order, history: History) -> None:
    """ConfigError unless the release's name is one, and nothing has it yet."""
    try:
        check_name(order.release, "--release", "release")
    except ManifestError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    folded = order.release.casefold()
    if folded in {NO_BASE, NOTICES_NAME}:
        raise ConfigError(f"--release {order.release}: this word has another meaning")
    if order.release in history.releases:
        raise ConfigError(
            f"release {order.release!r} is already published",
            hint="A release never changes: publish under a new name.",
        )
    twin = next((name for name in history.layers if name.casefold() == folded), None)
    if twin is not None:
        raise ConfigError(
            f"--release {order.release}: a layer has the name {twin!r} already",
            hint="Choose a name that differs from it in more than case.",
        )


def check_folders(order: Order, repository: Repository, keys: Path) -> None:
    """ConfigError if the tree is no folder, or repository or keys would be published with it."""
    if not order.tree.is_dir():
        raise ConfigError(f"--tree {order.tree}: expected a folder")
    tree, root = order.tree.resolve(), repository.root.resolve()
    for what, folder in (("the repository", root), ("its private keys", keys.resolve())):
        if folder.is_relative_to(tree):
            raise ConfigError(
                f"{what} in {folder} would be published as a part of {tree}",
                hint="Move it out of the tree.",
            )
    if tree.is_relative_to(root):
        raise ConfigError(f"--tree {tree} lies inside the repository {root}")


def check_keys(signing: Signing) -> None:
    """ConfigError unless a release can be signed at the end."""
    root = signing.roles()[Root.type]
    if not isinstance(root, Root):
        return
    for role in _SIGNED_ROLES:
        wanted = root.roles[role]
        signers = [signing.keys.signer(role, root.keys[keyid]) for keyid in wanted.keyids]
        present = len([signer for signer in signers if signer is not None])
        if present < wanted.threshold:
            folder = signing.keys.folder
            raise ConfigError(
                f"{role} needs {wanted.threshold} of its keys, {folder} holds {present}",
                hint=f"Bring the missing {role}-*.pem there, or name their folder with --keys.",
            )


def choose_base(order: Order, history: History, layout: Layout) -> Descriptor | None:
    """The release that the new one builds upon; ConfigError if there is none of that name.

    Also if its ids are spread over other buckets than the settings say.
    """
    if order.base == NO_BASE:
        return None
    if order.base == NEWEST_BASE:
        base = history.newest
    elif order.base in history.releases:
        base = history.releases[order.base]
    else:
        known = ", ".join(sorted(history.releases)) or "none yet"
        raise ConfigError(f"--base {order.base}: no such release; published are: {known}")
    if base is not None and base.layout != layout:
        raise ConfigError(
            f"release {base.release!r} has {base.layout.buckets} buckets of {base.layout.digits} "
            f"digits, the settings of this repository say {layout.buckets} of {layout.digits}",
            hint="Set them back in .publish/settings.json, or publish with --base none.",
        )
    return base


def check_variants(order: Order, variants: tuple[str, ...], base: Descriptor | None) -> str:
    """A warning if the base has variants that the new release will not; empty if not.

    ConfigError if nobody said so: a disk that is not mounted must not end a variant.
    """
    lost = sorted(set(base.variants) - set(variants)) if base is not None else []
    if base is None or not lost:
        return ""
    if not order.variants:
        raise ConfigError(
            f"{order.tree} has no files of {', '.join(lost)}, which {base.release!r} has",
            hint="Mount or restore the folder; to leave it out, name the others with --variant.",
        )
    return f"{order.release} is published without {', '.join(lost)}, which {base.release} has"
