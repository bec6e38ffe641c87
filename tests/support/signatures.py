"""Signed documents that a test changes: payloads of a repository, signed by any of its keys."""

from __future__ import annotations

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, Targets, Timestamp

from server.signing import Signing


def payload(signing: Signing, kind: type[T]) -> T:
    """The live payload of a role, to be changed and signed anew."""
    signed = signing.roles()[kind.type]
    assert isinstance(signed, kind)
    return signed


def sign(signing: Signing, signed: T, role: str = "") -> bytes:
    """A document as somebody signs it who holds the keys of its role, or those of another."""
    root, metadata = payload(signing, Root), Metadata(signed)
    for keyid in root.roles[role or signed.type].keyids:
        signer = signing.keys.signer(role or signed.type, root.keys[keyid])
        assert signer
        metadata.sign(signer, append=True)
    return metadata.to_bytes()


def next_state(signing: Signing, targets: Targets) -> dict[str, bytes]:
    """Documents of the next state by name, properly signed: these targets, and what names them."""
    snapshot, timestamp = payload(signing, Snapshot), payload(signing, Timestamp)
    for signed in (targets, snapshot, timestamp):
        signed.version += 1
    snapshot.meta["targets.json"] = MetaFile(targets.version)
    timestamp.snapshot_meta = MetaFile(snapshot.version)
    return {
        f"{targets.version}.targets.json": sign(signing, targets),
        f"{snapshot.version}.snapshot.json": sign(signing, snapshot),
        "timestamp.json": sign(signing, timestamp),
    }
