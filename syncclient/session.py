"""One run on one tree: its lock, settings, state, hosts and trust, opened and closed together."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from manifests.errors import (
    ConfigError,
    ManifestError,
    StoreError,
    SyncError,
    TransferError,
    TrustError,
)
from manifests.model import MAX_DESCRIPTOR_BYTES, Descriptor
from manifests.notices import MAX_NOTICES_BYTES, Notices
from syncclient.ahead import Ahead
from syncclient.config import (
    Transport,
    TreeConfig,
    load_tree_config,
    private_folder,
    save_tree_config,
)
from syncclient.documents import write_durably
from syncclient.events import Listener, Notice, Phase
from syncclient.folders import Folders, folders_of, locked, refuse_links
from syncclient.hatch import Nest
from syncclient.hosts import Hosts
from syncclient.places import Places
from syncclient.pool import in_thread
from syncclient.signed import (
    FIRST_ROOT,
    MAX_TIMESTAMP_BYTES,
    TIMESTAMP_PATH,
    Fetch,
    ReleaseTarget,
    Signed,
    TrustFolder,
    fetch_target,
    fingerprint_of,
    following,
)
from syncclient.sources.host import HttpOptions
from syncclient.state import State

if TYPE_CHECKING:
    from syncclient.lockfile import Lock
    from syncclient.trust import Pin

T = TypeVar("T")
_NOTICES_NAME = "notices"
# So long a host is waited for before it is asked whether there is anything new in the full way.
_SOON_S = 3.0
# So long after the last record was written the kernel has long taken the files to the disk.
_SYNC_AFTER_S = 600.0


class Session:
    """An open tree; made by :func:`open_session`."""

    def __init__(
        self,
        tree: Path,
        config: TreeConfig,
        transport: Transport,
        listen: Listener,
        folders: Folders,
    ) -> None:
        self.tree = tree
        self.config = config
        self.transport = transport
        self.listen = listen
        self.folders = folders
        urls = tuple(dict.fromkeys([*config.urls, *transport.mirrors]))
        self.options = HttpOptions(
            timeout_s=transport.timeout_s,
            connections=transport.connections,
            bwlimit=transport.bwlimit,
            min_rate=transport.min_rate,
            allow_redirect=transport.allow_redirect,
        )
        self.hosts = Hosts(urls, self.options, transport.retries)
        self.ahead = Ahead(self._ask_host, following)
        self.nest = Nest()
        self.trust = TrustFolder(folders.trust)
        self._state: State | None = None

    @property
    def state(self) -> State:
        """What is remembered of the tree; opened when it is first asked for."""
        if self._state is None:
            self._state = State(self.folders.state, partial(self.notice, warning=True))
        return self._state

    @cached_property
    def run(self) -> str:
        """The name of this run's part of the trash."""
        from syncclient.store import run_name  # noqa: PLC0415 (for who writes to the tree)

        return run_name()

    def close(self) -> None:
        """Close the state."""
        if self._state is not None:
            self._state.close()

    def notice(self, text: str, *, warning: bool = False) -> None:
        """Tell the user something."""
        self.listen(Notice(text=text, warning=warning))

    def places(self, descriptor: Descriptor) -> Places:
        """Where the variants of a release lie in this tree."""
        return Places(
            tree=self.tree, layout=descriptor.layout, variant_dirs=self.config.variant_dirs
        )

    async def keep(self, config: TreeConfig, *, dry_run: bool = False) -> None:
        """Make new settings the tree's own; with ``dry_run`` for this run only."""
        self.config = config
        if not dry_run:
            await in_thread(self._mark_disks)
            await save_tree_config(self.tree, config)

    def _mark_disks(self) -> None:
        """Make the client's own folder in each variant's, which says later that it is the one."""
        for folder in self.config.variant_dirs.values():
            try:
                private_folder(Path(folder)).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"{folder}: {error.strerror}"
                raise StoreError(message) from error

    def refuse_missing_disks(self) -> None:
        """StoreError if a variant's folder has lost what marks it: its disk is not mounted.

        The state alone cannot say so: it may be lost as well, and would have everything fetched
        again, onto the disk that has the mount point.
        """
        if not self.config.variant_dirs:
            # Flags only add to what is kept.
            return
        try:
            kept = load_tree_config(self.tree).variant_dirs
        except ConfigError:
            return
        for name, folder in kept.items():
            if not private_folder(Path(folder)).is_dir():
                message = f"{folder}, which holds {name}, is not as it was left"
                raise StoreError(
                    message, hint="Is the disk mounted? To fetch everything again, add --yes."
                )

    # ----------------------------------------------------------------- trust

    async def _ask_host(self, host: int, path: str, max_bytes: int, tries: int | None) -> bytes:
        return await self.hosts.document(path, max_bytes, bytes, tries=tries, only=host)

    def _fetch_from(self, host: int, tries: int | None) -> Fetch:
        """A blocking fetch from one host for python-tuf, which runs in a thread."""
        loop = asyncio.get_running_loop()

        def fetch(path: str, max_bytes: int) -> bytes:
            asked = self.ahead.document(host, path, max_bytes, tries)
            return asyncio.run_coroutine_threadsafe(asked, loop).result()

        return fetch

    async def _ask_hosts(self, ask: Callable[[Fetch], T], tries: int | None = None) -> T:
        """The first good answer; if none, what a host said wrong rather than a silence.

        Nobody is waited for while there is another one who was not asked yet.
        """
        errors: list[SyncError] = []
        several = len(self.hosts.urls) > 1
        for patience in dict.fromkeys((1, tries) if several else (tries,)):
            errors = []
            for host in self.hosts.in_order():
                try:
                    return await asyncio.to_thread(ask, self._fetch_from(host, patience))
                except (TrustError, TransferError) as error:
                    errors.append(_named(error, self.hosts.urls[host]))
                    if several:
                        self.notice(error.message, warning=True)
        errors.sort(key=lambda error: not isinstance(error, TrustError))
        raise errors[0] if errors else TransferError("no host is known")

    async def pin(self, trust_root: str | None) -> Pin:
        """Decide which root this tree trusts; a first use is told to the user."""
        if self.trust.pinned_root() is None and self.hosts.urls:
            tries = 1 if len(self.hosts.urls) > 1 else None
            await self.ahead.begin(self.hosts.in_order()[0], FIRST_ROOT, tries)
        # python-tuf takes 0.1 s to load, which who learns nothing new need not spend; meanwhile
        # the first answers come.
        await asyncio.to_thread(import_module, "syncclient.trust")
        from syncclient.trust import TrustStore, pin_root, supports_symlinks  # noqa: PLC0415

        self.folders.trust.parent.mkdir(parents=True, exist_ok=True)
        if not supports_symlinks(self.folders.trust.parent):
            message = f"{self.folders.trust.parent} lies on a file system without symbolic links"
            raise StoreError(message, hint="Name a folder elsewhere with --state-dir.")
        self.folders.trust.mkdir(exist_ok=True)
        store = TrustStore(self.folders.trust)
        pin = await self._ask_hosts(lambda fetch: pin_root(store, fetch, trust_root))
        if pin.origin == "first use":
            self.notice(
                f"Trusting this repository on first use; the fingerprint of its root is\n"
                f"  {pin.fingerprint}\n"
                "Compare it with what the publisher says, or name it with --trust-root."
            )
        return pin

    async def refresh(self, *, tries: int | None = None) -> Signed:
        """Learn what is signed now, from the first host whose metadata is good."""
        self.listen(Phase(name="trust"))
        self._check_pin()
        signed = await self._nothing_new()
        if signed is None:
            from syncclient.trust import TrustStore, refresh  # noqa: PLC0415 (see pin)

            store = TrustStore(self.folders.trust)
            signed = await self._ask_hosts(lambda fetch: refresh(store, fetch), tries)
        await self._refresh_notices(signed)
        return signed

    async def _nothing_new(self) -> Signed | None:
        """What is known, if the first host's timestamp is the one that was verified last.

        One request, without python-tuf.  A host that has something else, or does not answer soon,
        is asked in full.
        """
        known = self.trust.known(datetime.now(UTC))
        if known is None or not self.hosts.urls:
            return None
        host = self.hosts.in_order()[0]
        with suppress(TransferError, TimeoutError):
            async with asyncio.timeout(_SOON_S):
                data = await self.hosts.document(
                    TIMESTAMP_PATH, MAX_TIMESTAMP_BYTES, bytes, tries=1, only=host
                )
            return known if data == self.trust.timestamp else None
        return None

    def _check_pin(self) -> None:
        """The root that is pinned must be the one that the tree's settings name."""
        expected = self.config.root_fingerprint
        found = fingerprint_of(self.trust.require_root())
        if expected and found != expected:
            message = f"{self.folders.trust} pins the root {found}, but config.toml has {expected}"
            raise TrustError(
                message,
                hint="One of them was changed. Find out why before you trust either; "
                "`bucketsync adopt` begins anew.",
            )

    def stored(self) -> Signed:
        """What was learned last, without network or clock."""
        from syncclient.trust import TrustStore, stored  # noqa: PLC0415 (see pin)

        self._check_pin()
        return stored(TrustStore(self.folders.trust))

    async def _refresh_notices(self, signed: Signed) -> None:
        target, path = signed.notices, self.folders.records / _NOTICES_NAME
        if target is None or _sha256_is(path, target.sha256):
            return
        data = await self._ask_hosts(lambda fetch: fetch_target(target, fetch, MAX_NOTICES_BYTES))
        Notices.decode(data)
        await write_durably(path, data)

    def notices(self) -> Notices:
        """The publisher's notices as last learned."""
        try:
            return Notices.decode((self.folders.records / _NOTICES_NAME).read_bytes())
        except (FileNotFoundError, ManifestError):
            return Notices()

    # ----------------------------------------------------------------- releases

    def stored_descriptor(self, release: str) -> Descriptor | None:
        """A descriptor that an earlier run verified; proof in itself, whatever has expired."""
        path = self.folders.releases / f"{release}.msgpack"
        try:
            descriptor = Descriptor.decode(path.read_bytes(), release)
        except (FileNotFoundError, ManifestError):
            return None
        return descriptor if descriptor.release == release else None

    def stored_descriptors(self) -> list[Descriptor]:
        """Every descriptor of this tree's past."""
        names = sorted(path.stem for path in self.folders.releases.glob("*.msgpack"))
        return [found for name in names if (found := self.stored_descriptor(name)) is not None]

    async def descriptor(self, signed: Signed, release: str) -> Descriptor:
        """The descriptor of a signed release, fetched if it is not here yet."""
        target = signed.release(release)
        path = self.folders.releases / f"{release}.msgpack"
        if not _sha256_is(path, target.sha256):
            size = MAX_DESCRIPTOR_BYTES
            data = await self._ask_hosts(lambda fetch: fetch_target(target, fetch, size))
            found = Descriptor.decode(data, release)
            if found.release != release or found.dataset != self._dataset(found):
                raise ManifestError(
                    f"{release}.release", f"is {found.dataset}/{found.release}, not what was asked"
                )
            await write_durably(path, data)
        stored_now = self.stored_descriptor(release)
        if stored_now is None:
            message = f"{path} cannot be read back"
            raise StoreError(message)
        return stored_now

    async def locked_descriptor(self, lock: Lock) -> Descriptor:
        """The descriptor that a lock file names, from any host; no signature is asked for."""
        from syncclient.lockfile import check_descriptor  # noqa: PLC0415 (few runs have a lock)

        target = ReleaseTarget(
            name=lock.release, size_bytes=lock.size_bytes, sha256=lock.sha256, custom={}
        )
        data = await self._ask_hosts(
            lambda fetch: fetch_target(target, fetch, MAX_DESCRIPTOR_BYTES)
        )
        descriptor = check_descriptor(lock, data)
        await write_durably(self.folders.releases / f"{lock.release}.msgpack", data)
        return descriptor

    def _dataset(self, found: Descriptor) -> str:
        return self.config.dataset or found.dataset

    # ----------------------------------------------------------------- durability

    async def settle_earlier_runs(self) -> None:
        """Make files of earlier runs durable, so that their records survive a power failure.

        Not those of a run just now: its bytes are still on their way to the disk, and waiting for
        them may take longer than all else.
        """
        if self.state.unsynced() and self.state.quiet_s() > _SYNC_AFTER_S:
            await in_thread(self._sync)

    def _sync(self) -> None:
        from syncclient.disk import sync_file_system  # noqa: PLC0415 (see run)

        for root in {self.tree, *map(Path, self.config.variant_dirs.values())}:
            if root.exists():
                sync_file_system(root)
        self.state.mark_synced()


def _named(error: SyncError, url: str) -> SyncError:
    """The same error, whose message says which host it was."""
    if url not in error.message:
        error.message = f"{url}: {error.message}"
        error.args = (error.message,)
    return error


def _sha256_is(path: Path, expected: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == expected
    except OSError:
        return False


@asynccontextmanager
async def open_session(
    tree: Path,
    config: TreeConfig,
    transport: Transport,
    listen: Listener,
    state_dir: Path | None = None,
) -> AsyncIterator[Session]:
    """Lock a tree and open everything a run needs; nothing is sent yet."""
    async with locked(tree), visit(tree, config, transport, listen, state_dir) as session:
        yield session


@asynccontextmanager
async def visit(
    tree: Path,
    config: TreeConfig,
    transport: Transport,
    listen: Listener,
    state_dir: Path | None = None,
) -> AsyncIterator[Session]:
    """The same without the lock, for who changes nothing in the tree.

    What a visit adds to the cache harms no other run: it is checked whenever it is read.
    """
    refuse_links(tree)
    async with AsyncExitStack() as stack:
        session = Session(tree, config, transport, listen, folders_of(tree, state_dir))
        stack.callback(session.close)
        await stack.enter_async_context(session.nest)
        await stack.enter_async_context(session.hosts)
        await stack.enter_async_context(session.ahead)
        yield session
