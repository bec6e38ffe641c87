"""The plug is pulled while the client or a publish works: what was not synced is gone.

Real disks (ext4 on a loop device), whose file system is shut down without a flush, and mounted
anew as by another boot of the machine.  The kinds differ in what a name may stand for afterwards:
ext4's defaults; data that is allocated late, so that a renamed file may be empty; and data written
back whenever, so that a file of the right size and time may hold zeros.  After it no file is
believed that is not right, and the same command completes.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from manifests.errors import ManifestError
from manifests.model import Descriptor
from manifests.paths import PRIVATE_FOLDER
from tests.support.client import Process, Run, contents, started
from tests.support.faultreport import Record
from tests.support.mounts import Disk, ext4, in_boot
from tests.support.publisher import Publisher as Maker
from tests.support.rawhost import RawHost, raw_host, repository_content, slow
from tests.support.releases import Publisher
from tests.support.survival import JOBS, Job, publish_two, wait_until_gone

pytestmark = pytest.mark.long

DISK_BYTES = 256 * 2**20
DISKS = {
    "defaults": "commit=1",
    "allocated late": "data=writeback,noauto_da_alloc,commit=1",
    "written back late": "data=writeback,nodelalloc,commit=1",
}
CUTS = 6
PACE_BYTES_S = 2_000_000


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return publish_two(tmp_path_factory.mktemp("publisher"))


@pytest.fixture
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(repository_content(publisher.repo)) as running:
        yield running


@pytest.fixture(params=list(DISKS.values()), ids=list(DISKS))
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    with ext4(tmp_path / "disk", size_bytes=DISK_BYTES, options=request.param) as made:
        yield made


def run_in(disk: Disk, *words: str) -> Run:
    """A verb in the disk's boot of the machine."""
    with started(*words, within=lambda command: in_boot(disk, *command)) as process:
        return process.finish()


def wait_for(process: Process, host: RawHost, sent_bytes: int) -> None:
    """Return when the host has sent so much, or the process has ended."""
    while host.sent_bytes < sent_bytes:
        with suppress(subprocess.TimeoutExpired):
            process.wait_for(0.02)
            return


def cut_power(
    job: Job, disk: Disk, host: RawHost, chance: random.Random, *, step_bytes: int
) -> None:
    """Run the verb, and cut the power at some instant of it, often just after a commit."""
    with started(*job.words, within=lambda command: in_boot(disk, *command)) as process:
        wait_for(process, host, host.sent_bytes + chance.randrange(step_bytes))
        with suppress(subprocess.TimeoutExpired):
            process.wait_for(chance.uniform(0, 0.1))
        if chance.random() < 0.7:
            disk.commit_names()
        disk.lose_power()
        workers = process.children()
        process.kill_all()
        process.wait()
        wait_until_gone(workers)
    disk.start_again()


def believed_wrongly(job: Job, disk: Disk) -> int:
    """Files that ``status`` takes for right and that are not."""
    done = run_in(disk, "status", str(job.folder), "--offline")
    return max(0, done["files_ok"] - len(job.finished())) if done.code in {0, 3, 4} else 0


def torn_documents(tree: Path) -> list[Path]:
    """Settings, descriptors and signed metadata that are there and cannot be read."""
    readers: dict[str, Callable[[bytes], object]] = {
        "config.toml": lambda data: tomllib.loads(data.decode()),
        "tuf/**/*.json": json.loads,
        "releases/*.msgpack": Descriptor.decode,
    }
    torn = []
    for pattern, read in readers.items():
        for path in (tree / PRIVATE_FOLDER).glob(pattern):
            try:
                read(path.read_bytes())
            except (ValueError, ManifestError):
                torn.append(path)
    return torn


@pytest.mark.parametrize("verb", JOBS)
def test_no_file_is_believed_that_power_took(
    publisher: Publisher, host: RawHost, disk: Disk, record: Record, verb: str
) -> None:
    chance = random.Random(f"{verb} {disk.options}")  # noqa: S311 (instants)
    job = JOBS[verb](publisher, host.url, disk.folder)
    disk.unmount()
    disk.mount()
    wanted = sum(len(data) for path, data in job.after.items() if job.before.get(path) != data)
    host.script = slow(PACE_BYTES_S)
    torn = wrong = 0
    for cut in range(CUTS):
        cut_power(job, disk, host, chance, step_bytes=wanted // CUTS)
        torn += len(job.wrong())
        assert torn_documents(job.folder) == []
        wrong += believed_wrongly(job, disk) if cut % 2 else 0
    host.script = lambda _, answer: answer
    done = run_in(disk, *job.words)
    found = contents(job.folder)
    wrong += sum(found.get(path) != data for path, data in job.after.items())
    record(
        f"power loss: {verb}",
        tried=CUTS,
        survived=CUTS * (done.code == 0),
        lost=len(job.lost()),
        wrong=wrong,
    )
    assert (done.code, wrong) == (0, 0), done.text
    # Where bytes are written back late, power takes some: else this test would show nothing.
    assert torn or "nodelalloc" not in disk.options
    job.check_complete()
    assert run_in(disk, "verify", str(job.folder)).code == 0


@pytest.mark.parametrize("verb", ["clone", "upgrade"])
def test_what_a_finished_run_recorded_is_not_believed_after_power_was_lost(
    publisher: Publisher, host: RawHost, disk: Disk, record: Record, verb: str
) -> None:
    """Its state is on the disk, synced when it was closed; the bytes of its files are not."""
    job = JOBS[verb](publisher, host.url, disk.folder)
    disk.unmount()
    disk.mount()
    assert run_in(disk, *job.words).code == 0
    disk.commit_names()
    disk.lose_power()
    disk.start_again()
    wrong, torn = believed_wrongly(job, disk), job.wrong()
    done = run_in(disk, *job.words)
    record(f"power loss: after {verb}", survived=done.code == 0, lost=len(job.lost()), wrong=wrong)
    assert torn or "nodelalloc" not in disk.options
    assert (done.code, wrong) == (0, 0), done.text
    job.check_complete()


# --------------------------------------------------------------------------- publishing

_DATES = {"y0": "2020-06-01", "y1": "2021-06-01", "y2": "2022-06-01"}


def _newest(repo: Path, role: str) -> int:
    return len(list(repo.glob(f"tuf/metadata/*.{role}.json")))


def _timestamp(repo: Path) -> int:
    return (repo / "tuf/metadata/timestamp.json").stat().st_ino


# When the power is cut: at the first change of what is named, and a moment later.
INSTANTS: dict[str, Callable[[Path], object]] = {
    "while files are made": lambda repo: (repo / "files/.tmp").exists(),
    "when the layer is there": lambda repo: (repo / "files/y1/original").exists(),
    "when the descriptor is there": lambda repo: len(list(repo.glob("tuf/targets/*"))),
    "when targets are signed": lambda repo: _newest(repo, "targets"),
    "when the snapshot is signed": lambda repo: _newest(repo, "snapshot"),
    "when the timestamp is signed": _timestamp,
    "when it has ended": lambda _: 0,
}


@pytest.fixture
def publishing(disk: Disk, tmp_path: Path) -> tuple[Maker, Maker]:
    """A publisher on the disk, with one release and a tree that has moved on; and its twin."""
    makers = Maker(disk.folder / "publisher"), Maker(tmp_path / "undisturbed")
    for maker in makers:
        maker.fill(range(1, 121), size_bytes=6000)
        maker.publish("y0", "--date", _DATES["y0"])
        maker.fill(range(121, 181), size_bytes=6000)
        for number in range(1, 40, 3):
            maker.write(maker.place(number), f"changed {number}".encode() * 300)
        maker.place(50).unlink()
        maker.write(maker.tree / "README", b"second")
    disk.unmount()
    disk.mount()
    return makers


def end_of(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end: the exit code."""
    process.communicate()
    return process.returncode


def publish_until(
    maker: Maker, disk: Disk, instant: str, chance: random.Random, flags: tuple[str, ...]
) -> None:
    """Publish, and cut the power at an instant of it."""
    watched = INSTANTS[instant]
    before = watched(maker.repo)
    process = maker.start("y1", *flags, within=lambda words: in_boot(disk, *words))
    while watched(maker.repo) == before and process.poll() is None:
        os.sched_yield()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=chance.uniform(0, 0.02))
    if chance.random() < 0.7:
        disk.commit_names()
    disk.lose_power()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    disk.start_again()


@pytest.mark.parametrize("link", ["copy", "hard"])
def test_a_publish_that_lost_power_serves_the_old_release_or_the_new_one(
    publishing: tuple[Maker, Maker], disk: Disk, record: Record, link: str
) -> None:
    maker, undisturbed = publishing
    chance = random.Random(f"{link} {disk.options}")  # noqa: S311 (instants)
    flags = ("--date", _DATES["y1"], "--jobs", "1", "--link", link, "--materialize-packs")
    old = maker.releases()
    files = maker.release_files("y0")
    for instant in INSTANTS:
        publish_until(maker, disk, instant, chance, flags)
        live = maker.releases()
        assert live["y0"] == old["y0"]
        assert maker.release_files("y0") == files
        if "y1" in live:
            assert maker.release_files("y1") == maker.tree_files()
    code = end_of(maker.start("y1", *flags, within=lambda words: in_boot(disk, *words)))
    undisturbed.publish("y1", *flags)
    record("power loss: publish", tried=len(INSTANTS), survived=len(INSTANTS))
    assert code in ({0} if "y1" not in live else {0, 2})
    assert maker.releases() == undisturbed.releases()
    for each in publishing:
        each.fill(range(181, 190))
        each.publish("y2", "--date", _DATES["y2"], "--link", link, "--materialize-packs")
    assert maker.published_bytes() == undisturbed.published_bytes()


def test_a_repository_that_was_begun_is_there_after_power_was_lost(disk: Disk) -> None:
    repo = disk.folder / "repo"
    words = ("init", str(repo), "--dataset", "pictures")
    assert end_of(Maker.run_verb(*words, within=lambda command: in_boot(disk, *command))) == 0
    disk.lose_power()
    disk.start_again()
    (disk.folder / "tree/original/0001").mkdir(parents=True)
    (disk.folder / "tree/original/0001/1.dat").write_bytes(b"one")
    tree = ("--tree", str(disk.folder / "tree"), "--release", "y0")
    assert end_of(Maker.run_verb("publish", str(repo), *tree)) == 0
