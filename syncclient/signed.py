"""What the publisher signed, as values; and whether a host has anything newer, asked cheaply.

Whoever verifies is :mod:`syncclient.trust`, with python-tuf.  A run that finds nothing new needs
neither: a host whose timestamp is byte for byte the one that was verified last has told all that
it could.  What was learnt from it is kept beside it (:meth:`TrustFolder.remember`), bound by
SHA-256 to the documents that it was learnt from, and used while none of them has expired.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct

from manifests.errors import ConfigError, StoreError, TrustError
from syncclient.documents import replace_durably

METADATA_PATH: Final = "tuf/metadata"
TARGETS_PATH: Final = "tuf/targets"
SUFFIX: Final = ".msgpack"
TIMESTAMP_PATH: Final = f"{METADATA_PATH}/timestamp.json"
# As python-tuf bounds it.
MAX_TIMESTAMP_BYTES: Final = 16384
_ROLES: Final = ("root", "targets", "snapshot", "timestamp")
# A root of many keys; python-tuf is told so.
MAX_ROOT_BYTES: Final = 512_000
_ROOT: Final = re.compile(rf"{METADATA_PATH}/([0-9]+)\.root\.json")
_KNOWN_NAME: Final = "known.json"
MIRROR_HINT: Final = (
    "A mirror may be behind or half updated: try again later, or another mirror.  "
    "If it stays so, ask the publisher."
)
KEY_HINT: Final = (
    "Whoever answers at this address does not have the publisher's keys.  "
    "Compare the root fingerprint with the publisher's before you trust it."
)

# Bytes of the document at a path relative to the repository's URL.  It reads at most one byte more
# than ``max_bytes`` (longer documents are refused here), and raises TransferError with the
# ``status`` of HTTP, if there was an answer.
Fetch = Callable[[str, int], bytes]


class ExpiredError(TrustError):
    """Nobody vouches any more that this is the newest state; what is stored stays usable."""

    def __init__(self, role: str, expires: datetime) -> None:
        super().__init__(
            f"the {role} metadata expired on {expires:%Y-%m-%d %H:%M} UTC: new releases cannot be "
            "told from withheld ones",
            hint="What you have stays usable.  The publisher has to run `bucketsync-server "
            "refresh`; if the date lies ahead, check this machine's clock.",
        )
        self.role = role
        self.expires = expires


class ReleaseTarget(Struct, frozen=True, kw_only=True):
    """A release that the publisher signed: the name, length and SHA-256 of its descriptor.

    ``custom`` holds the publisher's further fields (BLAKE3, base, date, totals), signed like the
    rest but of no checked form.
    """

    name: str
    size_bytes: int
    sha256: str
    custom: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where the descriptor lies, relative to the repository's URL."""
        return f"{TARGETS_PATH}/{self.sha256}.{self.name}{SUFFIX}"


class Signed(Struct, frozen=True, kw_only=True):
    """A verified state of the repository: its releases by name, versions and expiries by role."""

    fingerprint: str
    releases: tuple[ReleaseTarget, ...]
    notices: ReleaseTarget | None
    versions: Mapping[str, int]
    expires: Mapping[str, datetime]

    def expired(self, now: datetime) -> tuple[str, ...]:
        """The roles whose signatures have expired."""
        return tuple(role for role in _ROLES if self.expires[role] <= now)

    def by_date(self) -> list[ReleaseTarget]:
        """Releases, oldest first, by the date the publisher signed with them."""

        def date(target: ReleaseTarget) -> tuple[int, str]:
            created = target.custom.get("created", 0)
            return (created if isinstance(created, int) else 0, target.name)

        return sorted(self.releases, key=date)

    def newest(self) -> str:
        """The name of the newest release; ConfigError where nothing was published."""
        if not self.releases:
            message = "nothing was published in this repository yet"
            raise ConfigError(message)
        return self.by_date()[-1].name

    def release(self, name: str) -> ReleaseTarget:
        """A release by its name; ConfigError names those that exist."""
        for target in self.releases:
            if target.name == name:
                return target
        names = ", ".join(target.name for target in self.by_date()) or "none yet"
        message = f"there is no release {name!r}; the publisher signed: {names}"
        raise ConfigError(message)


class Document(Struct, frozen=True, kw_only=True):
    """A document that a host can be asked for, and how long it may be."""

    path: str
    max_bytes: int


FIRST_ROOT = Document(path=f"{METADATA_PATH}/1.root.json", max_bytes=MAX_ROOT_BYTES)


def following(path: str) -> tuple[Document, ...]:
    """What will be asked for after a document whatever its bytes are, by the order of TUF.

    After a first root the second; after any root, unless there is another one, the timestamp.
    """
    match = _ROOT.fullmatch(path)
    if match is None:
        return ()
    timestamp = Document(path=TIMESTAMP_PATH, max_bytes=MAX_TIMESTAMP_BYTES)
    second = Document(path=f"{METADATA_PATH}/2.root.json", max_bytes=MAX_ROOT_BYTES)
    return (second, timestamp) if match[1] == "1" else (timestamp,)


class TrustFolder:
    """The folder of pinned root and verified metadata.

    ``pinned/root.json`` is the pin, the rest python-tuf's cache.  It is no cache of ours: without
    it a tree trusts nobody.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pinned = folder / "pinned" / "root.json"

    def pinned_root(self) -> bytes | None:
        """The bytes of the pinned root, None if there is none."""
        return read_stored(self._pinned)

    def require_root(self) -> bytes:
        """The bytes of the pinned root; TrustError if there is none."""
        data = self.pinned_root()
        if data is None:
            raise TrustError(
                f"no trusted root in {self.folder}",
                hint="Use `bucketsync adopt` to trust the repository anew.",
            )
        return data

    @property
    def timestamp(self) -> bytes | None:
        """The bytes of the timestamp that was verified last."""
        return read_stored(self.folder / "timestamp.json")

    def _token(self) -> str:
        """Names the documents that are stored."""
        hasher = hashlib.sha256(self.pinned_root() or b"")
        for role in _ROLES:
            data = read_stored(self.folder / f"{role}.json") or b""
            hasher.update(hashlib.sha256(data).digest())
        return hasher.hexdigest()

    def remember(self, signed: Signed) -> None:
        """Keep what the stored documents say; losing it costs time, so an error is no matter."""
        document = {
            "token": self._token(),
            "fingerprint": signed.fingerprint,
            "releases": [_to_document(target) for target in signed.releases],
            "notices": None if signed.notices is None else _to_document(signed.notices),
            "versions": dict(signed.versions),
            "expires": {role: time.isoformat() for role, time in signed.expires.items()},
        }
        with suppress(OSError):
            replace_durably(self._pinned.with_name(_KNOWN_NAME), [json.dumps(document).encode()])

    def known(self, now: datetime) -> Signed | None:
        """What the stored documents say, if that was remembered and none has expired."""
        data = read_stored(self._pinned.with_name(_KNOWN_NAME))
        try:
            document = json.loads(data or b"null")
            signed = _from_document(document)
            current = document["token"] == self._token()
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return signed if current and not signed.expired(now) else None


def _to_document(target: ReleaseTarget) -> dict[str, Any]:
    return {
        "name": target.name,
        "size": target.size_bytes,
        "sha256": target.sha256,
        "custom": dict(target.custom),
    }


def _target_from(document: Mapping[str, Any]) -> ReleaseTarget:
    return ReleaseTarget(
        name=str(document["name"]),
        size_bytes=int(document["size"]),
        sha256=str(document["sha256"]),
        custom=MappingProxyType(dict(document["custom"])),
    )


def _from_document(document: Mapping[str, Any]) -> Signed:
    notices = document["notices"]
    expires = {role: datetime.fromisoformat(document["expires"][role]) for role in _ROLES}
    return Signed(
        fingerprint=str(document["fingerprint"]),
        releases=tuple(map(_target_from, document["releases"])),
        notices=None if notices is None else _target_from(notices),
        versions=MappingProxyType({role: int(document["versions"][role]) for role in _ROLES}),
        expires=MappingProxyType({role: when.astimezone(UTC) for role, when in expires.items()}),
    )


def fingerprint_of(root: bytes) -> str:
    """SHA-256 of root metadata in hexadecimal, as ``bucketsync-server init`` prints it."""
    return hashlib.sha256(root).hexdigest()


def fetch_target(target: ReleaseTarget, fetch: Fetch, max_bytes: int) -> bytes:
    """The bytes of a signed target; TrustError unless length and SHA-256 are as signed."""
    if target.size_bytes > max_bytes:
        raise TrustError(
            f"the target {target.name} would have {target.size_bytes} bytes",
            hint=f"At most {max_bytes} are read.",
        )
    data = fetch(target.path, target.size_bytes)
    found = hashlib.sha256(data).hexdigest()
    if len(data) != target.size_bytes or found != target.sha256:
        message = (
            f"{target.path} is not the target {target.name} that was signed: expected "
            f"{target.size_bytes} bytes with SHA-256 {target.sha256}, got {len(data)} with {found}"
        )
        raise TrustError(message, hint=MIRROR_HINT)
    return data


def read_stored(path: Path) -> bytes | None:
    """The bytes of a stored document, None if there is none; StoreError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(place: Path, error: OSError) -> StoreError:
    """What to tell of a folder that does not take or give signed metadata."""
    return StoreError(
        f"{error.filename or place}: {error.strerror or error}",
        hint="If this file system has no symbolic links, name another place with --state-dir.",
    )
