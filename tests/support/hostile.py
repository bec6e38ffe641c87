"""A publisher with valid keys and bad intent: signs whatever a test puts before him.

His repository is honest in every signature, length and digest, so all that a client can hold
against it is what the documents say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manifests import codec
from manifests.digest import Digest
from manifests.notices import TARGET_NAME
from manifests.paths import Layout
from server.commands.init import init_repository
from server.signing import Settings, Signing
from syncclient.cachedobject import object_path
from tests.support.forgery import BUCKETS, Forged

RELEASE = "birds1"
_DATE = 1_600_000_000


@dataclass
class HostilePublisher:
    """A repository below ``folder`` of which everything but the signatures is made by hand."""

    folder: Path
    signing: Signing = field(init=False)

    def __post_init__(self) -> None:
        settings = Settings(dataset="birds", layout=Layout(buckets=BUCKETS, digits=4))
        self.signing = init_repository(self.repo, settings=settings, now=datetime.now(UTC))

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    def put(self, data: bytes) -> Digest:
        """Make some bytes an object."""
        digest = Digest.of(data)
        path = self.repo / object_path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    def release(self, *manifests: Forged) -> dict[str, Any]:
        """The descriptor of a release with these manifests, one a layer, as a map to spoil."""
        for forged in manifests:
            self.put(b"".join([forged.header, *forged.frames, forged.tail]))
        refs = [forged.ref for forged in manifests]
        names = [*(f"birds0{number}" for number in range(len(refs) - 1)), RELEASE]
        totals = {"files": sum(r.entries for r in refs), "bytes": sum(r.file_bytes for r in refs)}
        return {
            "format": codec.FORMAT,
            "dataset": "birds",
            "release": RELEASE,
            "base": None,
            "created": _DATE,
            "buckets": BUCKETS,
            "digits": 4,
            "layers": [
                {"name": name, "date": _DATE, "manifests": {"original": ref.to_map()}}
                for name, ref in zip(names, refs, strict=True)
            ],
            "variants": {"original": totals},
            "assets": [],
        }

    def publish(self, descriptor: bytes, notices: bytes | None = None) -> None:
        """Sign it."""
        targets = {f"{RELEASE}.msgpack": (descriptor, {"created": _DATE})}
        if notices is not None:
            targets[TARGET_NAME] = (notices, {})
        self.signing.publish_targets(targets, now=datetime.now(UTC))
