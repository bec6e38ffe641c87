"""Keys and signed metadata of a repository: TUF with consistent snapshots, by python-tuf.

Rules:

* ``timestamp.json`` is the one document that is ever replaced, and the one that makes the others
  live; it is written last.  All others carry their version in their name.
* What is live is what a client reaches: the highest root, and timestamp, snapshot, targets.  Every
  run starts from there, so what a killed run left behind is written over, never built upon.
* A key is exchanged in two steps: first the role is signed by its old and its new keys, then the
  new root, live by itself, is published.  Clients find valid signatures at every moment.
* Private keys lie in a folder of their own, outside the repository.  Publishing needs those of
  targets, snapshot and timestamp; root's may lie in a drawer until a key is rotated.

What the targets hold, and the clock (``now`` is always an argument, in UTC), belong to the caller.
What the disk refuses is left as OSError, which the command line reports.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct, field
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, TargetFile, Targets, Timestamp

from manifests.errors import ConfigError, ManifestError, SyncError, TrustError
from manifests.paths import Layout, check_name, component_problem

ROLES: Final = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
# Five years where a signature is a ceremony; else a year, and a month of grace, without a hand.
EXPIRY_DAYS: Final = {"root": 1825, "targets": 1825, "snapshot": 400, "timestamp": 400}
MAX_EXPIRY_DAYS: Final = 100 * 365
MAX_ROLE_KEYS: Final = 32
PASSPHRASE_VARIABLE: Final = "BUCKETSYNC_KEY_PASSPHRASE"  # noqa: S105 (a name)
# Root and targets are signed again once less than this part of their life is left.
RENEWAL_FRACTION: Final = 0.25
PRIVATE_FOLDER_MODE: Final = 0o700
_SETTINGS_FORMAT: Final = 1

# Puts bytes under a path so that after a crash either nothing or all of them are there.
Write = Callable[[Path, bytes], None]
# The name of a metadata file and its bytes.
_Document = tuple[str, bytes]


class Quorum(Struct, frozen=True, kw_only=True):
    """How many keys a role has, and how many of them must sign."""

    keys: int = 1
    threshold: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= self.keys <= MAX_ROLE_KEYS:
            message = f"a threshold of {self.threshold} of {self.keys} key(s) cannot be"
            raise ConfigError(
                message, hint=f"A role has 1 to {MAX_ROLE_KEYS} keys; 1 to all sign."
            )


class Settings(Struct, frozen=True, kw_only=True):
    """What the publisher chose at ``init``; kept in ``REPO/.publish/settings.json``.

    ``expiry_days`` (days from signing to expiry, by role) may be edited there; the next signature
    of a role uses it.
    """

    dataset: str
    layout: Layout = field(default_factory=Layout)
    expiry_days: Mapping[str, int] = field(default_factory=lambda: dict(EXPIRY_DAYS))

    def __post_init__(self) -> None:
        check_name(self.dataset, "dataset", "dataset")
        for role in ROLES:
            days = self.expiry_days.get(role)
            if type(days) is not int or not 1 <= days <= MAX_EXPIRY_DAYS:
                raise ManifestError(
                    f"expiry_days.{role}", f"expected 1 to {MAX_EXPIRY_DAYS} days, got {days!r}"
                )

    def to_bytes(self) -> bytes:
        """JSON for people to read and, with care, to edit."""
        fields = {
            "format": _SETTINGS_FORMAT,
            "dataset": self.dataset,
            "buckets": self.layout.buckets,
            "digits": self.layout.digits,
            "expiry_days": dict(self.expiry_days),
        }
        return json.dumps(fields, indent=2).encode() + b"\n"

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read them back; ConfigError names the file and the place in it."""
        try:
            fields = json.loads(path.read_bytes())
            if fields["format"] != _SETTINGS_FORMAT:
                raise ManifestError("format", f"expected {_SETTINGS_FORMAT}")  # noqa: TRY301
            layout = Layout(buckets=fields["buckets"], digits=fields["digits"])
            expiry_days = {role: fields["expiry_days"][role] for role in ROLES}
            return cls(dataset=fields["dataset"], layout=layout, expiry_days=expiry_days)
        except (ValueError, KeyError, TypeError, ManifestError) as error:
            raise ConfigError(f"{path}: not a publisher's settings: {error}") from error


class KeyFolder:
    """Private keys, a PKCS #8 PEM file each: ``ROLE-KEYID8.pem``, readable by the owner alone."""

    def __init__(self, folder: Path, passphrase: str | None) -> None:
        self.folder = folder
        self._passphrase = passphrase.encode() if passphrase else None

    def path(self, role: str, keyid: str) -> Path:
        """Where the private key of a role lies, or would lie."""
        return self.folder / f"{role}-{keyid[:8]}.pem"

    def create(self, role: str) -> SSlibKey:
        """Make an ed25519 key and store its private half, encrypted if there is a passphrase."""
        private_key = Ed25519PrivateKey.generate()
        public_key = CryptoSigner(private_key).public_key
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if self._passphrase is not None:
            encryption = serialization.BestAvailableEncryption(self._passphrase)
        pem = private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
        self._store(self.path(role, public_key.keyid), pem)
        return public_key

    def signer(self, role: str, key: Key) -> CryptoSigner | None:
        """The signer for a public key; None if its private half is not here."""
        path = self.path(role, key.keyid)
        if not isinstance(key, SSlibKey) or not path.exists():
            return None
        pem = path.read_bytes()
        encrypted = b"BEGIN ENCRYPTED" in pem
        if encrypted and self._passphrase is None:
            raise ConfigError(
                f"{path} is encrypted", hint=f"Set {PASSPHRASE_VARIABLE} to its passphrase."
            )
        try:
            passphrase = self._passphrase if encrypted else None
            return CryptoSigner(serialization.load_pem_private_key(pem, passphrase), key)
        except (ValueError, UnsupportedAlgorithm) as error:
            message = f"{path} is not the private key it should be: {error}"
            hint = f"Check {PASSPHRASE_VARIABLE}." if encrypted else ""
            raise ConfigError(message, hint=hint) from error

    def retire_all_but(self, role: str, keyids: Iterable[str]) -> None:
        """Move other keys of a role to ``retired/``: rotated ones, leftovers of killed runs."""
        kept = {self.path(role, keyid) for keyid in keyids}
        retired = self.folder / "retired"
        for path in sorted(self.folder.glob(f"{role}-*.pem")):
            if path not in kept:
                retired.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
                path.replace(retired / path.name)

    def _store(self, path: Path, pem: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path.parent)


class Renewal(Struct, frozen=True, kw_only=True):
    """What ``refresh`` signed, and which roles are due although their keys are not at hand."""

    signed: tuple[str, ...]
    waiting: tuple[str, ...]


class Rotation(Struct, frozen=True, kw_only=True):
    """The ids of the key that came and of the key that went."""

    added: str
    removed: str


class _Live(Struct, frozen=True, kw_only=True):
    """The signed payloads that clients reach now; parsed anew for each run, so free to change."""

    root: Root
    targets: Targets
    snapshot: Snapshot
    timestamp: Timestamp


class Signing:
    """The signed side of one repository; made by :func:`open_signing`.

    Each method that signs takes the repository's signing lock, so a ``refresh`` from cron and a
    ``publish`` follow one another.  Interrupted anywhere, the state before stays live and whole.
    """

    def __init__(self, repo: Path, keys: KeyFolder, settings: Settings, write: Write) -> None:
        self.repo = repo
        self.keys = keys
        self.settings = settings
        self._write = write
        self._metadata = repo / "tuf" / "metadata"
        self._targets = repo / "tuf" / "targets"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ``1.root.json`` in hexadecimal: what users pin."""
        return hashlib.sha256((self._metadata / "1.root.json").read_bytes()).hexdigest()

    def roles(self) -> dict[str, Root | Targets | Snapshot | Timestamp]:
        """The signed payload of each role, as a client sees it now."""
        live = self._live()
        payloads = (live.root, live.targets, live.snapshot, live.timestamp)
        return {signed.type: signed for signed in payloads}

    def summary(self) -> dict[str, Any]:
        """Fingerprint, versions and expiries (ISO 8601, UTC), for the summary line of a verb."""
        roles = self.roles()
        return {
            "fingerprint": self.fingerprint,
            "versions": {role: signed.version for role, signed in roles.items()},
            "expires": {role: signed.expires.isoformat() for role, signed in roles.items()},
        }

    def targets(self) -> dict[str, TargetFile]:
        """Length, SHA-256 and ``custom`` of the targets that are live, by name."""
        return self._live().targets.targets

    def read_target(self, info: TargetFile) -> bytes:
        """The bytes of a target; TrustError if they are not those that were signed."""
        data = (self._targets / info.get_prefixed_paths()[0]).read_bytes()
        try:
            info.verify_length_and_hashes(data)
        except RepositoryError as error:
            raise _damaged(info.path, error) from error
        return data

    def create(self, quorums: Mapping[str, Quorum], *, now: datetime) -> None:
        """Make the keys and version 1 of every role; for an empty repository only."""
        root = Root()
        with self._exclusive():
            for role in ROLES:
                quorum = quorums.get(role, Quorum())
                root.roles[role].threshold = quorum.threshold
                for _ in range(quorum.keys):
                    root.add_key(self.keys.create(role), role)
            live = _Live(root=root, targets=Targets(), snapshot=Snapshot(), timestamp=Timestamp())
            for signed in (live.root, live.targets, live.snapshot, live.timestamp):
                signed.version = 0  # signing makes it 1
            first = self._issue(root, [root], now)
            self._make_live([first, *self._sign(Targets.type, live, [root], now)])

    def publish_targets(
        self,
        add: Mapping[str, tuple[bytes, Mapping[str, Any]]],
        remove: Iterable[str] = (),
        *,
        now: datetime,
    ) -> None:
        """Make targets live: ``add`` maps a name to its bytes and its signed ``custom`` fields.

        ``custom`` holds what JSON has, without floats.  Bytes of removed or replaced targets stay
        on disk for clients that are in the middle of a download.
        """
        with self._exclusive():
            live = self._live()
            for name in remove:
                if live.targets.targets.pop(name, None) is None:
                    raise ConfigError(f"there is no target {name!r} to remove")
            for name, (data, custom) in add.items():
                live.targets.targets[name] = self._store_target(name, data, custom)
            self._make_live(self._sign(Targets.type, live, [live.root], now))

    def refresh(self, *, now: datetime, everything: bool = False) -> Renewal:
        """Sign snapshot and timestamp again; root and targets too where they are due.

        Due is a role with less than a quarter of its life left, or with ``everything`` each one.
        Due roles whose keys are not here are reported, but with ``everything`` they are an error.
        """
        with self._exclusive():
            live = self._live()
            due = [role for role in ROLES[:2] if everything or self._is_due(live, role, now)]
            waiting = [role for role in due if not self._has_keys(live.root, role)]
            if everything and waiting:
                raise self._missing_keys(live.root, waiting[0])
            signed = [role for role in due if role not in waiting]
            lowest = Targets.type if Targets.type in signed else Snapshot.type
            documents = self._sign(lowest, live, [live.root], now)
            if Root.type in signed:
                documents.append(self._issue(copy.deepcopy(live.root), [live.root], now))
            self._make_live(documents)
        return Renewal(signed=(*signed, *ROLES[2:]), waiting=tuple(waiting))

    def rotate_key(self, role: str, *, now: datetime, keyid: str = "") -> Rotation:
        """Replace a key of a role: the one whose id begins with ``keyid``, else its oldest.

        The old private key, if it is here, ends in ``retired/`` of the key folder.  Where too many
        keys are lost for the role to be signed by the old ones once more, clients refuse for the
        moment between two renames; any other rotation is seamless.
        """
        with self._exclusive():
            live = self._live()
            removed = _choose_key(live.root, role, keyid)
            renewed = copy.deepcopy(live.root)
            renewed.revoke_key(removed, role)
            key = self.keys.create(role)
            renewed.add_key(key, role)
            roots = [live.root, renewed] if self._has_keys(live.root, role) else [renewed]
            try:
                documents = self._sign(role, live, roots, now)
                documents.append(self._issue(renewed, [live.root, renewed], now))
            except SyncError:
                self.keys.path(role, key.keyid).unlink()
                raise
            self._make_live(documents)
            self.keys.retire_all_but(role, renewed.roles[role].keyids)
        return Rotation(added=key.keyid, removed=removed)

    def _live(self) -> _Live:
        timestamp = _parse(Timestamp, self._metadata / "timestamp.json")
        version = timestamp.snapshot_meta.version
        snapshot = _parse(Snapshot, self._metadata / f"{version}.snapshot.json")
        version = snapshot.meta["targets.json"].version
        targets = _parse(Targets, self._metadata / f"{version}.targets.json")
        version = 1
        while (self._metadata / f"{version + 1}.root.json").exists():
            version += 1
        root = _parse(Root, self._metadata / f"{version}.root.json")
        return _Live(root=root, targets=targets, snapshot=snapshot, timestamp=timestamp)

    def _store_target(self, name: str, data: bytes, custom: Mapping[str, Any]) -> TargetFile:
        if problem := component_problem(name):
            raise ConfigError(f"{name!r} cannot be the name of a target: it {problem}")
        info = TargetFile.from_data(name, data, ["sha256"])
        info.unrecognized_fields["custom"] = dict(custom)
        self._write(self._targets / f"{info.hashes['sha256']}.{name}", data)
        return info

    def _sign(
        self, role: str, live: _Live, roots: Sequence[Root], now: datetime
    ) -> list[_Document]:
        """New versions of ``role`` and of what names it, in the order they must be written.

        For root, which nothing names, there are none.
        """
        documents = []
        if role == Targets.type:
            name, data = self._issue(live.targets, roots, now)
            live.snapshot.meta["targets.json"] = _described(live.targets, data)
            documents.append((name, data))
        if role in {Targets.type, Snapshot.type}:
            name, data = self._issue(live.snapshot, roots, now)
            live.timestamp.snapshot_meta = _described(live.snapshot, data)
            documents.append((name, data))
        if role != Root.type:
            documents.append(self._issue(live.timestamp, roots, now))
        return documents

    def _issue(self, signed: T, roots: Sequence[Root], now: datetime) -> _Document:
        """The next version of a document, signed so that each of the roots accepts it."""
        role = signed.type
        signed.version += 1
        signed.expires = now + timedelta(days=self.settings.expiry_days[role])
        metadata = Metadata(signed)
        keys = {keyid: root.keys[keyid] for root in roots for keyid in root.roles[role].keyids}
        for key in keys.values():
            if signer := self.keys.signer(role, key):
                metadata.sign(signer, append=True)
        for root in roots:
            try:
                root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            except UnsignedMetadataError as error:
                raise self._missing_keys(root, role) from error
        name = "timestamp.json" if role == Timestamp.type else f"{signed.version}.{role}.json"
        return name, metadata.to_bytes()

    def _make_live(self, documents: Iterable[_Document]) -> None:
        for name, data in documents:
            self._write(self._metadata / name, data)

    def _is_due(self, live: _Live, role: str, now: datetime) -> bool:
        signed = live.root if role == Root.type else live.targets
        life = timedelta(days=self.settings.expiry_days[role])
        return signed.expires - now < life * RENEWAL_FRACTION

    def _present_keys(self, root: Root, role: str) -> int:
        keyids = root.roles[role].keyids
        return sum(self.keys.signer(role, root.keys[keyid]) is not None for keyid in keyids)

    def _has_keys(self, root: Root, role: str) -> bool:
        return self._present_keys(root, role) >= root.roles[role].threshold

    def _missing_keys(self, root: Root, role: str) -> ConfigError:
        threshold, present = root.roles[role].threshold, self._present_keys(root, role)
        return ConfigError(
            f"{role} needs {threshold} of its keys, {self.keys.folder} holds {present}",
            hint=f"Bring the missing {role}-*.pem there, or name their folder with --keys.",
        )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Two runs must not both sign version N + 1: the later one waits, then builds upon it."""
        with (self.repo / ".publish" / "signing.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_durably(path: Path, data: bytes) -> None:
    """Put ``data`` under ``path`` at once: temporary file, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def open_signing(repo: Path, keys: Path | None = None, *, write: Write = write_durably) -> Signing:
    """The signed side of a repository that ``init`` made.

    Keys that are not in ``keys`` matter only once their role is to be signed.
    """
    if not (repo / "tuf" / "metadata" / "timestamp.json").is_file():
        raise ConfigError(
            f"{repo} is not a repository: tuf/metadata/timestamp.json is missing",
            hint="Make one with `bucketsync-server init`.",
        )
    settings = Settings.load(repo / ".publish" / "settings.json")
    return Signing(repo, key_folder(repo, keys), settings, write)


def key_folder(repo: Path, keys: Path | None) -> KeyFolder:
    """The folder of private keys, ``REPO-keys`` unless named, with the passphrase to open them.

    The passphrase is in ``BUCKETSYNC_KEY_PASSPHRASE``; without it new keys are not encrypted.
    """
    whole = repo.resolve()
    folder = whole.with_name(f"{whole.name}-keys") if keys is None else keys.resolve()
    return KeyFolder(folder, os.environ.get(PASSPHRASE_VARIABLE))


def _choose_key(root: Root, role: str, prefix: str) -> str:
    if role not in ROLES:
        raise ConfigError(f"{role!r} is not a role", hint=f"Roles are {', '.join(ROLES)}.")
    keyids = root.roles[role].keyids
    # Keys are appended as they come, so the first is the oldest.
    chosen = [keyid for keyid in keyids if keyid.startswith(prefix)] if prefix else keyids[:1]
    if len(chosen) != 1:
        message = f"{prefix!r} names {len(chosen)} keys of {role}, not one"
        listed = ", ".join(keyid[:8] for keyid in keyids)
        raise ConfigError(message, hint=f"Its keys are {listed}.")
    return chosen[0]


def _described(signed: Targets | Snapshot, data: bytes) -> MetaFile:
    """What names a document: version, and length and SHA-256, so that reading it is bounded."""
    return MetaFile.from_data(signed.version, data, ["sha256"])


def _parse(kind: type[T], path: Path) -> T:
    """The payload of a document of our own; its signatures are for clients to check."""
    try:
        signed = Metadata[T].from_bytes(path.read_bytes()).signed
    except RepositoryError as error:
        raise _damaged(path.name, error) from error
    if not isinstance(signed, kind):
        raise _damaged(path.name, f"expected {kind.type} metadata, got {signed.type}")
    return signed


def _damaged(name: str, problem: object) -> TrustError:
    message = f"{name} of the repository is damaged: {problem}"
    return TrustError(message, hint="Restore it from a backup or a mirror.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
