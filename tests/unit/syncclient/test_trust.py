"""Trust: a real publisher, python-tuf's real updater, and a mirror that does as it likes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tuf.api.metadata import Metadata, MetaFile, Root, TargetFile, Targets, Timestamp

from manifests.errors import ConfigError, ExitCode, StoreError, TransferError, TrustError
from manifests.model import MAX_DESCRIPTOR_BYTES
from manifests.notices import NOTICES_NAME
from server.commands.init import init_repository
from server.signing import EXPIRY_DAYS, ROLES, Settings, Signing, open_signing
from syncclient.signed import (
    ExpiredError,
    ReleaseTarget,
    Signed,
    fetch_target,
    fingerprint_of,
    following,
)
from syncclient.trust import Pin, TrustStore, pin_root, refresh, stored, supports_symlinks
from tests.support.signatures import next_state, payload, sign

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = Path(__file__).parents[3]
METADATA = "tuf/metadata"


class Mirror:
    """Serves a repository and keeps a log; ``changed`` replaces documents or hides them."""

    def __init__(self, repo: Path) -> None:
        self.repo = repo
        self.changed: dict[str, bytes | None] = {}
        self.log: list[str] = []
        self.limits: dict[str, int] = {}

    def fetch(self, path: str, max_bytes: int) -> bytes:
        self.log.append(path.removeprefix(f"{METADATA}/"))
        self.limits[self.log[-1]] = max_bytes
        data = self.changed[path] if path in self.changed else self._file(path)
        if data is None:
            raise TransferError(f"{path}: HTTP status 404", status=404)
        return data[: max_bytes + 1]

    def change(self, name: str, data: bytes | None) -> None:
        self.changed[f"{METADATA}/{name}"] = data

    def document(self, name: str) -> bytes:
        return (self.repo / METADATA / name).read_bytes()

    def _file(self, path: str) -> bytes | None:
        file = self.repo / path
        return file.read_bytes() if file.is_file() else None


def publish(signing: Signing, release: str, custom: Mapping[str, object] | None = None) -> None:
    signing.publish_targets({f"{release}.msgpack": (release.encode(), custom or {})}, now=NOW)


def make_repository(folder: Path) -> Signing:
    signing = init_repository(folder, settings=Settings(dataset="birds"), now=NOW)
    publish(signing, "birds2020")
    return signing


def names(signed: Signed) -> list[str]:
    return [release.name for release in signed.releases]


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    return make_repository(tmp_path / "repo")


@pytest.fixture
def mirror(signing: Signing) -> Mirror:
    return Mirror(signing.repo)


@pytest.fixture
def trust(tmp_path: Path, mirror: Mirror) -> TrustStore:
    """A client that knows the state with one release."""
    store = TrustStore(tmp_path / "trust")
    pin_root(store, mirror.fetch)
    assert names(refresh(store, mirror.fetch)) == ["birds2020"]
    mirror.log.clear()
    return store


# Pinning


def test_first_use_is_said_and_happens_once(tmp_path: Path, mirror: Mirror) -> None:
    store = TrustStore(tmp_path / "new")
    fingerprint = fingerprint_of(mirror.document("1.root.json"))
    assert pin_root(store, mirror.fetch) == Pin(fingerprint=fingerprint, origin="first use")
    assert mirror.log == ["1.root.json"]
    assert pin_root(store, mirror.fetch) == Pin(fingerprint=fingerprint, origin="stored")
    assert mirror.log == ["1.root.json"]


def test_a_fingerprint_is_pinned_in_any_spelling(
    tmp_path: Path, signing: Signing, mirror: Mirror
) -> None:
    plain = signing.fingerprint
    colons = ":".join(plain[place : place + 2] for place in range(0, 64, 2)).upper()
    for count, text in enumerate((plain, colons, f"sha256:{plain}", f"SHA256:{colons}")):
        pin = pin_root(TrustStore(tmp_path / str(count)), mirror.fetch, text)
        assert pin == Pin(fingerprint=plain, origin="fingerprint")


def test_a_root_file_is_pinned_without_a_request(tmp_path: Path, mirror: Mirror) -> None:
    store = TrustStore(tmp_path / "new")
    pin = pin_root(store, mirror.fetch, str(mirror.repo / METADATA / "1.root.json"))
    assert (pin.origin, mirror.log) == ("file", [])
    assert names(refresh(store, mirror.fetch)) == ["birds2020"]


def test_the_same_root_file_may_be_named_again(trust: TrustStore, mirror: Mirror) -> None:
    pin = pin_root(trust, mirror.fetch, str(mirror.repo / METADATA / "1.root.json"))
    assert pin == Pin(fingerprint=fingerprint_of(trust.require_root()), origin="file")


def test_a_root_may_be_as_long_as_the_limit(tmp_path: Path, mirror: Mirror) -> None:
    longest = mirror.document("1.root.json").ljust(512_000)
    mirror.change("1.root.json", longest)
    store = TrustStore(tmp_path / "new")
    pin_root(store, mirror.fetch)
    assert store.pinned_root() == longest


def test_a_later_root_file_does_as_well(tmp_path: Path, signing: Signing, mirror: Mirror) -> None:
    signing.rotate_key("root", now=NOW)
    store = TrustStore(tmp_path / "new")
    pin_root(store, mirror.fetch, str(mirror.repo / METADATA / "2.root.json"))
    assert names(refresh(store, mirror.fetch)) == ["birds2020"]
    assert mirror.log[0] == "3.root.json"


def test_a_wrong_fingerprint_is_refused_and_nothing_pinned(tmp_path: Path, mirror: Mirror) -> None:
    store = TrustStore(tmp_path / "new")
    with pytest.raises(TrustError, match=r"0{64} is to be trusted") as caught:
        pin_root(store, mirror.fetch, "0" * 64)
    assert fingerprint_of(mirror.document("1.root.json")) in caught.value.message
    assert caught.value.exit_code == ExitCode.REFUSED
    assert store.pinned_root() is None


def test_a_pin_stays_what_it_is(tmp_path: Path, trust: TrustStore, mirror: Mirror) -> None:
    other = make_repository(tmp_path / "other")
    file = other.repo / METADATA / "1.root.json"
    for wanted in (other.fingerprint, str(file)):
        with pytest.raises(TrustError, match=f"{other.fingerprint} is to be trusted"):
            pin_root(trust, mirror.fetch, wanted)
    assert trust.pinned_root() == mirror.document("1.root.json")
    assert mirror.log == []


@pytest.mark.parametrize("text", ["a" * 63, "sha256:" + "g" * 64, "no/such/file", ""])
def test_what_is_neither_file_nor_fingerprint_is_a_usage_error(
    text: str, tmp_path: Path, mirror: Mirror
) -> None:
    with pytest.raises(ConfigError, match="neither a file nor a fingerprint"):
        pin_root(TrustStore(tmp_path / "new"), mirror.fetch, text)


def test_a_file_that_is_no_root_is_named_and_not_the_host(tmp_path: Path, mirror: Mirror) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"--trust-root .*photo\.png: no TUF metadata"):
        pin_root(TrustStore(tmp_path / "new"), mirror.fetch, str(tmp_path / "photo.png"))


def test_only_a_root_that_signs_itself_is_pinned(tmp_path: Path, mirror: Mirror) -> None:
    store = TrustStore(tmp_path / "new")
    unsigned = Metadata[Root].from_bytes(mirror.document("1.root.json"))
    unsigned.signatures.clear()
    for data in (b"<html>", mirror.document("timestamp.json"), unsigned.to_bytes()):
        mirror.change("1.root.json", data)
        with pytest.raises(TrustError, match="is refused"):
            pin_root(store, mirror.fetch)
    mirror.change("1.root.json", b" " * 600_000)
    with pytest.raises(TrustError, match="longer than 512000 bytes"):
        pin_root(store, mirror.fetch)
    assert store.pinned_root() is None


def test_without_a_pin_nothing_is_trusted(tmp_path: Path, mirror: Mirror) -> None:
    store = TrustStore(tmp_path / "new")
    for attempt in (partial(refresh, store, mirror.fetch), partial(stored, store)):
        with pytest.raises(TrustError, match="no trusted root") as caught:
            attempt()
        assert "adopt" in caught.value.hint
    assert mirror.log == []


# Learning


def test_a_release_is_learned_with_what_was_signed_about_it(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    variants = {"original": {"files": 3, "bytes": 99}}
    publish(signing, "birds2021", {"base": "birds2020", "variants": variants})
    signed = refresh(trust, mirror.fetch)
    assert mirror.log == ["2.root.json", "timestamp.json", "3.snapshot.json", "3.targets.json"]
    assert names(signed) == ["birds2020", "birds2021"]
    newest = signed.releases[1]
    assert newest.custom == {"base": "birds2020", "variants": variants}
    assert fetch_target(newest, mirror.fetch, MAX_DESCRIPTOR_BYTES) == b"birds2021"
    assert mirror.limits[newest.path] == newest.size_bytes == len(b"birds2021")
    assert signed.fingerprint == signing.fingerprint
    assert signed.versions == {"root": 1, "targets": 3, "snapshot": 3, "timestamp": 3}
    days = {role: (expires - NOW).days for role, expires in signed.expires.items()}
    assert days == EXPIRY_DAYS
    assert signed.expired(NOW) == ()
    assert signed.expired(NOW + timedelta(days=400)) == ("snapshot", "timestamp")
    assert stored(trust) == signed


def test_nothing_new_costs_two_requests(trust: TrustStore, mirror: Mirror) -> None:
    before = stored(trust)
    assert refresh(trust, mirror.fetch) == before
    assert mirror.log == ["2.root.json", "timestamp.json"]


def test_other_targets_are_left_to_later_versions(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    others = ["withdrawn.json", ".msgpack", "-x.msgpack", "a" * 65 + ".msgpack", "nul.msgpack"]
    targets = payload(signing, Targets)
    for name in others:
        targets.targets[name] = TargetFile.from_data(name, b"")
    targets.targets["birds2021.msgpack"] = TargetFile.from_data("birds2021.msgpack", b"1")
    serve_targets(signing, mirror, targets)
    signed = refresh(trust, mirror.fetch)
    assert names(signed) == ["birds2020", "birds2021"]
    assert signed.releases[1].custom == {}


def test_a_release_without_sha256_is_refused(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    targets = payload(signing, Targets)
    info = TargetFile.from_data("birds2021.msgpack", b"1", ["sha512"])
    targets.targets["birds2021.msgpack"] = info
    serve_targets(signing, mirror, targets)
    with pytest.raises(TrustError, match="birds2021 has no SHA-256"):
        refresh(trust, mirror.fetch)


def serve_targets(signing: Signing, mirror: Mirror, targets: Targets) -> None:
    """Let the mirror serve the next version of the targets, properly signed."""
    for name, data in next_state(signing, targets).items():
        mirror.change(name, data)


# Refusing


def refused(trust: TrustStore, mirror: Mirror, match: str) -> TrustError:
    """The refusal of a refresh, after which the client still knows what it knew."""
    before = stored(trust)
    with pytest.raises(TrustError, match=match) as caught:
        refresh(trust, mirror.fetch)
    assert caught.value.exit_code == ExitCode.REFUSED
    assert caught.value.hint
    assert stored(trust).releases == before.releases
    return caught.value


def test_a_rolled_back_timestamp_is_refused(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    old = mirror.document("timestamp.json")
    publish(signing, "birds2021")
    refresh(trust, mirror.fetch)
    mirror.change("timestamp.json", old)
    error = refused(trust, mirror, r"^tuf/metadata/timestamp\.json is refused: its version")
    assert "version 2 must be >= 3" in error.message


def test_a_timestamp_that_rolls_the_snapshot_back_is_refused(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    timestamp = payload(signing, Timestamp)
    timestamp.version += 1
    timestamp.snapshot_meta = MetaFile(1)
    mirror.change("timestamp.json", sign(signing, timestamp))
    refused(trust, mirror, r"timestamp\.json is refused: .*snapshot version must be >= 2, got")


def test_a_snapshot_that_rolls_the_targets_back_is_refused(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    old = Metadata[Targets].from_bytes(mirror.document("1.targets.json")).signed
    old.version = 0
    serve_targets(signing, mirror, old)
    refused(trust, mirror, r"3\.snapshot\.json is refused: its version .*targets\.json")


def test_documents_of_different_states_do_not_mix(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    publish(signing, "birds2021")
    mirror.change("3.targets.json", mirror.document("2.targets.json"))
    refused(trust, mirror, r"3\.targets\.json is refused: it is not the document")
    mirror.change("3.snapshot.json", mirror.document("2.snapshot.json"))
    (trust.folder / "snapshot.json").unlink()
    with pytest.raises(TrustError, match=r"3\.snapshot\.json is refused: it is not the document"):
        refresh(trust, mirror.fetch)


def test_a_snapshot_of_another_version_than_named_is_refused(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    timestamp = payload(signing, Timestamp)
    timestamp.version += 1
    timestamp.snapshot_meta = MetaFile(3)
    mirror.change("timestamp.json", sign(signing, timestamp))
    mirror.change("3.snapshot.json", mirror.document("2.snapshot.json"))
    refused(trust, mirror, r"3\.snapshot\.json is refused: .*Expected snapshot version 3, got 2")


def test_another_publishers_signatures_are_refused(
    tmp_path: Path, trust: TrustStore, mirror: Mirror
) -> None:
    mirror.repo = make_repository(tmp_path / "other").repo
    error = refused(trust, mirror, r"timestamp\.json is refused: it is not signed by enough")
    assert "0/1" in error.message
    assert "fingerprint" in error.hint


@pytest.mark.parametrize("name", ["3.snapshot.json", "3.targets.json"])
def test_each_role_needs_its_own_key(
    name: str, signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    targets = payload(signing, Targets)
    serve_targets(signing, mirror, targets)
    forged = Metadata[Any].from_bytes(mirror.changed[f"{METADATA}/{name}"] or b"").signed
    mirror.change(name, sign(signing, forged, "timestamp"))
    refused(trust, mirror, rf"{name} is refused: it is not signed by enough")


def test_a_root_that_skips_a_version_is_refused(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    for _ in range(2):
        signing.rotate_key("timestamp", now=NOW)
    mirror.change("2.root.json", mirror.document("3.root.json"))
    refused(trust, mirror, r"2\.root\.json is refused: .*Expected root version 2 instead got")


def test_a_hidden_root_does_not_make_its_successor_trusted(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    signing.rotate_key("timestamp", now=NOW)
    publish(signing, "birds2021")
    mirror.change("2.root.json", None)
    refused(trust, mirror, r"timestamp\.json is refused: it is not signed by enough")


def test_a_root_signed_by_its_own_new_keys_alone_is_refused(
    tmp_path: Path, trust: TrustStore, mirror: Mirror
) -> None:
    thief = make_repository(tmp_path / "thief")
    thief.rotate_key("root", now=NOW)
    mirror.change("2.root.json", (thief.repo / METADATA / "2.root.json").read_bytes())
    refused(trust, mirror, r"2\.root\.json is refused: it is not signed by enough")
    assert not (trust.folder / "root_history" / "2.root.json").exists()


@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json", "3.snapshot.json"])
def test_endless_documents_are_cut_and_refused(
    name: str, signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    publish(signing, "birds2021")
    mirror.change(name, b" " * 1_000_000)
    refused(trust, mirror, rf"{name} is refused: it is too long")
    assert mirror.limits[name] <= 512_000


def test_signed_lengths_bound_what_is_read(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    publish(signing, "birds2021")
    refresh(trust, mirror.fetch)
    for name in ("3.snapshot.json", "3.targets.json"):
        assert mirror.limits[name] == len(mirror.document(name))


def test_a_page_instead_of_metadata_is_named(trust: TrustStore, mirror: Mirror) -> None:
    mirror.change("timestamp.json", b"<html>Please log in</html>")
    error = refused(trust, mirror, r"timestamp\.json is refused: it is not TUF metadata")
    assert "address" in error.hint


@given(
    name=st.sampled_from(["2.root.json", "timestamp.json", "3.snapshot.json", "3.targets.json"]),
    data=st.one_of(st.none(), st.binary(max_size=300)),
    place=st.integers(0, 10_000),
    flip=st.integers(1, 255),
)
@settings(deadline=None, max_examples=100)
def test_no_served_byte_is_believed_or_crashes(
    world: tuple[Path, Path], name: str, data: bytes | None, place: int, flip: int
) -> None:
    """Garbage, or the true document with one byte changed: the truth is learned, or a refusal."""
    repo, known = world
    mirror = Mirror(repo)
    if data is None:
        document = bytearray(mirror.document(name))
        document[place % len(document)] ^= flip
        data = bytes(document)
    mirror.change(name, data)
    with TemporaryDirectory() as scratch:
        store = TrustStore(Path(shutil.copytree(known, Path(scratch) / "trust", symlinks=True)))
        try:
            learned = names(refresh(store, mirror.fetch))
        except TrustError:
            learned = names(stored(store))
    assert learned in (["birds2020"], ["birds2020", "birds2021"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A repository with two releases and two roots, and a client that knows the first of each."""
    folder = tmp_path_factory.mktemp("world")
    signing = make_repository(folder / "repo")
    store, mirror = TrustStore(folder / "trust"), Mirror(signing.repo)
    pin_root(store, mirror.fetch)
    refresh(store, mirror.fetch)
    signing.rotate_key("root", now=NOW)
    publish(signing, "birds2021")
    return signing.repo, store.folder


# Expiry


@pytest.mark.parametrize("role", ROLES)
def test_expired_metadata_names_the_role_and_the_day(role: str, tmp_path: Path) -> None:
    days = {**dict.fromkeys(ROLES, 1000), role: 1}
    past = NOW - timedelta(days=30)
    signing = init_repository(
        tmp_path / "repo", settings=Settings(dataset="birds", expiry_days=days), now=past
    )
    mirror, store = Mirror(signing.repo), TrustStore(tmp_path / "new")
    pin_root(store, mirror.fetch)
    with pytest.raises(ExpiredError, match=f"the {role} metadata expired") as caught:
        refresh(store, mirror.fetch)
    assert (caught.value.role, caught.value.expires) == (role, past + timedelta(days=1))
    assert caught.value.exit_code == ExitCode.REFUSED
    assert f"{past + timedelta(days=1):%Y-%m-%d}" in caught.value.message
    signing.refresh(now=NOW, everything=True)
    assert refresh(store, mirror.fetch).expired(NOW) == ()


def test_garbage_after_an_expired_timestamp_is_still_expiry(
    trust: TrustStore, signing: Signing, mirror: Mirror
) -> None:
    timestamp = payload(signing, Timestamp)
    timestamp.expires = NOW - timedelta(days=1)
    frozen = sign(signing, timestamp)
    (trust.folder / "timestamp.json").write_bytes(frozen)
    mirror.change("timestamp.json", frozen)
    mirror.change("2.snapshot.json", b"{")
    with pytest.raises(ExpiredError, match="the timestamp metadata expired"):
        refresh(trust, mirror.fetch)


def test_what_was_learned_outlives_its_signatures(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    signing.refresh(now=NOW - timedelta(days=500))
    with pytest.raises(ExpiredError):
        refresh(trust, mirror.fetch)
    assert names(stored(trust)) == ["birds2020"]


def test_a_stored_state_is_read_long_after_everything_expired(tmp_path: Path) -> None:
    past = NOW - timedelta(days=9000)
    signing = init_repository(tmp_path / "repo", settings=Settings(dataset="birds"), now=past)
    signing.publish_targets({"birds2020.msgpack": (b"1", {})}, now=past)
    metadata, store = signing.repo / METADATA, TrustStore(tmp_path / "trust")
    store.pin((metadata / "1.root.json").read_bytes())
    for name in ("timestamp.json", "2.snapshot.json", "2.targets.json"):
        shutil.copy(metadata / name, store.folder / name.removeprefix("2."))
    signed = stored(store)
    assert names(signed) == ["birds2020"]
    assert signed.expired(NOW) == ROLES


# The network


def test_a_network_fault_is_passed_on_as_it_is(trust: TrustStore) -> None:
    for status in (None, 503):
        fault = TransferError("connection reset", status=status)

        def fail(*_: object, fault: TransferError = fault) -> bytes:
            raise fault

        with pytest.raises(TransferError) as caught:
            refresh(trust, fail)
        assert caught.value is fault
    assert names(stored(trust)) == ["birds2020"]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_no_newer_root_is_said_in_several_ways(
    status: int, trust: TrustStore, mirror: Mirror
) -> None:
    def fetch(path: str, max_bytes: int) -> bytes:
        if path.endswith("root.json"):
            raise TransferError(path, status=status)
        return mirror.fetch(path, max_bytes)

    assert names(refresh(trust, fetch)) == ["birds2020"]


@pytest.mark.parametrize("name", ["3.snapshot.json", "3.targets.json"])
def test_a_half_copied_mirror_is_a_network_fault_and_loses_nothing(
    name: str, signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    signing.rotate_key("targets", now=NOW)
    mirror.change(name, None)
    with pytest.raises(TransferError, match=rf"{name} was not delivered") as caught:
        refresh(trust, mirror.fetch)
    assert (caught.value.exit_code, caught.value.status) == (ExitCode.NETWORK, 404)
    assert names(stored(trust)) == ["birds2020"]
    mirror.changed.clear()
    publish(signing, "birds2021")
    assert names(refresh(trust, mirror.fetch)) == ["birds2020", "birds2021"]


@pytest.mark.parametrize("role", ROLES)
def test_a_client_follows_each_rotation_from_its_old_pin(
    role: str, tmp_path: Path, signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    signing.rotate_key(role, now=NOW)
    publish(signing, "birds2021")
    assert names(refresh(trust, mirror.fetch)) == ["birds2020", "birds2021"]
    new = TrustStore(tmp_path / "new")
    pin_root(new, mirror.fetch, signing.fingerprint)
    assert names(refresh(new, mirror.fetch)) == ["birds2020", "birds2021"]
    mirror.log.clear()
    refresh(new, mirror.fetch)
    assert mirror.log == ["3.root.json", "timestamp.json"]


# The stored state


def test_a_forged_cache_is_refused(trust: TrustStore, tmp_path: Path) -> None:
    thief = make_repository(tmp_path / "thief")
    publish(thief, "malware")
    shutil.copy(thief.repo / METADATA / "3.targets.json", trust.folder / "targets.json")
    with pytest.raises(TrustError, match=r"targets\.json is refused: it is not signed by enough"):
        stored(trust)


def test_a_forged_later_root_in_the_cache_is_not_followed(
    trust: TrustStore, tmp_path: Path
) -> None:
    thief = make_repository(tmp_path / "thief")
    thief.rotate_key("root", now=NOW)
    history = trust.folder / "root_history"
    shutil.copy(thief.repo / METADATA / "2.root.json", history / "2.root.json")
    for name in ("timestamp.json", "2.snapshot.json", "2.targets.json"):
        shutil.copy(thief.repo / METADATA / name, trust.folder / name.removeprefix("2."))
    assert [root.version for root in trust.roots()] == [1]
    with pytest.raises(TrustError, match="is refused: it is not signed by enough"):
        stored(trust)


def test_a_root_that_skips_a_version_in_the_cache_is_not_followed(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    for _ in range(2):
        signing.rotate_key("timestamp", now=NOW)
    third = mirror.document("3.root.json")
    (trust.folder / "root_history" / "2.root.json").write_bytes(third)
    assert [root.version for root in trust.roots()] == [1]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_damaged_or_swapped_cache_is_refused_and_mended_by_refresh(
    role: str, signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    path = trust.folder / f"{role}.json"
    swapped = sign(signing, payload(signing, Root), role)
    for damage in (b"", b"{}", mirror.document("1.root.json"), swapped):
        path.write_bytes(damage)
        with pytest.raises(TrustError, match=rf"{role}\.json is refused"):
            stored(trust)
    path.unlink()
    with pytest.raises(TrustError, match="nothing was learned"):
        stored(trust)
    assert names(refresh(trust, mirror.fetch)) == ["birds2020"]


def test_a_damaged_pin_is_refused(trust: TrustStore, mirror: Mirror) -> None:
    pin = trust.folder / "pinned" / "root.json"
    pin.write_bytes(b"{}")
    with pytest.raises(TrustError, match=r"pinned.* is refused"):
        stored(trust)
    with pytest.raises(TrustError, match="the pinned root is refused"):
        refresh(trust, mirror.fetch)
    assert mirror.log == []


def test_a_cache_that_cannot_be_written_is_a_storage_error(
    trust: TrustStore, mirror: Mirror
) -> None:
    (trust.folder / "timestamp.json").unlink()
    (trust.folder / "timestamp.json").mkdir()
    with pytest.raises(StoreError) as caught:
        refresh(trust, mirror.fetch)
    assert "--state-dir" in caught.value.hint


def test_symbolic_links_are_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert supports_symlinks(tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    # What exFAT answers; the machines that run the tests seldom have one.
    monkeypatch.setattr(os, "symlink", refuse)
    assert not supports_symlinks(tmp_path)
    assert list(tmp_path.iterdir()) == []


# What is remembered of it


def test_what_was_verified_is_remembered_until_it_expires(
    signing: Signing, trust: TrustStore, mirror: Mirror
) -> None:
    signed = refresh(trust, mirror.fetch)
    ends = min(signed.expires.values())
    assert trust.known(ends - timedelta(seconds=1)) == signed
    assert trust.known(ends) is None
    publish(signing, NOTICES_NAME)
    with_notices = refresh(trust, mirror.fetch)
    assert with_notices.notices is not None
    assert trust.known(NOW) == with_notices


@pytest.mark.parametrize("name", [*(f"{role}.json" for role in ROLES), "pinned/root.json"])
def test_nothing_is_remembered_of_other_documents(name: str, trust: TrustStore) -> None:
    path = trust.folder / name
    path.write_bytes(path.read_bytes() + b" ")
    assert trust.known(NOW) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "\x00", '{"notices": 1}'])
def test_a_damaged_memory_is_none(text: str, trust: TrustStore) -> None:
    (trust.folder / "pinned" / "known.json").write_text(text)
    assert trust.known(NOW) is None


@pytest.mark.parametrize(
    ("name", "then"),
    [
        ("1.root.json", ["2.root.json", "timestamp.json"]),
        ("2.root.json", ["timestamp.json"]),
        ("timestamp.json", []),
    ],
)
def test_only_after_the_first_root_a_second_is_sure_to_be_asked_for(
    name: str, then: list[str]
) -> None:
    asked = [document.path for document in following(f"{METADATA}/{name}")]
    assert asked == [f"{METADATA}/{path}" for path in then]


# Descriptors


@pytest.mark.parametrize("served", [b"birds202X", b"birds20", b"birds2020 and more", b""])
def test_a_descriptor_is_what_was_signed(served: bytes, trust: TrustStore, mirror: Mirror) -> None:
    (target,) = stored(trust).releases
    mirror.changed[target.path] = served
    with pytest.raises(TrustError, match="not the target birds2020") as caught:
        fetch_target(target, mirror.fetch, MAX_DESCRIPTOR_BYTES)
    assert target.sha256 in caught.value.message
    mirror.changed[target.path] = None
    with pytest.raises(TransferError):
        fetch_target(target, mirror.fetch, MAX_DESCRIPTOR_BYTES)
    mirror.changed.clear()
    with pytest.raises(TrustError, match=r"expected 10 bytes with .*, got 9"):
        fetch_target(replace(target, size_bytes=10), mirror.fetch, MAX_DESCRIPTOR_BYTES)


def test_a_descriptor_may_be_as_long_as_the_limit(trust: TrustStore, mirror: Mirror) -> None:
    (release,) = stored(trust).releases
    assert fetch_target(release, mirror.fetch, release.size_bytes) == b"birds2020"


def test_a_descriptor_beyond_any_measure_is_not_fetched(mirror: Mirror) -> None:
    target = ReleaseTarget(
        name="huge", size_bytes=MAX_DESCRIPTOR_BYTES + 1, sha256="0" * 64, custom={}
    )
    with pytest.raises(TrustError, match="huge would have"):
        fetch_target(target, mirror.fetch, MAX_DESCRIPTOR_BYTES)
    assert mirror.log == []


# The command line of TUF's conformance suite


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_the_conformance_adapter_speaks_the_suites_protocol(
    signing: Signing, tmp_path: Path
) -> None:
    adapter = ROOT / "tests" / "conformance" / "tuf_adapter.py"
    known, targets = tmp_path / "known", tmp_path / "targets"
    known.mkdir()
    targets.mkdir()

    def run(*arguments: str) -> int:
        command = [sys.executable, str(adapter), "--metadata-dir", str(known), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, check=False).returncode

    def version(role: str) -> int:
        metadata = Metadata[Timestamp].from_file(str(known / f"{role}.json"))
        return metadata.signed.version

    def download(url: str, name: str) -> int:
        return run(
            *("--metadata-url", f"{url}/tuf/metadata", "--target-name", name),
            *("--target-base-url", f"{url}/tuf/targets", "--target-dir", str(targets), "download"),
        )

    with served(signing.repo) as url:
        assert run("init", str(signing.repo / METADATA / "1.root.json")) == 0
        assert version("root") == 1
        signing.rotate_key("snapshot", now=NOW)
        assert run("--metadata-url", f"{url}/tuf/metadata", "refresh") == 0
        assert {role: version(role) for role in ROLES} == {
            role: signed.version for role, signed in open_signing(signing.repo).roles().items()
        }
        assert download(url, "birds2020.msgpack") == 0
        assert [path.read_bytes() for path in targets.iterdir()] == [b"birds2020"]
        assert download(url, "birds2021.msgpack") == 1
        (signing.repo / METADATA / "timestamp.json").write_bytes(b"{}")
        assert run("--metadata-url", f"{url}/tuf/metadata", "refresh") == 1
