"""Signing: what a client reaches stays valid, whatever happens to the publisher."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Root

from manifests.errors import ConfigError, ExitCode, ManifestError, TransferError, TrustError
from manifests.paths import Layout
from server.commands import init, refresh, rotate_key
from server.commands.init import init_repository, parse_expiry
from server.signing import (
    EXPIRY_DAYS,
    PASSPHRASE_VARIABLE,
    ROLES,
    Quorum,
    Settings,
    Signing,
    open_signing,
    write_durably,
)
from syncclient import trust
from syncclient.output import Output
from syncclient.signed import Signed

NOW = datetime.now(UTC).replace(microsecond=0)
SETTINGS = Settings(dataset="birds")
TWO_OF_THREE = Quorum(keys=3, threshold=2)
Change = Callable[[Signing], object]


class KilledError(Exception):
    """The publisher's process ends here."""


def kill_after(writes: int) -> Callable[[Path, bytes], None]:
    """A writer that writes so many files, then leaves half a temporary file and dies."""
    left = [writes]

    def write(path: Path, data: bytes) -> None:
        if left[0] == 0:
            path.with_name(f".{path.name}.part").write_bytes(data[: len(data) // 2])
            raise KilledError
        left[0] -= 1
        write_durably(path, data)

    return write


def client(repo: Path, folder: Path) -> Signed:
    """What a client that keeps its trust in ``folder`` learns from the files of ``repo``."""

    def fetch(path: str, max_bytes: int) -> bytes:
        file = repo / path
        if not file.exists():
            raise TransferError(path, status=404)
        return file.read_bytes()[: max_bytes + 1]

    store = trust.TrustStore(folder)
    trust.pin_root(store, fetch)
    return trust.refresh(store, fetch)


def names(signed: Signed) -> list[str]:
    return [release.name for release in signed.releases]


def publish(signing: Signing, release: str) -> None:
    custom = {"release": release, "base": None, "variants": {"original": {"files": 1, "bytes": 2}}}
    signing.publish_targets({f"{release}.msgpack": (release.encode(), custom)}, now=NOW)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with one release."""
    signing = init_repository(tmp_path / "repo", settings=SETTINGS, now=NOW)
    publish(signing, "birds2020")
    return signing.repo


def test_init_makes_private_keys_and_version_1_of_every_role(tmp_path: Path) -> None:
    settings = Settings(
        dataset="birds",
        layout=Layout(buckets=10, digits=2),
        expiry_days={"root": 1000, "targets": 900, "snapshot": 30, "timestamp": 7},
    )
    repo, keys = tmp_path / "repo", tmp_path / "repo-keys"
    signing = init_repository(repo, settings=settings, now=NOW)

    assert keys.stat().st_mode & 0o777 == 0o700
    assert (repo / ".publish").stat().st_mode & 0o777 == 0o700
    pems = {path.name: path for path in keys.iterdir()}
    root = Metadata[Root].from_bytes((repo / "tuf/metadata/1.root.json").read_bytes()).signed
    assert set(pems) == {f"{role}-{root.roles[role].keyids[0][:8]}.pem" for role in ROLES}
    assert {path.stat().st_mode & 0o777 for path in pems.values()} == {0o600}
    assert root.consistent_snapshot
    roles = signing.roles()
    assert {role: signed.version for role, signed in roles.items()} == dict.fromkeys(ROLES, 1)
    assert {role: (signed.expires - NOW).days for role, signed in roles.items()} == dict(
        settings.expiry_days
    )
    first = (repo / "tuf/metadata/1.root.json").read_bytes()
    assert signing.fingerprint == hashlib.sha256(first).hexdigest()
    assert open_signing(repo).settings == settings
    assert names(client(repo, tmp_path / "client")) == []


def test_init_refuses_a_folder_in_use_and_leaves_it_alone(tmp_path: Path) -> None:
    repo, keys = tmp_path / "repo", tmp_path / "keys"
    for used in (repo, keys):
        used.mkdir()
        (used / "thesis.txt").write_text("mine")
        with pytest.raises(ConfigError, match=r"not empty: it holds thesis\.txt") as caught:
            init_repository(repo, keys, settings=SETTINGS, now=NOW)
        assert caught.value.exit_code == ExitCode.USAGE
        assert list(files(used)) == ["thesis.txt"]
        (used / "thesis.txt").unlink()
    with pytest.raises(ConfigError, match="would be published"):
        init_repository(repo, repo / "keys", settings=SETTINGS, now=NOW)
    assert files(tmp_path) == {}
    repo.rmdir()
    repo.write_text("a file")
    with pytest.raises(ConfigError, match="not a folder"):
        init_repository(repo, keys, settings=SETTINGS, now=NOW)


def test_an_interrupted_init_is_no_repository(tmp_path: Path) -> None:
    for writes in range(5):
        repo = tmp_path / str(writes)
        with pytest.raises(KilledError):
            init_repository(repo, settings=SETTINGS, now=NOW, write=kill_after(writes))
        with pytest.raises(ConfigError, match="not a repository"):
            open_signing(repo)


@pytest.mark.parametrize(
    ("texts", "role", "days"),
    [([], "timestamp", 400), (["timestamp=2y"], "timestamp", 730), (["root=90d"], "root", 90)],
)
def test_expiry_is_a_duration_by_role(texts: list[str], role: str, days: int) -> None:
    assert parse_expiry(texts) == {**EXPIRY_DAYS, role: days}


@pytest.mark.parametrize(
    "text", ["mirror=2y", "timestamp", "timestamp=soon", "2y", "timestamp=3h"]
)
def test_a_bad_expiry_is_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"(--expiry|duration)"):
        parse_expiry([text])


@pytest.mark.parametrize("days", [0, 36_501, True, 1.5, None])
def test_settings_name_the_place_of_a_bad_expiry(days: object) -> None:
    expiry_days = {**EXPIRY_DAYS, "snapshot": days}
    with pytest.raises(ManifestError, match=r"^expiry_days\.snapshot"):
        Settings(dataset="birds", expiry_days=expiry_days)  # type: ignore[arg-type]


@pytest.mark.parametrize(("keys", "threshold"), [(0, 0), (1, 2), (2, 0), (33, 1)])
def test_a_threshold_that_cannot_be_met_is_refused(keys: int, threshold: int) -> None:
    with pytest.raises(ConfigError):
        Quorum(keys=keys, threshold=threshold)


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"format": 1}', b'{"format": 2, "dataset": "birds"}']
)
def test_damaged_settings_are_named(repo: Path, damage: bytes) -> None:
    (repo / ".publish/settings.json").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"settings\.json"):
        open_signing(repo)


def test_publish_adds_and_removes_and_keeps_the_bytes(repo: Path, tmp_path: Path) -> None:
    signing = open_signing(repo)
    signing.publish_targets(
        {"birds2021.msgpack": (b"second", {"base": "birds2020"})}, ["birds2020.msgpack"], now=NOW
    )
    signed = client(repo, tmp_path / "client")
    assert names(signed) == ["birds2021"]
    assert signed.releases[0].custom == {"base": "birds2020"}
    info = signing.targets()["birds2021.msgpack"]
    assert signing.read_target(info) == b"second"
    stored = {path.name for path in (repo / "tuf/targets").iterdir()}
    assert stored == {
        f"{hashlib.sha256(data).hexdigest()}.{name}.msgpack"
        for name, data in (("birds2020", b"birds2020"), ("birds2021", b"second"))
    }
    (repo / signed.releases[0].path).write_bytes(b"rotten")
    with pytest.raises(TrustError, match=r"birds2021\.msgpack of the repository is damaged"):
        signing.read_target(info)


def test_a_publish_that_cannot_be_changes_nothing(repo: Path) -> None:
    before = files(repo)
    signing = open_signing(repo)
    with pytest.raises(ConfigError, match="no target 'gone'"):
        signing.publish_targets({}, ["gone"], now=NOW)
    for name in ("../evil", "a/b", "", "nul"):
        with pytest.raises(ConfigError, match="name of a target"):
            signing.publish_targets({name: (b"", {})}, now=NOW)
    assert files(repo) == before


CHANGES: dict[str, tuple[int, Change]] = {
    # name: how many files it writes, what it does
    "publish": (4, lambda signing: publish(signing, "birds2021")),
    "refresh": (4, lambda signing: signing.refresh(now=NOW, everything=True)),
    "rotate root": (1, lambda signing: signing.rotate_key("root", now=NOW)),
    "rotate targets": (4, lambda signing: signing.rotate_key("targets", now=NOW)),
    "rotate snapshot": (3, lambda signing: signing.rotate_key("snapshot", now=NOW)),
    "rotate timestamp": (2, lambda signing: signing.rotate_key("timestamp", now=NOW)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_killed_between_any_two_writes_the_repository_stays_valid(
    name: str, repo: Path, tmp_path: Path
) -> None:
    writes, change = CHANGES[name]
    old = tmp_path / "old client"
    client(repo, old)
    for done in range(writes):
        with pytest.raises(KilledError):
            change(open_signing(repo, write=kill_after(done)))
        assert names(client(repo, old)) == ["birds2020"]
        assert names(client(repo, tmp_path / f"new client {done}")) == ["birds2020"]
    change(open_signing(repo, write=kill_after(writes)))
    publish(open_signing(repo), "birds2022")
    assert "birds2022" in names(client(repo, old))
    assert names(client(repo, old)) == names(client(repo, tmp_path / "last client"))


def test_what_a_killed_run_left_is_overwritten(repo: Path, tmp_path: Path) -> None:
    for done in range(4):
        with pytest.raises(KilledError):
            publish(open_signing(repo, write=kill_after(done)), f"lost{done}")
    signing = open_signing(repo)
    publish(signing, "birds2021")
    assert {role: signed.version for role, signed in signing.roles().items()} == {
        "root": 1,
        "targets": 3,
        "snapshot": 3,
        "timestamp": 3,
    }
    assert names(client(repo, tmp_path / "client")) == ["birds2020", "birds2021"]


def test_who_reads_a_document_while_it_is_replaced_reads_it_whole(repo: Path) -> None:
    path = repo / "tuf/metadata/timestamp.json"
    before = path.read_bytes()
    with path.open("rb", buffering=0) as reader:
        start = reader.read(10)
        publish(open_signing(repo), "birds2021")
        assert start + reader.read() == before
    assert path.read_bytes() != before
    assert not list(repo.rglob("*.part"))


def test_signing_runs_exclude_each_other(repo: Path) -> None:
    busy = []

    def write(path: Path, data: bytes) -> None:
        with (repo / ".publish/signing.lock").open("ab") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        busy.append(path.name)
        write_durably(path, data)

    signing = open_signing(repo, write=write)
    publish(signing, "birds2021")
    signing.refresh(now=NOW)
    signing.rotate_key("timestamp", now=NOW)
    assert busy.count("timestamp.json") == 3


def test_refresh_signs_root_and_targets_only_when_they_are_due(repo: Path) -> None:
    signing = open_signing(repo)
    life = timedelta(days=EXPIRY_DAYS["root"])
    early, late = NOW + life * 0.74, NOW + life * 0.76
    assert signing.refresh(now=early).signed == ("snapshot", "timestamp")
    assert signing.refresh(now=late).signed == ROLES
    roles = signing.roles()
    assert roles["root"].version == 2
    for role, signed in roles.items():
        assert signed.expires == late + timedelta(days=EXPIRY_DAYS[role])


def test_refresh_without_the_root_key_says_what_waits(repo: Path, tmp_path: Path) -> None:
    signing = open_signing(repo)
    for pem in signing.keys.folder.glob("root-*.pem"):
        pem.rename(tmp_path / pem.name)
    late = NOW + timedelta(days=EXPIRY_DAYS["root"] - 1)
    renewal = signing.refresh(now=late)
    assert (renewal.signed, renewal.waiting) == (("targets", "snapshot", "timestamp"), ("root",))
    before = files(repo)
    with pytest.raises(ConfigError, match=r"root needs 1 of its keys, .* holds 0"):
        signing.refresh(now=late, everything=True)
    assert files(repo) == before


@pytest.mark.parametrize("role", ROLES)
def test_rotation_replaces_the_key_and_retires_the_old_one(role: str, repo: Path) -> None:
    signing = open_signing(repo)
    rotation = signing.rotate_key(role, now=NOW)
    root = signing.roles()["root"]
    assert isinstance(root, Root)
    assert root.roles[role].keyids == [rotation.added]
    assert rotation.removed not in root.keys
    keys = signing.keys.folder
    assert [path.name for path in keys.glob(f"{role}-*.pem")] == [
        f"{role}-{rotation.added[:8]}.pem"
    ]
    assert [path.name for path in (keys / "retired").iterdir()] == [
        f"{role}-{rotation.removed[:8]}.pem"
    ]


def test_rotation_takes_the_oldest_key_or_the_one_named(tmp_path: Path) -> None:
    signing = init_repository(
        tmp_path / "repo", settings=SETTINGS, now=NOW, quorums={"root": TWO_OF_THREE}
    )
    root = signing.roles()["root"]
    assert isinstance(root, Root)
    oldest, second, third = root.roles["root"].keyids
    assert signing.rotate_key("root", now=NOW).removed == oldest
    assert signing.rotate_key("root", now=NOW, keyid=third[:10]).removed == third
    with pytest.raises(ConfigError, match="names 0 keys of root") as caught:
        signing.rotate_key("root", now=NOW, keyid=oldest[:10])
    assert second[:8] in caught.value.hint
    with pytest.raises(ConfigError, match="not a role"):
        signing.rotate_key("mirror", now=NOW)
    assert client(signing.repo, tmp_path / "client").versions["root"] == 3


def test_a_lost_key_can_be_replaced(repo: Path, tmp_path: Path) -> None:
    client(repo, tmp_path / "client")
    signing = open_signing(repo)
    for pem in signing.keys.folder.glob("targets-*.pem"):
        pem.unlink()
    with pytest.raises(ConfigError, match="targets needs 1 of its keys"):
        publish(signing, "birds2021")
    signing.rotate_key("targets", now=NOW)
    publish(signing, "birds2021")
    assert names(client(repo, tmp_path / "client")) == ["birds2020", "birds2021"]


def test_a_rotation_that_root_cannot_sign_leaves_no_trace(repo: Path, tmp_path: Path) -> None:
    signing = open_signing(repo)
    for pem in signing.keys.folder.glob("root-*.pem"):
        pem.rename(tmp_path / pem.name)
    before = files(tmp_path)
    with pytest.raises(ConfigError, match="root needs 1 of its keys"):
        signing.rotate_key("timestamp", now=NOW)
    assert files(tmp_path) == before


def test_two_of_three_keys_suffice_and_one_does_not(tmp_path: Path) -> None:
    quorums = {"root": TWO_OF_THREE, "targets": TWO_OF_THREE}
    signing = init_repository(tmp_path / "repo", settings=SETTINGS, now=NOW, quorums=quorums)
    folder = signing.keys.folder
    assert len(list(folder.glob("root-*.pem"))) == len(list(folder.glob("targets-*.pem"))) == 3

    for role in ("root", "targets"):
        next(folder.glob(f"{role}-*.pem")).unlink()
    publish(signing, "birds2020")
    signing.rotate_key("snapshot", now=NOW)
    assert names(client(signing.repo, tmp_path / "client")) == ["birds2020"]

    for role in ("root", "targets"):
        next(folder.glob(f"{role}-*.pem")).unlink()
    with pytest.raises(ConfigError, match=r"targets needs 2 of its keys, .* holds 1"):
        publish(signing, "birds2021")
    with pytest.raises(ConfigError, match=r"root needs 2 of its keys, .* holds 1"):
        signing.rotate_key("snapshot", now=NOW)
    assert names(client(signing.repo, tmp_path / "client")) == ["birds2020"]


def test_keys_are_encrypted_when_there_is_a_passphrase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse")
    signing = init_repository(tmp_path / "repo", settings=SETTINGS, now=NOW)
    for pem in signing.keys.folder.iterdir():
        assert pem.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    publish(open_signing(signing.repo), "birds2020")

    monkeypatch.setenv(PASSPHRASE_VARIABLE, "battery staple")
    with pytest.raises(ConfigError, match="not the private key it should be") as caught:
        publish(open_signing(signing.repo), "birds2021")
    assert PASSPHRASE_VARIABLE in caught.value.hint
    monkeypatch.delenv(PASSPHRASE_VARIABLE)
    with pytest.raises(ConfigError, match="is encrypted"):
        publish(open_signing(signing.repo), "birds2021")
    assert names(client(signing.repo, tmp_path / "client")) == ["birds2020"]


def test_a_passphrase_does_not_shut_out_plain_keys(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE_VARIABLE, "correct horse")
    publish(open_signing(repo), "birds2021")


def test_the_key_of_another_repository_is_not_used(repo: Path, tmp_path: Path) -> None:
    other = init_repository(tmp_path / "other", settings=SETTINGS, now=NOW).keys.folder
    signing = open_signing(repo)
    (mine,), (theirs,) = signing.keys.folder.glob("targets-*"), other.glob("targets-*")
    shutil.copy(theirs, mine)
    with pytest.raises(ConfigError, match="not the private key it should be"):
        publish(signing, "birds2021")


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
def test_damaged_metadata_stops_the_publisher(name: str, repo: Path) -> None:
    (repo / "tuf/metadata" / name).write_bytes(b"{")
    with pytest.raises(TrustError, match=f"{name} of the repository is damaged"):
        publish(open_signing(repo), "birds2021")
    shutil.copy(repo / "tuf/metadata/1.root.json", repo / "tuf/metadata" / name)
    with pytest.raises(TrustError, match="got root"):
        publish(open_signing(repo), "birds2021")


def run_verb(*argv: str) -> ExitCode:
    parser = argparse.ArgumentParser()
    verbs = parser.add_subparsers(dest="verb")
    for module in (init, refresh, rotate_key):
        module.add_parser(verbs)
    args = parser.parse_args(argv)
    out = Output(args.verb, json=True)
    code: ExitCode = args.run(args, out)
    out.close(code)
    return code


def test_the_verbs_report_versions_expiries_and_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repo, keys = tmp_path / "repo", tmp_path / "vault"

    def summary(*argv: str) -> dict[str, object]:
        assert run_verb(*argv) == ExitCode.COMPLETE
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (printed["event"], printed["verb"]) == ("summary", argv[0])
        assert printed["fingerprint"] == open_signing(repo, keys).fingerprint
        assert set(printed["versions"]) == set(printed["expires"]) == set(ROLES)
        assert isinstance(printed, dict)
        return printed

    first = summary(
        *("init", str(repo), "--dataset", "birds", "--buckets", "10", "--digits", "1"),
        *("--keys", str(keys), "--root-keys", "3", "--threshold", "2", "--expiry", "snapshot=2y"),
    )
    assert first["versions"] == dict.fromkeys(ROLES, 1)
    settings = open_signing(repo, keys).settings
    assert (settings.layout, settings.expiry_days["snapshot"]) == (
        Layout(buckets=10, digits=1),
        730,
    )
    renewed = summary("refresh", str(repo), "--keys", str(keys), "--all")
    assert renewed["versions"] == dict.fromkeys(ROLES, 2)
    rotated = summary("rotate-key", str(repo), "snapshot", "--keys", str(keys))
    assert rotated["versions"] == {"root": 3, "targets": 2, "snapshot": 3, "timestamp": 3}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dataset", "no/slash"),
        ("--dataset", "birds", "--buckets", "0"),
        ("--dataset", "birds", "--digits", "2"),
        ("--dataset", "birds", "--expiry", "root=1h"),
        ("--dataset", "birds", "--threshold", "2"),
        ("--dataset", "birds", "--targets-threshold", "2"),
    ],
)
def test_init_refuses_what_cannot_be_before_it_writes(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        run_verb("init", str(tmp_path / "repo"), *arguments)
    assert caught.value.exit_code == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []
