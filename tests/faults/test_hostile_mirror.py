"""The attacks that TUF is there for, by a mirror, on our own command.

A tree that knows a state of the repository is upgraded from a mirror that lies about it: exit 6,
the mirror and its document are named, and tree and knowledge stay what they were.  With an honest
host beside it, the run ends complete and says whom it left.  That metadata may be endless or slow
is among the faults of hosts (test_hosts.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import MetaFile, Snapshot, Targets, Timestamp

from manifests.errors import ExitCode
from manifests.paths import PRIVATE_FOLDER
from server.commands.init import init_repository
from server.signing import Settings, Signing, open_signing
from tests.support.client import Run, bucketsync, contents
from tests.support.faultreport import Record
from tests.support.publisher import LAYOUT, Publisher
from tests.support.rawhost import Answer, Request, Script, raw_host
from tests.support.signatures import next_state, payload, sign

NOW = datetime.now(UTC)
METADATA = "tuf/metadata"
_FLAGS = ("--source", "http", "--retries", "2")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A repository with two releases, and a tree that has the first and knows of no other.

    ``old`` are the documents of the state that the tree knows, by name.
    """

    repo: Path
    tree: Path
    url: str
    old: Mapping[str, bytes]

    @property
    def signing(self) -> Signing:
        """The publisher's keys, in the attacker's hands."""
        return open_signing(self.repo)

    def document(self, name: str) -> bytes:
        """A document of the present state."""
        return (self.repo / METADATA / name).read_bytes()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("mirror")
    publisher = Publisher(folder)
    publisher.fill(range(1, 9))
    publisher.publish("birds1", "--no-torrents")
    tree = folder / "user"
    with raw_host(publisher.repo) as host:
        bucketsync("clone", host.url, tree, "--source", "http")
        old = {path.name: path.read_bytes() for path in (publisher.repo / METADATA).iterdir()}
        publisher.fill(range(10, 19))
        publisher.publish("birds2", "--no-torrents")
        yield World(repo=publisher.repo, tree=tree, url=host.url, old=old)


@pytest.fixture
def tree(world: World, tmp_path: Path) -> Path:
    """A tree of this test's own."""
    return Path(shutil.copytree(world.tree, tmp_path / "tree", symlinks=True))


def instead(documents: Mapping[str, bytes | None]) -> Script:
    """Serve these in the place of those of their path's end, None for 404."""

    def script(request: Request, answer: Answer) -> Answer:
        for name, data in documents.items():
            if request.path.endswith(name):
                return Answer(status=404) if data is None else Answer(body=data)
        return answer

    return script


def upgrade(world: World, tree: Path, script: Script, *flags: str) -> tuple[Run, str]:
    """Upgrade from the mirror that lies, and what its address was."""
    with raw_host(world.repo, script) as mirror:
        config = tree / PRIVATE_FOLDER / "config.toml"
        before = config.read_text()
        config.write_text(before.replace(world.url, mirror.url))
        run = bucketsync("upgrade", tree, *_FLAGS, *flags)
        config.write_text(config.read_text().replace(mirror.url, world.url))
        return run, mirror.url


Attack = Callable[[World, Path], Mapping[str, bytes | None]]


def roll_back(world: World, tree: Path) -> Mapping[str, bytes | None]:
    """A state that was true once, shown to who knows a later one."""
    bucketsync("upgrade", tree, *_FLAGS)
    return {"timestamp.json": world.old["timestamp.json"]}


def roll_the_snapshot_back(world: World, _: Path) -> Mapping[str, bytes | None]:
    timestamp = payload(world.signing, Timestamp)
    timestamp.version += 1
    timestamp.snapshot_meta = MetaFile(1)
    return {"timestamp.json": sign(world.signing, timestamp)}


def mix(world: World, _: Path) -> Mapping[str, bytes | None]:
    """Documents of two states, each true."""
    now = payload(world.signing, Snapshot).version
    return {f"{now}.snapshot.json": world.old[f"{now - 1}.snapshot.json"]}


def mix_targets(world: World, _: Path) -> Mapping[str, bytes | None]:
    now = payload(world.signing, Targets).version
    return {f"{now}.targets.json": world.old[f"{now - 1}.targets.json"]}


def freeze(world: World, _: Path) -> Mapping[str, bytes | None]:
    """What was shown for so long that nobody vouches for it any more."""
    timestamp = payload(world.signing, Timestamp)
    timestamp.version += 1
    timestamp.expires = NOW - timedelta(days=1)
    return {"timestamp.json": sign(world.signing, timestamp)}


def sign_with_another_role(world: World, _: Path) -> Mapping[str, bytes | None]:
    timestamp = payload(world.signing, Timestamp)
    timestamp.version += 1
    return {"timestamp.json": sign(world.signing, timestamp, "root")}


def be_another_publisher(_: World, tree: Path) -> Mapping[str, bytes | None]:
    """A repository of the same name, whole and in order, with keys of its own."""
    thief = _thief(tree.parent / "thief")
    folder = thief.repo / METADATA
    documents = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {f"/{name}": data for name, data in documents.items()}


def replace_the_root(_: World, tree: Path) -> Mapping[str, bytes | None]:
    """A next root that only its own keys sign."""
    thief = _thief(tree.parent / "thief")
    thief.rotate_key("root", now=NOW)
    return {"2.root.json": (thief.repo / METADATA / "2.root.json").read_bytes()}


def _thief(folder: Path) -> Signing:
    settings = Settings(dataset="pictures", layout=LAYOUT)
    signing = init_repository(folder, settings=settings, now=NOW)
    for number in range(4):
        signing.publish_targets({f"malware{number}.msgpack": (b"malware", {})}, now=NOW)
    return signing


def hand_out_other_software(world: World, _: Path) -> Mapping[str, bytes | None]:
    """As many bytes as were signed, and others."""
    data = _descriptor(world).read_bytes()
    return {_descriptor(world).name: data[::-1]}


def hand_out_more(world: World, _: Path) -> Mapping[str, bytes | None]:
    return {_descriptor(world).name: _descriptor(world).read_bytes() + b"x"}


def hand_out_less(world: World, _: Path) -> Mapping[str, bytes | None]:
    return {_descriptor(world).name: _descriptor(world).read_bytes()[:-1]}


def _descriptor(world: World) -> Path:
    (found,) = (world.repo / "tuf" / "targets").glob("*.birds2.msgpack")
    return found


R, N = ExitCode.REFUSED, ExitCode.NETWORK
ATTACKS: dict[str, tuple[Attack, ExitCode, str]] = {
    "rollback": (roll_back, R, r"timestamp.json is refused: its version does not fit"),
    "rollback of the snapshot": (roll_the_snapshot_back, R, "timestamp.json is refused: its vers"),
    "mix and match": (mix, R, "snapshot.json is refused: it is not the document"),
    "mix and match of targets": (
        mix_targets,
        R,
        "targets.json is refused: it is not the",
    ),
    "freeze": (freeze, R, "the timestamp metadata expired on"),
    "wrong key": (sign_with_another_role, R, "timestamp.json is refused: it is not signed by"),
    "another publisher": (be_another_publisher, R, "timestamp.json is refused: it is not signed"),
    "another root": (replace_the_root, R, "2.root.json is refused: it is not signed by enough"),
    "arbitrary software": (hand_out_other_software, R, "is not the target birds2 that was signed"),
    "a target too long": (hand_out_more, N, "more than the"),
    "a target too short": (hand_out_less, R, "is not the target birds2 that was signed"),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_an_attack_is_refused_and_changes_nothing(
    what: str, world: World, tree: Path, record: Record
) -> None:
    attack, code, says = ATTACKS[what]
    script = instead(attack(world, tree))
    before = contents(tree)
    run, url = upgrade(world, tree, script)
    assert run.code == code, run.text
    assert says in run.error
    assert url in run.error
    assert contents(tree) == before
    assert bucketsync("status", tree, "--quick")["files_missing"] == 0
    # What is true is still learned from who tells it.
    after = bucketsync("upgrade", tree, *_FLAGS)
    assert (after.code, after["release"]) == (ExitCode.COMPLETE, "birds2"), after.text
    record(f"hostile mirror: {what}", survived=1)


@pytest.mark.parametrize("what", ATTACKS)
def test_an_attack_is_left_for_an_honest_host(
    what: str, world: World, tree: Path, record: Record
) -> None:
    attack, _, says = ATTACKS[what]
    script = instead(attack(world, tree))
    run, url = upgrade(world, tree, script, "--mirror", world.url)
    assert (run.code, run["release"]) == (ExitCode.COMPLETE, "birds2"), run.text
    warnings = " ".join(event["message"] for event in run.named("warning"))
    assert says in warnings
    assert url in warnings
    record(f"hostile mirror: {what}", survived=1)


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    """One whose keys are stolen, but for that of root."""
    publisher = Publisher(tmp_path)
    publisher.fill(range(1, 9))
    publisher.publish("birds1", "--no-torrents")
    return publisher


def test_a_fast_forward_is_recovered_from(publisher: Publisher) -> None:
    """The thief signs the highest version; with a new key the publisher begins low again."""
    tree = publisher.root / "user"
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree, *_FLAGS).code == ExitCode.COMPLETE
        signing = open_signing(publisher.repo)
        timestamp = payload(signing, Timestamp)
        timestamp.version = 2**31
        host.script = instead({"timestamp.json": sign(signing, timestamp)})
        assert bucketsync("upgrade", tree, *_FLAGS).code == ExitCode.COMPLETE
        host.script = instead({})
        publisher.fill(range(10, 12))
        publisher.publish("birds2", "--no-torrents")
        stuck = bucketsync("upgrade", tree, *_FLAGS)
        assert stuck.code == ExitCode.REFUSED
        assert "its version does not fit" in stuck.error
        signing.rotate_key("timestamp", now=NOW)
        run = bucketsync("upgrade", tree, *_FLAGS)
    assert (run.code, run["release"]) == (ExitCode.COMPLETE, "birds2")
    assert contents(tree) == publisher.tree_files()


def test_even_stolen_keys_do_not_roll_targets_back(publisher: Publisher) -> None:
    tree = publisher.root / "user"
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree, *_FLAGS).code == ExitCode.COMPLETE
        signing = open_signing(publisher.repo)
        targets = payload(signing, Targets)
        targets.version = 0
        targets.targets.clear()
        host.script = instead(next_state(signing, targets))
        run = bucketsync("upgrade", tree, *_FLAGS)
        assert run.code == ExitCode.REFUSED
        assert "snapshot.json is refused: its version does not fit" in run.error
        host.script = instead({})
        publisher.fill(range(10, 12))
        publisher.publish("birds2", "--no-torrents")
        run = bucketsync("upgrade", tree, *_FLAGS)
    assert (run.code, run["release"]) == (ExitCode.COMPLETE, "birds2")
    assert contents(tree) == publisher.tree_files()
