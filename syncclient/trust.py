"""What the publisher signed: learned through python-tuf, and kept for when nobody signs any more.

Rules:

* Everything is believed because of one pinned root, which the user named or which was seen first.
  The chain of roots is walked from that pin each time; an unpinned folder is an error.
* :func:`refresh` learns new releases and is as strict as TUF: rollback, freeze, mixed and endless
  metadata end in a :class:`TrustError` that says which document is refused, why, what to do.
* :func:`stored` needs no network and looks at no clock.  A signature that once was accepted stays
  proof of what was published; expiry only stops the learning of something new.
* How bytes travel is the caller's: a blocking ``fetch(path, max_bytes)``, paths relative to the
  repository's URL.  It need not be trusted.

All functions block; an asyncio program calls them in a thread.  A folder serves one run at a time.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from msgspec import Struct
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Snapshot, T, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from manifests.errors import ConfigError, ManifestError, TransferError, TrustError
from manifests.model import MAX_DESCRIPTOR_BYTES
from manifests.notices import NOTICES_NAME
from manifests.paths import check_name
from syncclient.documents import replace_durably
from syncclient.signed import (
    KEY_HINT,
    MAX_ROOT_BYTES,
    METADATA_PATH,
    MIRROR_HINT,
    SUFFIX,
    ExpiredError,
    Fetch,
    ReleaseTarget,
    Signed,
    TrustFolder,
    fingerprint_of,
    read_stored,
    storage_error,
)

# python-tuf wants URLs; this one stands for "wherever the repository is".
BASE_URL: Final = "tuf:///"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
# A root for each month of 80 years, should a publisher renew it so often.
_LIMITS: Final = UpdaterConfig(max_root_rotations=1000, root_max_length=MAX_ROOT_BYTES)


class Pin(Struct, frozen=True, kw_only=True):
    """The root that a tree trusts and how it came to: ``first use`` deserves a notice."""

    fingerprint: str
    origin: Literal["stored", "file", "fingerprint", "first use"]


class TrustStore(TrustFolder):
    """The folder for whoever decides what is trusted: python-tuf needs symbolic links in it."""

    def pin(self, data: bytes) -> str:
        """Trust a root from now on and return its fingerprint.

        TrustError if it is not root metadata signed by its own keys, or if another one is pinned.
        """
        pinned, fingerprint = self.pinned_root(), fingerprint_of(data)
        if pinned is not None and pinned != data:
            raise _other_root(self.folder, fingerprint_of(pinned), fingerprint)
        try:
            _verified_root(data, None)
            replace_durably(self._pinned, [data])
        except RepositoryError as error:
            raise _refused(f"the root {fingerprint}", error) from error
        except OSError as error:
            raise storage_error(self.folder, error) from error
        return fingerprint

    def roots(self) -> list[Root]:
        """The pinned root and those after it that are stored, each signed by the one before.

        A file that does not follow ends the chain; the next refresh replaces it.
        """
        try:
            chain = [_verified_root(self.require_root(), None)]
        except RepositoryError as error:
            raise _refused(str(self._pinned), error) from error
        with suppress(RepositoryError):
            while data := read_stored(self._later_root(chain[-1].version + 1)):
                chain.append(_verified_root(data, chain[-1]))
        return chain

    def _later_root(self, version: int) -> Path:
        return self.folder / "root_history" / f"{version}.root.json"


class CallbackFetcher(FetcherInterface):
    """Lets python-tuf read through a :data:`Fetch`, and remembers what it read for messages."""

    def __init__(self, fetch: Fetch) -> None:
        self._callback = fetch
        self.path = ""
        self.received: dict[str, bytes] = {}

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """One document.  For python-tuf "no such thing" is an answer: there is no newer root."""
        self.path = url.removeprefix(BASE_URL)
        try:
            data = self._callback(self.path, max_length)
        except TransferError as error:
            if not (error.missing or error.status == HTTPStatus.FORBIDDEN):
                raise
            raise DownloadHTTPError(error.message, HTTPStatus.NOT_FOUND) from error
        if len(data) > max_length:
            raise DownloadLengthMismatchError(f"longer than the {max_length} bytes it may have")
        role = self.path.rpartition("/")[2].removesuffix(".json").rpartition(".")[2]
        self.received[role] = data
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter([self.download_bytes(url, MAX_DESCRIPTOR_BYTES)])


def parse_trust_root(text: str) -> Path | str:
    """``--trust-root``: the path of a root file, or a fingerprint as 64 lower-case digits.

    A fingerprint may be written with colons, upper case, or ``sha256:`` before it.
    """
    digits = text.lower().removeprefix("sha256:").replace(":", "")
    if _SHA256.fullmatch(digits):
        return digits
    if not Path(text).is_file():
        raise ConfigError(
            f"--trust-root {text}: neither a file nor a fingerprint of 64 hexadecimal digits"
        )
    return Path(text)


def pin_root(trust: TrustStore, fetch: Fetch, trust_root: str | None = None) -> Pin:
    """Decide once which root a tree trusts; later calls check that nothing else is asked for.

    Without ``trust_root`` the repository's own first root is trusted on first use.  TrustError if
    what is served, named or stored do not agree; nothing is pinned then.
    """
    wanted = None if trust_root is None else parse_trust_root(trust_root)
    if isinstance(wanted, Path):
        return Pin(fingerprint=trust.pin(_root_file(wanted)), origin="file")
    if (pinned := trust.pinned_root()) is not None:
        found = fingerprint_of(pinned)
        if wanted not in {None, found}:
            raise _other_root(trust.folder, found, str(wanted))
        return Pin(fingerprint=found, origin="stored")
    data = fetch(f"{METADATA_PATH}/1.root.json", _LIMITS.root_max_length)
    if len(data) > _LIMITS.root_max_length:
        raise TrustError(
            f"{METADATA_PATH}/1.root.json is longer than {_LIMITS.root_max_length} bytes",
            hint="This is not the address of a repository.",
        )
    found = fingerprint_of(data)
    if wanted not in {None, found}:
        raise TrustError(
            f"the repository's first root is {found}, but {wanted} is to be trusted",
            hint=KEY_HINT,
        )
    origin: Literal["fingerprint", "first use"] = "fingerprint" if wanted else "first use"
    return Pin(fingerprint=trust.pin(data), origin=origin)


def refresh(trust: TrustStore, fetch: Fetch) -> Signed:
    """Learn what is signed now; two requests if nothing is new.

    TrustError (ExpiredError if it has only grown old) if anything does not verify, TransferError
    if nothing was delivered.  What was stored before stays usable in both cases.
    """
    with open_updater(trust, fetch) as updater:
        updater.refresh()
    signed = stored(trust)
    trust.remember(signed)
    return signed


def stored(trust: TrustStore) -> Signed:
    """The state that was verified last, without network or clock.

    Each document must be signed as the pinned root, or one that followed it, asks for: a key that
    was rotated since does not take away what it had signed.
    """
    roots = trust.roots()
    targets = _stored_payload(trust, roots, Targets)
    timestamp = _stored_payload(trust, roots, Timestamp)
    signed = (roots[-1], targets, _stored_payload(trust, roots, Snapshot), timestamp)
    named = _named_targets(targets)
    return Signed(
        fingerprint=fingerprint_of(trust.require_root()),
        releases=tuple(target for target in named if target.name != NOTICES_NAME),
        notices=next((target for target in named if target.name == NOTICES_NAME), None),
        versions=MappingProxyType({payload.type: payload.version for payload in signed}),
        expires=MappingProxyType({payload.type: payload.expires for payload in signed}),
    )


class _DurableUpdater(Updater):
    """python-tuf's own writing is not synced: a crash of the machine left documents of zeros."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        replace_durably(Path(filename), [data])


@contextmanager
def open_updater(trust: TrustStore, fetch: Fetch) -> Iterator[Updater]:
    """A python-tuf Updater that starts at the pinned root; what it raises is translated."""
    pinned, fetcher = trust.require_root(), CallbackFetcher(fetch)
    url = BASE_URL + METADATA_PATH
    try:
        yield _DurableUpdater(
            str(trust.folder), url, fetcher=fetcher, config=_LIMITS, bootstrap=pinned
        )
    except ExpiredMetadataError as error:
        raise _expired(trust, fetcher.received) from error
    except (RepositoryError, DownloadLengthMismatchError) as error:
        raise _refused(fetcher.path or "the pinned root", error) from error
    except DownloadError as error:
        status = error.status_code if isinstance(error, DownloadHTTPError) else None
        message = f"{fetcher.path} was not delivered: {error}"
        raise TransferError(message, hint=MIRROR_HINT, status=status) from error
    except OSError as error:
        raise storage_error(trust.folder, error) from error


def supports_symlinks(folder: Path) -> bool:
    """Whether a :class:`TrustStore` can live in a folder: exFAT, for one, has no symlinks."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            (Path(scratch) / "link").symlink_to("target")
        except OSError:
            return False
    return True


def _named_targets(targets: Targets) -> tuple[ReleaseTarget, ...]:
    """Targets that are releases; others belong to versions of this program yet to come."""
    named = ((_release_name(path), info) for path, info in sorted(targets.targets.items()))
    return tuple(_release(name, info) for name, info in named if name)


def _release_name(path: str) -> str:
    name = path.removesuffix(SUFFIX)
    try:
        return check_name(name, "target", "release") if name != path else ""
    except ManifestError:
        return ""


def _release(name: str, info: TargetFile) -> ReleaseTarget:
    sha256 = info.hashes.get("sha256", "")
    if not _SHA256.fullmatch(sha256):
        raise TrustError(
            f"the signed target of {name} has no SHA-256 but {sorted(info.hashes)}",
            hint="Ask the publisher.",
        )
    custom = info.custom if isinstance(info.custom, dict) else {}
    return ReleaseTarget(
        name=name, size_bytes=info.length, sha256=sha256, custom=MappingProxyType(custom)
    )


def _verified_root(data: bytes, previous: Root | None) -> Root:
    """Root metadata, signed by itself and, but for the pin, by the one before it (TUF 5.3)."""
    metadata = Metadata[Root].from_bytes(data)
    root = metadata.signed
    if root.type != Root.type:
        raise DeserializationError(f"expected root metadata, got {root.type}")
    if previous is not None:
        if root.version != previous.version + 1:
            raise BadVersionNumberError(
                f"expected root version {previous.version + 1}, got {root.version}"
            )
        previous.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    return root


def _stored_payload(trust: TrustStore, roots: list[Root], kind: type[T]) -> T:
    path = trust.folder / f"{kind.type}.json"
    data = read_stored(path)
    if data is None:
        raise TrustError(
            f"nothing was learned from this repository yet: {path} is missing",
            hint="Run the command again where the repository is in reach.",
        )
    try:
        metadata = Metadata[T].from_bytes(data)
        results = [
            root.get_verification_result(kind.type, metadata.signed_bytes, metadata.signatures)
            for root in roots
        ]
    except RepositoryError as error:
        raise _refused(str(path), error) from error
    if not isinstance(metadata.signed, kind) or not any(results):
        message = f"it is not {kind.type} metadata that a trusted root accepts"
        raise _refused(str(path), UnsignedMetadataError(message))
    return metadata.signed


def _root_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMITS.root_max_length + 1)
        Metadata[Root].from_bytes(data)
    except OSError as error:
        raise ConfigError(f"--trust-root {path}: {error.strerror}") from error
    except DeserializationError as error:
        raise ConfigError(
            f"--trust-root {path}: no TUF metadata",
            hint="Name a copy of the publisher's 1.root.json.",
        ) from error
    return data


# What python-tuf refuses, in words, and what to do; the first that fits is taken.
_REFUSALS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (UnsignedMetadataError, "it is not signed by enough of the trusted keys", KEY_HINT),
    (BadVersionNumberError, "its version does not fit what is known already", MIRROR_HINT),
    (LengthOrHashMismatchError, "it is not the document that the signatures name", MIRROR_HINT),
    (DownloadLengthMismatchError, "it is too long", MIRROR_HINT),
    (DeserializationError, "it is not TUF metadata", "Is this the address of a repository?"),
    (RepositoryError, "it does not follow from what is known already", MIRROR_HINT),
)


def _refused(document: str, error: Exception) -> TrustError:
    reason, hint = next((why, do) for kind, why, do in _REFUSALS if isinstance(error, kind))
    return TrustError(f"{document} is refused: {reason} ({error})", hint=hint)


def _expired(trust: TrustStore, received: Mapping[str, bytes]) -> ExpiredError:
    """Name the role: python-tuf checks in this order, so it meant the first that is over."""
    now = datetime.now(UTC)
    role, expires = Root.type, trust.roots()[-1].expires
    for later in (Timestamp.type, Snapshot.type, Targets.type):
        if expires > now and later in received:
            role, expires = later, Metadata.from_bytes(received[later]).signed.expires
    return ExpiredError(role, expires)


def _other_root(folder: Path, pinned: str, wanted: str) -> TrustError:
    return TrustError(
        f"{folder} trusts the root {pinned}, but {wanted} is to be trusted",
        hint="If the publisher really began anew, start a new tree with the new root.",
    )
