"""A TUF repository that a test changes as it likes: signs, publishes, and serves by HTTP path.

What is published is what :meth:`TufRepository.publish` signed last, right or wrong; nothing here
holds a test to the specification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

TOP = (Targets.type, Snapshot.type, Timestamp.type)
MAKERS = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "rsa": CryptoSigner.generate_rsa,
}


def in_days(days: float) -> datetime:
    """A date that many days from now, past if negative."""
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


class TufRepository:
    """Metadata being made (:attr:`roles`), and every version that was published, by role."""

    def __init__(self, *, consistent: bool = True, key: str = "ed25519") -> None:
        self.key = key
        self.with_hashes = False
        self.artifacts: dict[str, bytes] = {}
        self.published: dict[str, list[bytes]] = {}
        self.signers: dict[str, list[CryptoSigner]] = {}
        expires = in_days(30)
        self.roles: dict[str, Metadata[Any]] = {
            Root.type: Metadata(Root(expires=expires, consistent_snapshot=consistent)),
            Targets.type: Metadata(Targets(expires=expires)),
            Snapshot.type: Metadata(Snapshot(expires=expires)),
            Timestamp.type: Metadata(Timestamp(expires=expires)),
        }
        for role in self.roles:
            self.add_key(role)
        self.publish(Root.type, *TOP)

    # ----------------------------------------------------------------- what is made

    @property
    def root(self) -> Root:
        return cast("Root", self.roles[Root.type].signed)

    @property
    def targets(self) -> Targets:
        return cast("Targets", self.roles[Targets.type].signed)

    @property
    def snapshot(self) -> Snapshot:
        return cast("Snapshot", self.roles[Snapshot.type].signed)

    @property
    def timestamp(self) -> Timestamp:
        return cast("Timestamp", self.roles[Timestamp.type].signed)

    def add_key(self, role: str, kind: str = "") -> CryptoSigner:
        """Let one more key sign for a top-level role."""
        signer = MAKERS[kind or self.key]()
        self.root.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def rotate(self, role: str) -> None:
        """Let one new key sign instead of all there were."""
        self.root.roles[role].keyids.clear()
        self.signers[role].clear()
        self.add_key(role)

    def set_keys(
        self, role: str, keys: Iterable[CryptoSigner], signing: Iterable[CryptoSigner], need: int
    ) -> None:
        """Name the keys of a role and their threshold, and who signs in fact."""
        self.root.roles[role].keyids.clear()
        for signer in keys:
            self.root.add_key(signer.public_key, role)
        self.root.roles[role].threshold = need
        self.signers[role] = list(signing)

    def put(self, path: str, data: bytes, role: str = Targets.type) -> None:
        """Make some bytes a target of a role."""
        self.artifacts[path] = data
        self.roles[role].signed.targets[path] = TargetFile.from_data(path, data, ["sha256"])

    def delegate(
        self, role: str, paths: list[str], parent: str = Targets.type, *, final: bool = False
    ) -> None:
        """Let a role of its own speak for some paths; ``final`` ends the search there."""
        delegating = cast("Targets", self.roles[parent].signed)
        if delegating.delegations is None:
            delegating.delegations = Delegations({}, roles={})
        assert delegating.delegations.roles is not None
        delegating.delegations.roles[role] = DelegatedRole(role, [], 1, final, paths)
        if role not in self.roles:
            self.roles[role] = Metadata(Targets(expires=in_days(30)))
            self.signers[role] = [MAKERS[self.key]()]
        for signer in self.signers[role]:
            delegating.add_key(signer.public_key, role)

    def delegate_to_bins(self, bits: int, prefix: str) -> list[str]:
        """Spread all paths over bins by their hash: the names of the bins (TAP 15)."""
        signer = MAKERS[self.key]()
        bins = SuccinctRoles([], 1, bits, prefix)
        self.targets.delegations = Delegations({}, None, bins)
        self.targets.add_key(signer.public_key)
        names = list(bins.get_roles())
        for name in names:
            self.roles[name] = Metadata(Targets(expires=in_days(30)))
            self.signers[name] = [signer]
        return names

    # ----------------------------------------------------------------- what is published

    def publish(self, *roles: str, bump: bool = True) -> None:
        """Sign roles, in this order, and show them; all but the first time with a new version."""
        for role in roles:
            metadata = self.roles[role]
            if bump and role in self.published:
                metadata.signed.version += 1
            data = self.signed(role)
            self.published.setdefault(role, []).append(data)
            described = self._describe(metadata.signed.version, data)
            if role == Snapshot.type:
                self.timestamp.snapshot_meta = described
            elif role not in {Root.type, Timestamp.type}:
                self.snapshot.meta[f"{role}.json"] = described

    def signed(self, role: str) -> bytes:
        """A role as its keys sign it now."""
        metadata = self.roles[role]
        metadata.signatures.clear()
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def _describe(self, version: int, data: bytes) -> MetaFile:
        if not self.with_hashes:
            return MetaFile(version)
        return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})

    def content(self, path: str) -> bytes | None:
        """What lies at a path below ``metadata/`` or ``targets/``, None for nothing."""
        kind, _, rest = path.partition("/")
        return self._metadata(rest) if kind == "metadata" else self._artifact(rest)

    def _metadata(self, name: str) -> bytes | None:
        number, dot, role = name.removesuffix(".json").partition(".")
        if not dot or not number.isdecimal():
            versions = self.published.get(name.removesuffix(".json"), [])
            return versions[-1] if versions else None
        if role != Root.type and not self.root.consistent_snapshot:
            return None
        wanted = (d for d in self.published.get(role, []) if _version(d) == int(number))
        return next(iter([*wanted][::-1]), None)

    def _artifact(self, name: str) -> bytes | None:
        folder, slash, last = name.rpartition("/")
        if self.root.consistent_snapshot:
            last = last.partition(".")[2]
        return self.artifacts.get(f"{folder}{slash}{last}")


def _version(data: bytes) -> int:
    version: int = Metadata[Any].from_bytes(data).signed.version
    return version
