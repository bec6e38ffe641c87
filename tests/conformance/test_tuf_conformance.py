"""Our client at the command line of TUF's conformance suite, through the cases of that suite.

The suite itself drives ``tuf_adapter.py`` from outside; these are the same situations, made by a
repository of our own and asked over HTTP, so that a change of trust.py which the suite would
refuse fails here first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from tests.conformance import tuf_adapter
from tests.support.needs import needs, program
from tests.support.rawhost import RawHost, raw_host
from tests.support.tufrepo import TOP, TufRepository, in_days

ROOT = Path(__file__).parents[2]
HAPPY = {Root.type: 1, Targets.type: 1, Snapshot.type: 1, Timestamp.type: 1}


class Client:
    """The adapter with folders of its own, and the host that serves the repository to it."""

    def __init__(self, folder: Path, repo: TufRepository, host: RawHost) -> None:
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self._root, self._repo, self._host = folder / "root.json", repo, host
        self.metadata.mkdir()
        self.targets.mkdir()

    def _words(self, *words: str) -> list[str]:
        return ["--metadata-dir", str(self.metadata), *words]

    def init(self, root: bytes | None = None) -> int:
        self._root.write_bytes(root or self._repo.published[Root.type][0])
        return tuf_adapter.main(self._words("init", str(self._root)))

    def _online(self, *words: str) -> list[str]:
        return self._words("--metadata-url", f"{self._host.url}/metadata/", *words)

    def refresh(self) -> int:
        return tuf_adapter.main(self._online("refresh"))

    def _download(self, name: str) -> list[str]:
        base = ("--target-base-url", f"{self._host.url}/targets/")
        return self._online(
            *("--target-name", name, *base, "--target-dir", str(self.targets)), "download"
        )

    def download(self, name: str) -> int:
        return tuf_adapter.main(self._download(name))

    def at(self, date: datetime, name: str = "") -> int:
        """Refresh, or download a target, as a process whose clock shows another date."""
        words = self._download(name) if name else self._online("refresh")
        adapter = str(ROOT / "tests" / "conformance" / "tuf_adapter.py")
        return subprocess.run(
            [program("faketime"), f"{date:%Y-%m-%d %H:%M:%S}", sys.executable, adapter, *words],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TZ": "UTC"},
            check=False,
        ).returncode

    @property
    def trusted(self) -> dict[str, int]:
        """The versions of what is trusted, by role."""
        return {
            path.name.removesuffix(".json"): Metadata[Any].from_file(str(path)).signed.version
            for path in self.metadata.glob("*.json")
        }

    def bytes_of(self, role: str) -> bytes:
        return (self.metadata / f"{role}.json").read_bytes()

    @property
    def asked(self) -> list[str]:
        """Paths below ``metadata/`` in the order in which they were asked for."""
        return [e.path.removeprefix("metadata/") for e in self._host.asked("metadata/")]

    @property
    def downloaded(self) -> list[bytes]:
        return sorted(path.read_bytes() for path in self.targets.rglob("*") if path.is_file())


@pytest.fixture
def repo() -> TufRepository:
    return TufRepository()


@pytest.fixture
def client(tmp_path: Path, repo: TufRepository) -> Iterator[Client]:
    with raw_host(repo.content) as host:
        yield Client(tmp_path, repo, host)


@pytest.fixture
def begun(client: Client) -> Client:
    """A client that has seen the first state."""
    assert (client.init(), client.refresh()) == (0, 0)
    return client


# --------------------------------------------------------------------------- init, refresh


def test_init_asks_for_nothing_and_refresh_for_what_is_new(client: Client) -> None:
    assert client.init() == 0
    assert (client.asked, client.trusted) == ([], {Root.type: 1})
    assert client.refresh() == 0
    assert client.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert client.trusted == HAPPY
    assert client.refresh() == 0
    assert client.asked[4:] == ["2.root.json", "timestamp.json"]


def test_metadata_are_kept_to_the_byte(repo: TufRepository, begun: Client) -> None:
    for role in HAPPY:
        assert begun.bytes_of(role) == repo.published[role][-1]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.replace(b'"version":1', b'"version":2'),
        lambda data: data.replace(b',"version":1', b""),
        lambda _: b"{}",
    ],
    ids=["signed differently", "no version", "no metadata"],
)
def test_a_wrong_first_root_is_never_used(
    spoil: Callable[[bytes], bytes], repo: TufRepository, client: Client
) -> None:
    root = repo.published[Root.type][0]
    assert spoil(root) != root
    client.init(spoil(root))
    assert client.refresh() == 1
    assert client.asked == []


def test_a_download_refreshes_first(client: Client) -> None:
    assert (client.init(), client.download("none")) == (0, 1)
    assert client.trusted == HAPPY
    assert client.downloaded == []


def test_unknown_fields_are_signed_like_others(repo: TufRepository, begun: Client) -> None:
    repo.root.unrecognized_fields["later"] = {"a": 1}
    repo.root.roles[Root.type].unrecognized_fields["later"] = "x"
    repo.root.keys[repo.root.roles[Root.type].keyids[0]].unrecognized_fields["hash"] = ["md5"]
    repo.publish(Root.type)
    assert begun.refresh() == 0
    assert begun.trusted[Root.type] == 2


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("with_hashes", [True, False])
def test_a_repository_without_consistent_snapshots_is_read(
    tmp_path: Path, *, consistent: bool, with_hashes: bool
) -> None:
    repo = TufRepository(consistent=consistent)
    repo.with_hashes = with_hashes
    with raw_host(repo.content) as host:
        client = Client(tmp_path, repo, host)
        assert (client.init(), client.refresh()) == (0, 0)
        for number in range(3):
            repo.put("a/b.txt", b"%d" % number)
            repo.publish(*TOP)
            assert client.download("a/b.txt") == 0
            assert client.downloaded == [b"%d" % number]
        if not consistent:
            assert set(client.asked[1:4]) == {"timestamp.json", "snapshot.json", "targets.json"}


@pytest.mark.parametrize("key", ["ed25519", "ecdsa", "rsa"])
def test_keys_of_each_type_sign(key: str, tmp_path: Path) -> None:
    repo = TufRepository(key=key)
    with raw_host(repo.content) as host:
        client = Client(tmp_path, repo, host)
        repo.rotate(Root.type)
        repo.signers[Root.type].append(repo.add_key(Root.type))
        assert client.init() == 0
        assert client.refresh() == 0
        assert client.trusted == HAPPY


# --------------------------------------------------------------------------- rollback, freeze


def test_a_timestamp_is_not_rolled_back(repo: TufRepository, begun: Client) -> None:
    repo.publish(Timestamp.type)
    assert begun.refresh() == 0
    repo.timestamp.version = 1
    repo.publish(Timestamp.type, bump=False)
    assert begun.refresh() == 1
    assert begun.trusted[Timestamp.type] == 2


@pytest.mark.parametrize("with_hashes", [True, False])
def test_a_snapshot_is_not_rolled_back(
    repo: TufRepository, client: Client, *, with_hashes: bool
) -> None:
    repo.with_hashes = with_hashes
    repo.publish(Snapshot.type, Timestamp.type)
    assert (client.init(), client.refresh()) == (0, 0)
    repo.snapshot.version = 1
    repo.publish(Snapshot.type, bump=False)
    repo.publish(Timestamp.type)
    assert client.refresh() == 1
    assert (client.trusted[Timestamp.type], client.trusted[Snapshot.type]) == (2, 2)
    assert client.asked[-1] == "timestamp.json"


@pytest.mark.parametrize("with_hashes", [True, False])
def test_targets_are_not_rolled_back(
    repo: TufRepository, client: Client, *, with_hashes: bool
) -> None:
    repo.with_hashes = with_hashes
    repo.publish(*TOP)
    assert (client.init(), client.refresh()) == (0, 0)
    repo.targets.version = 1
    repo.publish(Targets.type, bump=False)
    repo.publish(Snapshot.type, Timestamp.type)
    assert client.refresh() == 1
    assert (client.trusted[Snapshot.type], client.trusted[Targets.type]) == (2, 2)


def test_a_timestamp_of_the_same_version_is_not_taken(repo: TufRepository, begun: Client) -> None:
    before = begun.bytes_of(Timestamp.type)
    repo.timestamp.snapshot_meta.version = 100
    repo.publish(Timestamp.type, bump=False)
    assert begun.refresh() == 0
    assert begun.bytes_of(Timestamp.type) == before


@pytest.mark.parametrize("role", [Snapshot.type, Targets.type])
def test_a_version_other_than_named_is_refused(
    role: str, repo: TufRepository, begun: Client
) -> None:
    described = {Snapshot.type: repo.timestamp.snapshot_meta}.get(
        role, repo.snapshot.meta["targets.json"]
    )
    described.version = 2
    if role == Targets.type:
        repo.publish(Snapshot.type)
    repo.publish(Timestamp.type)
    repo.published[role].append(repo.published[role][0])
    assert begun.refresh() == 1
    assert begun.trusted[role] == 1


def test_a_document_with_another_hash_than_named_is_refused(
    repo: TufRepository, client: Client
) -> None:
    repo.with_hashes = True
    repo.publish(*TOP)
    assert (client.init(), client.refresh()) == (0, 0)
    repo.publish(*TOP)
    repo.targets.unrecognized_fields["x"] = 1
    repo.published[Targets.type][-1] = repo.signed(Targets.type)
    assert client.refresh() == 1
    assert client.trusted[Targets.type] == 2


def test_a_document_longer_than_named_is_refused(repo: TufRepository, client: Client) -> None:
    repo.with_hashes = True
    repo.publish(*TOP)
    repo.published[Snapshot.type][-1] += b" "
    assert (client.init(), client.refresh()) == (0, 1)
    assert Snapshot.type not in client.trusted


@pytest.mark.parametrize("role", [Timestamp.type, Snapshot.type, Targets.type])
def test_a_fast_forward_is_recovered_from_with_new_keys(
    role: str, repo: TufRepository, client: Client
) -> None:
    """Whoever had the keys made the version huge; the publisher rotates and begins low again."""
    repo.roles[role].signed.version = 99_998
    repo.publish(*TOP[TOP.index(role) :])
    assert (client.init(), client.refresh()) == (0, 0)
    assert client.trusted[role] == 99_999
    for rotated in (Snapshot.type, Timestamp.type):
        repo.rotate(rotated)
    repo.publish(Root.type)
    repo.roles[role].signed.version = 0
    repo.publish(*TOP)
    assert client.refresh() == 0
    assert client.trusted[role] == 1


# --------------------------------------------------------------------------- expiry


@pytest.mark.parametrize("role", [Root.type, *TOP])
def test_what_expired_is_not_used(role: str, repo: TufRepository, begun: Client) -> None:
    repo.roles[role].signed.expires = in_days(-1)
    repo.publish(*([Root.type] if role == Root.type else []), *TOP)
    assert begun.refresh() == 1
    # A root is kept though it has expired (5.3.10): its successor may be signed by it.
    assert begun.trusted[role] == (2 if role == Root.type else 1)
    assert begun.trusted[Targets.type] == 1


@needs("faketime")
def test_what_expired_here_still_leads_to_what_is_new(repo: TufRepository, client: Client) -> None:
    repo.timestamp.expires = in_days(7)
    repo.publish(Timestamp.type)
    assert (client.init(), client.refresh()) == (0, 0)
    repo.timestamp.expires = in_days(21)
    repo.publish(*TOP)
    assert client.at(in_days(18)) == 0
    assert client.trusted[Targets.type] == 2
    assert client.at(in_days(22)) == 1


@needs("faketime")
def test_a_delegated_role_expires_too(repo: TufRepository, client: Client) -> None:
    repo.delegate("some", ["some/*"])
    repo.roles["some"].signed.expires = in_days(7)
    for name in ("first", "second"):
        repo.put(f"some/{name}", name.encode(), "some")
    repo.publish("some", *TOP)
    assert (client.init(), client.download("some/first")) == (0, 0)
    assert client.at(in_days(18), "some/second") == 1
    repo.roles["some"].signed.expires = in_days(21)
    repo.publish("some", Snapshot.type, Timestamp.type)
    assert client.at(in_days(18), "some/second") == 0
    assert client.downloaded == [b"first", b"second"]


def test_a_delegated_role_that_expired_before_it_was_seen(
    repo: TufRepository, begun: Client
) -> None:
    repo.delegate("some", ["some/*"])
    repo.roles["some"].signed.expires = in_days(-1)
    repo.put("some/x", b"x", "some")
    repo.publish("some", *TOP)
    assert (begun.refresh(), begun.download("some/x")) == (0, 1)
    assert begun.trusted.keys() == HAPPY.keys()
    assert begun.downloaded == []


# --------------------------------------------------------------------------- keys

KEYS = [CryptoSigner.generate_ed25519() for _ in range(10)]
# Versions of root: keys, threshold, who signs; then how a client that pinned the first one ends.
ROOTS: dict[str, tuple[list[tuple[str, int, str]], int]] = {
    "a new key": ([("1", 1, "1"), ("2", 1, "21"), ("2", 1, "2")], 0),
    "signatures of nobody": ([("1", 1, "314"), ("2", 1, "3214"), ("2", 1, "324")], 0),
    "three of five": ([("01234", 3, "024"), ("01234", 3, "041"), ("01234", 3, "013")], 0),
    "one of five is new": ([("01234", 3, "024"), ("01345", 3, "041")], 0),
    "with a step between": ([("01234", 3, "024"), ("01345", 3, "0245"), ("01345", 3, "045")], 0),
    "all are new": ([("01234", 3, "024"), ("56789", 3, "024567"), ("56789", 3, "567")], 0),
    "more must sign": ([("123", 1, "1"), ("123", 2, "12")], 0),
    "fewer must sign": ([("123", 2, "12"), ("123", 1, "12"), ("123", 1, "1")], 0),
    "not by the old key": ([("1", 1, "1"), ("2", 1, "234")], 1),
    "not by the new key": ([("1", 1, "1"), ("2", 1, "134")], 1),
    "not by enough new keys": ([("01234", 3, "024"), ("01345", 3, "024")], 1),
    "not by enough old keys": ([("01234", 3, "024"), ("01345", 3, "045")], 1),
    "not by as many as now must": ([("123", 1, "1"), ("123", 2, "2")], 1),
    "not by as many as had to": ([("123", 2, "12"), ("123", 1, "1")], 1),
}


def chosen(numbers: str) -> list[CryptoSigner]:
    return [KEYS[int(number)] for number in numbers]


@pytest.mark.parametrize("what", ROOTS)
def test_keys_of_root_are_rotated(what: str, repo: TufRepository, client: Client) -> None:
    versions, code = ROOTS[what]
    repo.root.version = 0
    repo.published[Root.type].clear()
    for keys, need, signing in versions:
        repo.set_keys(Root.type, chosen(keys), chosen(signing), need)
        repo.publish(Root.type)
    assert (client.init(), client.refresh()) == (0, code)
    assert client.bytes_of(Root.type) == repo.published[Root.type][-1 - code]


@pytest.mark.parametrize("role", TOP)
@pytest.mark.parametrize(
    ("keys", "need", "signing", "code"),
    [
        ("2", 1, "2", 0),
        ("1", 1, "314", 0),
        ("2", 1, "134", 1),
        ("01345", 3, "024", 1),
        ("01345", 3, "04", 1),
        ("01234", 3, "024", 0),
        ("01234", 3, "4321", 0),
    ],
)
def test_keys_of_other_roles_are_rotated(  # noqa: PLR0913 (a table)
    role: str, keys: str, need: int, signing: str, code: int, repo: TufRepository, begun: Client
) -> None:
    repo.set_keys(role, chosen(keys), chosen(signing), need)
    repo.publish(Root.type, *TOP)
    assert begun.refresh() == code
    assert begun.trusted[Root.type] == 2
    assert begun.trusted[role] == 2 - code


def test_one_key_under_several_names_counts_once(repo: TufRepository, begun: Client) -> None:
    signer = repo.signers[Snapshot.type][0]
    for _ in range(9):
        repo.root.add_key(signer.public_key, Snapshot.type)
    repo.root.roles[Snapshot.type].threshold = 2
    repo.signers[Snapshot.type] *= 2
    repo.publish(Root.type, *TOP)
    assert begun.refresh() == 1
    assert begun.trusted[Snapshot.type] == 1


def test_more_signatures_than_keys_can_be_asked_for(repo: TufRepository, begun: Client) -> None:
    for _ in range(4):
        repo.add_key(Snapshot.type)
    repo.root.roles[Snapshot.type].threshold = 6
    repo.publish(Root.type, *TOP)
    assert begun.refresh() == 1
    assert (begun.trusted[Root.type], begun.trusted[Snapshot.type]) == (2, 1)


def test_a_hundred_roots_are_walked(repo: TufRepository, begun: Client) -> None:
    for _ in range(100):
        repo.publish(Root.type)
    assert begun.refresh() == 0
    assert begun.trusted[Root.type] == 101


# --------------------------------------------------------------------------- delegations


@pytest.mark.parametrize("role", ["?", "#", "/role", "../role", "a b", "%2e", "ü"])
def test_a_role_may_have_any_name(role: str, repo: TufRepository, begun: Client) -> None:
    repo.delegate(role, ["*"])
    repo.publish(role, *TOP)
    assert begun.download("none") == 1
    targets = [exchange.request.target for exchange in begun._host.log]
    assert f"/metadata/1.{quote(role, '')}.json" in targets
    assert len(begun.trusted) == 5
    assert {path.parent for path in begun.metadata.glob("*.json")} == {begun.metadata}


Edge = tuple[str, str, str, bool]


def edges(*pairs: tuple[str, str]) -> list[Edge]:
    """Delegations of every path, each from the first to the second."""
    return [(parent, child, "*", False) for parent, child in pairs]


GRAPHS: dict[str, tuple[list[Edge], str]] = {
    "one": (edges(("targets", "A")), "A"),
    "two": (edges(("targets", "A"), ("targets", "B")), "AB"),
    "depth first": (
        [
            (p, c, "*", False)
            for p, c in [("targets", "A"), ("targets", "B"), ("A", "C"), ("A", "D")]
        ],
        "ACDB",
    ),
    "an end": (
        [
            ("targets", "A", "*", False),
            ("targets", "B", "*", False),
            ("A", "C", "*", True),
            ("A", "D", "*", False),
        ],
        "AC",
    ),
    "paths that do not match": (
        [("targets", "A", "*.py", False), ("targets", "B", "*", False), ("A", "C", "*", False)],
        "B",
    ),
    "a ring": (
        edges(("targets", "A"), ("A", "B"), ("B", "C"), ("C", "A")),
        "ABC",
    ),
    "two that lead to one": (
        [
            (p, c, "*", False)
            for p, c in [("targets", "A"), ("targets", "B"), ("A", "C"), ("B", "C")]
        ],
        "ACB",
    ),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_roles_are_searched_in_order(what: str, repo: TufRepository, client: Client) -> None:
    delegations, order = GRAPHS[what]
    for parent, child, path, final in delegations:
        repo.delegate(child, [path], parent, final=final)
    repo.publish(*sorted(set(repo.roles) - {Root.type, *TOP}), *TOP)
    assert (client.init(), client.download("none")) == (0, 1)
    assert client.asked[4:] == [f"1.{role}.json" for role in order]


@pytest.mark.parametrize(
    ("name", "code"),
    [("x/one", 0), ("y/two.zip", 0), ("y/two.txt", 1), ("z/other", 1), ("deep/a/b/c.txt", 0)],
)
def test_a_target_is_found_where_all_delegate_it(
    name: str, code: int, repo: TufRepository, client: Client
) -> None:
    repo.delegate("A", ["x/*", "y/*"])
    repo.delegate("B", ["y/*.zip"], "A")
    repo.put("x/one", b"one", "A")
    for path in ("y/two.zip", "y/two.txt", "z/other"):
        repo.put(path, path.encode(), "B")
    repo.put("deep/a/b/c.txt", b"deep")
    repo.publish("A", "B", *TOP)
    assert (client.init(), client.download(name)) == (0, code)
    assert client.downloaded == ([] if code else [repo.artifacts[name]])


def test_a_target_is_found_in_its_bin(repo: TufRepository, client: Client) -> None:
    bins = repo.delegate_to_bins(3, "bin")
    delegations = repo.targets.delegations
    assert delegations is not None
    assert delegations.succinct_roles is not None
    (right,) = [name for name, _ in delegations.get_roles_for_target("some/file.txt")]
    repo.put("some/file.txt", b"found", right)
    repo.publish(*bins, *TOP)
    assert (client.init(), client.download("some/file.txt")) == (0, 0)
    assert client.downloaded == [b"found"]
    assert client.asked[4:] == [f"1.{right}.json"]


def test_a_cached_role_is_held_to_the_keys_of_now(repo: TufRepository, client: Client) -> None:
    """It was signed by a key that its delegator has taken away since."""
    repo.delegate("A", ["*"])
    repo.put("x", b"x", "A")
    repo.publish("A", *TOP)
    assert (client.init(), client.download("x")) == (0, 0)
    (path,) = client.targets.iterdir()
    path.unlink()
    assert repo.targets.delegations is not None
    assert repo.targets.delegations.roles is not None
    repo.targets.delegations.roles["A"].keyids.clear()
    repo.targets.add_key(KEYS[0].public_key, "A")
    repo.publish(*TOP)
    assert client.download("x") == 1
    assert client.downloaded == []


# --------------------------------------------------------------------------- targets


def test_a_target_that_was_swapped_is_refused(repo: TufRepository, begun: Client) -> None:
    for name in ("a.txt", "b.txt"):
        repo.put(name, name.encode())
    repo.publish(*TOP)
    assert begun.download("a.txt") == 0
    repo.artifacts |= {"a.txt": b"malware", "b.txt": b"malware"}
    begun.download("a.txt")
    assert begun.download("b.txt") == 1
    repo.artifacts["b.txt"] = b"b.txt and more"
    assert begun.download("b.txt") == 1
    assert begun.downloaded == [b"a.txt"]


def test_a_target_that_is_here_is_not_fetched_again(repo: TufRepository, begun: Client) -> None:
    repo.put("a.txt", b"a")
    repo.publish(*TOP)
    assert (begun.download("a.txt"), begun.download("a.txt")) == (0, 0)
    assert len(begun._host.asked("targets/")) == 1


@pytest.mark.parametrize("name", ["a b.txt", "x/../y.txt", "/abs.txt", "q?x=1", "h#x", "ü/ñ.txt"])
def test_a_target_may_have_any_name_and_stays_in_its_folder(
    name: str, repo: TufRepository, begun: Client
) -> None:
    repo.put(name, b"data")
    repo.publish(*TOP)
    begun.download(name)
    assert {path.parent for path in begun.targets.rglob("*")} <= {begun.targets}
    assert sorted(path.name for path in begun.targets.parent.iterdir()) == [
        "metadata",
        "root.json",
        "targets",
    ]
