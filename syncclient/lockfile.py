"""A selection of one release, frozen: every file with its size and BLAKE3.

A lock file is JSON, one value a line: first what it is of, then ``[path, size, digest]`` for each
file, by variant, bucket and id.  It depends on the release and the ids alone, not on who made it,
when, or by which query; so two people who hold the same have the same bytes, and the file's own
digest can stand in a paper.

It is proof in itself.  It names the release's descriptor by digest, and that names everything
below; signatures that have expired since, or a publisher who is gone, change nothing.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Final

import blake3
import numpy as np
import orjson
from msgspec import Struct, field

from manifests.columns import U32, distinct
from manifests.digest import Digest
from manifests.errors import ConfigError, ManifestError, StoreError
from manifests.model import MAX_DESCRIPTOR_BYTES, Descriptor
from manifests.paths import check_name, check_variant
from syncclient.documents import replace_durably
from syncclient.release import ReleaseView

_FORMAT: Final = 1
# Longer than any line: a path of a variant, a bucket and an id, a size, a digest.
_MAX_LINE_BYTES: Final = 4096
# What readers of a line raise where it is not as we write it.
_MALFORMED: Final = (
    AttributeError,
    LookupError,
    ManifestError,
    OverflowError,
    TypeError,
    ValueError,
)
_HINT: Final = "Make it again with `bucketsync lock`, or get another copy of it."


class Lock(Struct, frozen=True, kw_only=True, eq=False):
    """What a lock file names: a release, its descriptor and root, variants and ids.

    ``sha256`` (hex) and ``size_bytes`` are the descriptor's, as TUF names it; ``descriptor`` is
    its BLAKE3.  ``files`` is the BLAKE3 of all the lines about files.
    """

    dataset: str
    release: str
    descriptor: Digest
    sha256: str
    size_bytes: int
    root: str
    variants: tuple[str, ...]
    files: Digest
    ids: U32 = field(default_factory=lambda: np.empty(0, np.uint32))

    def head(self) -> bytes:
        """The first line."""
        value = {
            "format": _FORMAT,
            "dataset": self.dataset,
            "release": self.release,
            "descriptor": {
                "blake3": self.descriptor.hex,
                "sha256": self.sha256,
                "size": self.size_bytes,
            },
            "root": self.root,
            "variants": list(self.variants),
            "ids": len(self.ids),
            "files": self.files.hex,
        }
        return orjson.dumps(value) + b"\n"


def file_lines(view: ReleaseView) -> Iterator[bytes]:
    """The lines about the files of an open view.  Blocking."""
    layout = view.descriptor.layout
    for variant in sorted(view.variants):
        for bucket in view.buckets:
            folder = f"{variant}/{layout.bucket_name(bucket)}"
            wanted = view.bucket(variant, bucket).wanted
            rows = zip(wanted.names(), wanted.sizes.tolist(), wanted.digests, strict=True)
            for name, size, digest in rows:
                yield orjson.dumps([f"{folder}/{name}", size, digest.tobytes().hex()]) + b"\n"


def write_lock(path: Path, view: ReleaseView, root: str) -> tuple[Lock, Digest]:
    """Write the lock of an open view; what it says, and the digest of the file.  Blocking.

    The lines are made twice, so that none of them are held: once for their digest.  StoreError if
    the disk refuses; then there is no file, or the one that was there before.
    """
    hasher, ids = blake3.blake3(), array("I")
    for line in file_lines(view):
        hasher.update(line)
        ids.append(_id_of(line))
    encoded = view.descriptor.encode()
    lock = Lock(
        dataset=view.descriptor.dataset,
        release=view.descriptor.release,
        descriptor=Digest.of(encoded),
        sha256=hashlib.sha256(encoded).hexdigest(),
        size_bytes=len(encoded),
        root=root,
        variants=tuple(sorted(view.variants)),
        files=Digest(hasher.digest()),
        ids=distinct(np.frombuffer(ids, np.uint32)),
    )
    whole = blake3.blake3()

    def lines() -> Iterator[bytes]:
        for line in chain([lock.head()], file_lines(view)):
            whole.update(line)
            yield line

    try:
        replace_durably(path, lines())
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise StoreError(message) from error
    return lock, Digest(whole.digest())


def _id_of(line: bytes) -> int:
    path = line.split(b'"', 2)[1]
    return int(path.rpartition(b"/")[2].partition(b".")[0])


def read_lock(path: Path) -> Lock:
    """Read a lock file; ConfigError names the line that is wrong."""
    number = 1
    try:
        with path.open("rb") as file:
            head = orjson.loads(file.readline(_MAX_LINE_BYTES))
            hasher, ids = blake3.blake3(), array("I")
            while line := file.readline(_MAX_LINE_BYTES):
                number += 1
                hasher.update(line)
                ids.append(_id_of(line))
        return _checked(
            path, head, Digest(hasher.digest()), distinct(np.frombuffer(ids, np.uint32))
        )
    except _MALFORMED as error:
        message = f"{path}:{number}: not a line of a lock file ({error})"
        raise ConfigError(message, hint=_HINT) from error
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise StoreError(message) from error


def _checked(path: Path, head: dict[str, Any], files: Digest, ids: U32) -> Lock:
    if head["format"] != _FORMAT:
        message = f"{path}: format {head['format']}, expected {_FORMAT}"
        raise ConfigError(message, hint="Upgrade bucketsync.")
    lock = Lock(
        dataset=check_name(head["dataset"], "dataset", "dataset"),
        release=check_name(head["release"], "release", "release"),
        descriptor=Digest.from_hex(head["descriptor"]["blake3"]),
        sha256=Digest.from_hex(head["descriptor"]["sha256"]).hex,
        size_bytes=min(int(head["descriptor"]["size"]), MAX_DESCRIPTOR_BYTES),
        root=str(head["root"]),
        variants=tuple(check_variant(name) for name in head["variants"]),
        files=Digest.from_hex(head["files"]),
        ids=ids,
    )
    if lock.files != files or len(lock.ids) != head["ids"]:
        message = f"{path}: its files are not those that its first line names"
        raise ConfigError(message, hint=f"It was changed or cut off. {_HINT}")
    return lock


def check_lock(lock: Lock, path: Path, view: ReleaseView) -> None:
    """ManifestError unless the release has the very files of a lock.  Blocking."""
    with path.open("rb") as file:
        file.readline()
        for number, (mine, theirs) in enumerate(zip_longest(file_lines(view), file), 2):
            if mine != theirs:
                raise ManifestError(
                    f"{path}:{number}",
                    f"the release {lock.release} has {_shown(mine)}, the lock {_shown(theirs)}",
                    hint=_HINT,
                )


def _shown(line: bytes | None) -> str:
    return "nothing here" if line is None else line.decode(errors="replace").strip()[:200]


def check_descriptor(lock: Lock, data: bytes) -> Descriptor:
    """The descriptor that a lock names, from bytes that nobody vouches for."""
    if Digest.of(data) != lock.descriptor:
        raise ManifestError(lock.release, "not the descriptor that the lock file names")
    return Descriptor.decode(data, lock.release)
