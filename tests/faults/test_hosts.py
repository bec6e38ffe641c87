"""A real client, a real server, and between them a host with one fault of the catalogue.

A tree that holds a release is upgraded to the next one.  With a good host beside the bad one the
run ends complete; with the bad one alone it ends with the exit code of the contract, and names the
address and what is wrong with it.  Always: what becomes visible in the tree is right from its
first instant and stays, and memory and staging stay within bounds.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from manifests.columns import CHUNK_BYTES
from manifests.errors import ExitCode
from manifests.paths import PRIVATE_FOLDER
from tests.support.client import ROOT, bucketsync, contents
from tests.support.faultreport import Record
from tests.support.host import running_host
from tests.support.hostfaults import CATALOGUE, Fault, Kind, Laid
from tests.support.publisher import Publisher
from tests.support.rawhost import Answer, Request, Script, proxy, slow
from tests.support.watch import Watch, watching

_COMMAND = (
    sys.executable,
    "-P",
    "-c",
    "from syncclient.cli import script; script()",
)
# Longer than the slowest way of giving up.
_PATIENCE_S = 120
_LARGE_ID = 804
# The small files that the second release adds.
_SMALL_IDS = range(20, 60)
# What an honest run takes, and some more: seen were 72 MB with any fault and with none.
_MOST_MEMORY = 150 * 2**20
# The large file, and what a tree keeps of its own.
_MOST_STAGED = 3 * CHUNK_BYTES + 2**20
_SOURCE = {
    Kind.TRUST: "tuf/",
    Kind.OBJECTS: "objects/",
    Kind.PACKS: "packs/",
    Kind.LOOSE: "files/",
    Kind.LARGE: "files/",
}
Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Two releases, a server that has them, and a tree that has the first one."""

    port: int
    tree: Path
    first_url: str
    url: str
    old: Files
    new: Files


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("network")
    publisher = Publisher(folder)
    publisher.fill(range(1, 17), size_bytes=2000)
    publisher.publish("birds1", "--no-torrents")
    old = publisher.tree_files()
    tree = folder / "user"
    with running_host(publisher.repo) as host:
        first_url = host.url
        bucketsync("clone", first_url, tree, "--source", "http")
        publisher.fill(_SMALL_IDS, size_bytes=3000)
        path = publisher.place(_LARGE_ID)
        publisher.write(path, os.urandom(2 * CHUNK_BYTES + 12345))
        publisher.publish("birds2", "--no-torrents")
    with running_host(publisher.repo) as host:
        yield World(
            port=host.port,
            tree=tree,
            first_url=first_url,
            url=host.url,
            old=old,
            new=publisher.tree_files(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run that ended: code, events, text for people, and the most it took."""

    code: int
    events: list[dict[str, Any]]
    text: str
    peak_bytes: int
    staged_bytes: int

    @property
    def told(self) -> str:
        """What its events say went wrong."""
        wrong = [event for event in self.events if event["event"] in {"error", "failed"}]
        return " ".join(str(text) for event in wrong for text in event.values())


def run_upgrade(tree: Path, folder: Path, *flags: str) -> Ended:
    """Upgrade in a process of its own; its memory is measured, and what it stages."""
    words = ("upgrade", tree, "--json", "--source", "http", "--timeout", "2", "--retries", "2")
    out, err = folder / "stdout", folder / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [*_COMMAND, *map(str, words), *flags], cwd=ROOT, stdout=stdout, stderr=stderr
        )
        gauge = Gauge(process.pid, tree / PRIVATE_FOLDER)
        try:
            code = process.wait(_PATIENCE_S)
        finally:
            process.kill()
            process.wait()
            gauge.stop()
    return Ended(
        code=code,
        events=[json.loads(line) for line in out.read_text().splitlines()],
        text=err.read_text(),
        peak_bytes=gauge.memory_bytes,
        staged_bytes=gauge.disk_bytes,
    )


class Gauge(threading.Thread):
    """The most memory of a process and the most bytes in a folder, looked at all the time."""

    def __init__(self, pid: int, folder: Path) -> None:
        super().__init__()
        self.memory_bytes = self.disk_bytes = 0
        self._status = Path(f"/proc/{pid}/status")
        self._folder = folder
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Look until it is over."""
        while not self._over.wait(0.02):
            self._look()

    def stop(self) -> None:
        """Look a last time."""
        self._over.set()
        self.join()
        self._look()

    def _look(self) -> None:
        blocks = 0
        for folder, _, names in os.walk(self._folder):
            for name in names:
                with suppress(FileNotFoundError):
                    blocks += os.lstat(Path(folder, name)).st_blocks
        self.disk_bytes = max(self.disk_bytes, 512 * blocks)
        # Gone with the process, or as good as gone.
        with suppress(OSError, StopIteration):
            lines = self._status.read_text().splitlines()
            peak = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
            self.memory_bytes = max(self.memory_bytes, int(peak) * 1024)


def laid_on(kind: Kind, script: Script) -> Script:
    """The script for one kind of resource; loose files are asked for where there are no packs."""

    def chosen(request: Request, answer: Answer) -> Answer:
        if kind is Kind.LOOSE and request.path.startswith("packs/"):
            return Answer(status=404)
        if not request.path.startswith(_SOURCE[kind]):
            return answer
        large = request.path.endswith(f"/{_LARGE_ID}.dat")
        hit = large == (kind is Kind.LARGE) or kind not in {Kind.LOOSE, Kind.LARGE}
        return script(request, answer) if hit else answer

    return chosen


def ids_of(kind: Kind) -> range:
    """What a run asks for, so that nothing but the kind of resource decides how it ends."""
    return {
        Kind.PACKS: range(_SMALL_IDS.stop),
        Kind.LOOSE: range(_SMALL_IDS.stop),
        Kind.LARGE: range(_LARGE_ID, _LARGE_ID + 1),
    }.get(kind, range(_LARGE_ID + 1))


def only(kind: Kind, folder: Path) -> tuple[str, str]:
    """Flags that select these ids."""
    path = folder / "ids.txt"
    path.write_text("".join(f"{post_id}\n" for post_id in ids_of(kind) if post_id))
    return "--ids", str(path)


def wanted(kind: Kind) -> int:
    """How many new files a complete run brings."""
    return sum(post_id in ids_of(kind) for post_id in (*_SMALL_IDS, _LARGE_ID))


def make_tree(world: World, folder: Path, url: str) -> Path:
    """A copy of the tree, whose repository is at another address."""
    tree = Path(shutil.copytree(world.tree, folder / "tree", symlinks=True))
    config = tree / PRIVATE_FOLDER / "config.toml"
    text = config.read_text()
    assert world.first_url in text
    config.write_text(text.replace(world.first_url, url))
    return tree


@contextmanager
def watched(tree: Path) -> Iterator[Watch]:
    """Every folder that the two releases have, from before the run."""
    folders = [path for path in tree.rglob("*") if path.is_dir()]
    mine = tree / PRIVATE_FOLDER
    with watching(
        [tree, *(path for path in folders if mine not in [path, *path.parents])]
    ) as seen:
        yield seen


def check_tree(watch: Watch, tree: Path, world: World) -> int:
    """Nothing wrong was ever visible and nothing is lost: how many files are new.

    A file appeared in one step under its name, was not touched after, and is right: so it was
    right from its first instant.
    """
    assert {kind for kind, _ in watch.read()} <= {"moved here"}, watch.events
    names = [path for _, path in watch.events if path.name != PRIVATE_FOLDER]
    assert len(names) == len(set(names))
    found = contents(tree)
    assert found.items() >= world.old.items()
    assert found.items() <= world.new.items()
    return len(found) - len(world.old)


def check_bounds(ended: Ended) -> None:
    assert 0 < ended.peak_bytes < _MOST_MEMORY
    assert ended.staged_bytes < _MOST_STAGED


# Every fault on every kind of resource; of each fault one case is for every day.
CASES = [
    pytest.param(
        fault,
        kind,
        alone,
        id=f"{fault}-{kind.name.lower()}-{'alone' if alone else 'beside a good one'}",
        marks=()
        if place == number % len(fault.kinds) and alone == (number % 4 > 0)
        else pytest.mark.long,
    )
    for number, fault in enumerate(CATALOGUE)
    for place, kind in enumerate(fault.kinds)
    for alone in (False, True)
]


@pytest.mark.parametrize(("fault", "kind", "alone"), CASES)
def test_a_host_with_a_fault(  # noqa: PLR0913 (fixtures)
    fault: Fault,
    kind: Kind,
    alone: bool,  # noqa: FBT001 (a parameter of the test)
    world: World,
    tmp_path: Path,
    record: Record,
) -> None:
    with proxy(world.port) as elsewhere, proxy(world.port) as host:
        laid = Laid(honestly=host.honestly, elsewhere=elsewhere.url)
        host.script = laid_on(kind, fault.script(laid))
        tree = make_tree(world, tmp_path, host.url)
        flags = (*only(kind, tmp_path), *(() if alone else ("--mirror", world.url)))
        with watched(tree) as watch:
            ended = run_upgrade(tree, tmp_path, *flags)
            new = check_tree(watch, tree, world)
    survived = ended.code in (fault.ends[kind] if alone else {ExitCode.COMPLETE})
    record(f"host: {fault}", survived=int(survived), peak_bytes=ended.peak_bytes)
    assert survived, (ended.code, ended.text)
    check_bounds(ended)
    complete = new == wanted(kind)
    assert complete == (ended.code == ExitCode.COMPLETE), ended.text
    assert elsewhere.log == []
    if not complete:
        assert re.search(fault.says, ended.told, re.DOTALL), ended.told
        assert host.url in ended.told, ended.told


def test_a_redirect_that_is_allowed_is_followed(world: World, tmp_path: Path) -> None:
    def lead_away(request: Request, _: Answer) -> Answer:
        return Answer(status=307, headers={"Location": f"{elsewhere.url}/{request.path}"})

    with proxy(world.port) as elsewhere, proxy(world.port, lead_away) as host:
        tree = make_tree(world, tmp_path, host.url)
        ended = run_upgrade(tree, tmp_path, "--allow-redirect", "127.0.0.1")
        assert ended.code == ExitCode.COMPLETE, ended.text
        assert {asked.path for asked in elsewhere.log} == {asked.path for asked in host.log}
    assert contents(tree) == world.new


def test_faults_that_pass_are_waited_for(world: World, tmp_path: Path) -> None:
    """Every answer is bad once, each in another way, and there is no other host."""
    with proxy(world.port) as host:
        laid = Laid(honestly=host.honestly, elsewhere="")
        passing = ("cut", "busy-429", "hang-up", "stall", "length-long", "broken-500")
        scripts = [fault.script(laid) for fault in CATALOGUE if fault.name in passing]
        chosen = itertools.cycle(scripts)
        seen: set[str] = set()

        def once(request: Request, answer: Answer) -> Answer:
            if request.path in seen:
                return answer
            seen.add(request.path)
            return next(chosen)(request, answer)

        host.script = once
        tree = make_tree(world, tmp_path, host.url)
        ended = run_upgrade(tree, tmp_path, "--retries", "20")
    assert ended.code == ExitCode.COMPLETE, ended.text
    assert contents(tree) == world.new


@pytest.mark.long
def test_a_slow_line_is_no_attack(world: World, tmp_path: Path) -> None:
    """About 20 kB/s over all connections, and longer than any timeout."""
    with proxy(world.port, slow(5000)) as host:
        tree = make_tree(world, tmp_path, host.url)
        ended = run_upgrade(tree, tmp_path, *only(Kind.PACKS, tmp_path))
    assert ended.code == ExitCode.COMPLETE, ended.text
    assert len(contents(tree)) == len(world.old) + wanted(Kind.PACKS)
