"""What the client remembers is damaged, old, gone or shared, and clocks lie.

The state is a cache: whatever is in it, no wrong file is believed and the next run ends complete.
Settings and signed metadata are not: damage there is told, with a code of the contract.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.client import Run, bucketsync, contents, started, trashed
from tests.support.faultreport import Record
from tests.support.marks import long_but
from tests.support.needs import needs, program
from tests.support.rawhost import RawHost, raw_host, repository_content, slow
from tests.support.releases import Publisher
from tests.support.survival import FILE_BYTES, publish_two

ALL_VERBS: dict[str, tuple[str, ...]] = {
    "status": ("status", "{tree}", "--offline"),
    "upgrade": ("upgrade", "{tree}"),
    "verify": ("verify", "{tree}", "--repair"),
    "plan": ("plan", "{tree}", "--out", "{tree}/../plan"),
    "checkout": ("checkout", "y1", "{tree}/../past", "--tree", "{tree}"),
    "trash": ("trash", "list", "{tree}"),
    "lock": ("lock", "{tree}", "--out", "{tree}/../lock"),
}


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return publish_two(tmp_path_factory.mktemp("publisher"))


@pytest.fixture(scope="module")
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(publisher.repo) as running:
        yield running


@pytest.fixture(scope="module")
def cloned(host: RawHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of the first release, not to be changed."""
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
    assert bucketsync("status", tree, "--offline").code == 0
    return tree


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    return shutil.copytree(cloned, tmp_path / "tree", symlinks=True)


def upgrade(tree: Path, host: RawHost) -> Run:
    return bucketsync("upgrade", tree, "--mirror", host.url, "--delete", "--retries", "1")


def check_upgrade(tree: Path, host: RawHost, publisher: Publisher) -> Run:
    """The tree is complete and right afterwards, and nothing was taken for the user's."""
    done = upgrade(tree, host)
    assert done.code == 0, done.text
    assert contents(tree) == publisher.newest.tree()
    assert {path for path in trashed(tree) if path.startswith("aside/")} == set()
    return done


# --------------------------------------------------------------------------- the state


def state_of(tree: Path) -> Path:
    """The state file, with all that its log holds."""
    path = tree / ".bucketsync/state.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def pages(tree: Path) -> int:
    return state_of(tree).stat().st_size // 4096


@pytest.mark.parametrize(
    "part", [pytest.param(n, marks=pytest.mark.long if n else ()) for n in range(8)]
)
def test_a_state_with_a_page_of_garbage_is_no_worse_than_none(
    tree: Path, publisher: Publisher, host: RawHost, record: Record, part: int
) -> None:
    """Each page in turn: overwritten, and with a few bits flipped."""
    chance = random.Random(part)  # noqa: S311
    path = state_of(tree)
    whole, kept = path.read_bytes(), shutil.copytree(tree, tree.parent / "kept", symlinks=True)
    for page in range(part, pages(tree), 8):
        data = bytearray(whole)
        at = page * 4096
        if chance.random() < 0.5:
            data[at : at + 4096] = chance.randbytes(4096)
        else:
            for _ in range(4):
                data[at + chance.randrange(4096)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        assert bucketsync("status", tree, "--offline").code in {0, 3, 4}
        check_upgrade(tree, host, publisher)
        record("state: damaged page", survived=1)
        shutil.rmtree(tree)
        shutil.copytree(kept, tree, symlinks=True)


@pytest.mark.parametrize(
    "size", long_but({99, 5000}, [0, 1, 99, 100, 4095, 4096, 5000, 8192, 20480])
)
def test_a_state_that_was_cut_is_no_worse_than_none(
    tree: Path, publisher: Publisher, host: RawHost, record: Record, size: int
) -> None:
    path = state_of(tree)
    os.truncate(path, min(size, path.stat().st_size))
    check_upgrade(tree, host, publisher)
    record("state: cut", survived=1)


def gone(path: Path) -> None:
    path.unlink(missing_ok=True)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(50_000))  # noqa: S311


def cut(path: Path) -> None:
    if path.exists():
        os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", long_but({garbage}, [gone, garbage, cut]))
@pytest.mark.parametrize("names", long_but({"-wal"}, ["-wal", "-shm", "-wal -shm", ""]))
def test_a_killed_run_whose_log_is_damaged_goes_on(
    tree: Path,
    publisher: Publisher,
    record: Record,
    names: str,
    damage: Callable[[Path], None],
) -> None:
    with raw_host(repository_content(publisher.repo), slow(2_000_000)) as host:
        with started("upgrade", tree, "--mirror", host.url, "--jobs", "1") as process:
            host.wait_for("packs/", 4)
            process.send(signal.SIGKILL)
            process.wait()
        for name in names.split(" "):
            damage(tree / f".bucketsync/state.db{name}")
        host.script = lambda _, answer: answer
        check_upgrade(tree, host, publisher)
    record("state: log damaged", survived=1)


def test_a_state_of_another_time_is_not_believed(
    tree: Path, cloned: Path, publisher: Publisher, host: RawHost, record: Record
) -> None:
    """Somebody has put back the state of before the upgrade."""
    check_upgrade(tree, host, publisher)
    for path in (tree / ".bucketsync").glob("state.db*"):
        path.unlink()
    shutil.copy(state_of(cloned), tree / ".bucketsync/state.db")
    done = check_upgrade(tree, host, publisher)
    assert done["files_added"] == done["files_changed"] == 0
    assert bucketsync("verify", tree).code == 0
    record("state: of another time", survived=1)


def test_a_state_that_has_another_name_is_not_shared(
    tree: Path, publisher: Publisher, host: RawHost, tmp_path: Path
) -> None:
    """``cp -al`` of a tree: an upgrade of one must not change what is known of the other."""
    state_of(tree)
    twin = tmp_path / "twin"
    shutil.copytree(tree, twin, symlinks=True, copy_function=os.link)
    check_upgrade(twin, host, publisher)
    expected = publisher.editions["y1"].tree()
    assert contents(tree) == expected
    done = bucketsync("status", tree, "--offline")
    assert (done.code, done["files_ok"]) == (0, len(expected))
    assert bucketsync("verify", tree).code == 0


# --------------------------------------------------------------------------- settings and trust


def spoil(path: Path, how: str) -> None:
    """Do to a file what disks, editors and crashes do."""
    data = path.read_bytes()
    chance = random.Random(len(data))  # noqa: S311
    spoilt = {
        "empty": b"",
        "zeros": bytes(len(data)),
        "half": data[: len(data) // 2],
        "garbage": chance.randbytes(len(data)),
        "a bit": data[:50] + bytes([data[50] ^ 4]) + data[51:] if len(data) > 51 else b"?",
    }
    path.unlink()
    if how != "gone":
        path.write_bytes(spoilt[how])


RECORDS = (
    "tuf/*.json",
    "tuf/*/*.json",
    "releases/*",
    "cache/*/*",
    "notices",
    "config.toml",
    "lock",
)
DAMAGE = ("gone", "empty", "zeros", "half", "garbage", "a bit")


@pytest.mark.long
@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("pattern", RECORDS)
def test_a_damaged_record_is_told_or_fetched_again(  # noqa: PLR0913
    tree: Path, publisher: Publisher, host: RawHost, record: Record, pattern: str, how: str
) -> None:
    kept = shutil.copytree(tree, tree.parent / "kept", symlinks=True)
    before = contents(tree)
    for original in sorted(kept.glob(f".bucketsync/{pattern}")):
        path = tree / original.relative_to(kept)
        if path.is_symlink():
            continue
        spoil(path, how)
        done = upgrade(tree, host)
        assert done.code in {0, 6, 10}, (path, done.text)
        if done.code == 0:
            assert contents(tree) == publisher.newest.tree()
        else:
            assert contents(tree) == before
            assert done.error
        record(f"records: {how}", survived=1)
        shutil.rmtree(tree)
        shutil.copytree(kept, tree, symlinks=True)


@pytest.mark.parametrize("verb", long_but({"upgrade", "verify"}, ALL_VERBS))
@pytest.mark.parametrize("how", ["gone", "half"])
def test_without_its_settings_a_folder_is_no_tree_for_any_verb(
    tree: Path, record: Record, verb: str, how: str
) -> None:
    before = contents(tree)
    spoil(tree / ".bucketsync/config.toml", how)
    words = [word.format(tree=tree) for word in ALL_VERBS[verb]]
    done = bucketsync(*words)
    record("settings gone", survived=done.code == 10)
    assert done.code == 10
    assert "adopt" in done.error
    assert contents(tree) == before


@pytest.mark.long
def test_no_part_of_the_settings_is_taken_for_all_of_them(tree: Path, record: Record) -> None:
    path = tree / ".bucketsync/config.toml"
    whole = path.read_bytes()
    before = contents(tree)
    for size in range(0, len(whole), 9):
        path.write_bytes(whole[:size])
        done = bucketsync("status", tree, "--offline")
        assert done.code in {0, 2, 6, 10}, (size, done.text)
        record("settings cut", survived=1)
    assert contents(tree) == before


# --------------------------------------------------------------------------- clocks

_YEAR_S = 365 * 86400


@pytest.mark.parametrize(
    "mtime_s", long_but({4 * 10**9}, [4 * 10**9, 2**31 + 5, 0, -(10**9), 2**33])
)
def test_times_of_files_may_be_anything(
    tree: Path, publisher: Publisher, host: RawHost, record: Record, mtime_s: int
) -> None:
    """In the future, before 1970, past 2038: files are read again, and that is all."""
    for path in [*tree.glob("original/*/*"), *tree.glob("original/*"), tree / "original"]:
        os.utime(path, (mtime_s, mtime_s))
    done = bucketsync("status", tree, "--offline")
    assert (done.code, done["files_ok"]) == (0, len(publisher.editions["y1"].tree()))
    check_upgrade(tree, host, publisher)
    record("clock: times of files", survived=1)


@needs("faketime")
@pytest.mark.parametrize(
    "shifts", long_but({"+300d -20y +0d"}, ["+300d -20y +0d", "-20y +300d -1d"])
)
def test_a_clock_that_jumps_back_and_forth(
    publisher: Publisher, host: RawHost, tmp_path: Path, record: Record, shifts: str
) -> None:
    """Clone, an edit by the user, upgrade, verify: each at another time."""
    tree = tmp_path / "tree"
    verbs = (
        ("clone", host.url, str(tree), "--release", "y1"),
        ("upgrade", str(tree), "--delete", "--to", "y2"),
        ("verify", str(tree)),
    )
    edited = tree / "original/0002/2.jpg"
    for shift, words in zip(shifts.split(), verbs, strict=True):
        with started(*words, within=lambda command, at=shift: at_time(at, command)) as process:  # type: ignore[misc]
            done = process.finish()
        assert done.code == 0, done.text
        if words[0] == "clone":
            edited.write_bytes(b"edited, at whatever time")
    assert contents(tree) == publisher.newest.tree()
    assert b"edited, at whatever time" in trashed(tree).values()
    record("clock: jumps", survived=1)


def at_time(shift: str, command: list[str]) -> list[str]:
    """A command at another time of day; time that only passes is left alone."""
    return [
        "env",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        program("faketime"),
        "-f",
        shift,
        *command,
    ]


# --------------------------------------------------------------------------- two runs at once


@pytest.mark.parametrize("verb", long_but({"upgrade"}, ["upgrade", "verify"]))
def test_a_second_run_where_locks_do_not_work_harms_nothing(
    tree: Path, publisher: Publisher, record: Record, verb: str
) -> None:
    """The lock file is taken away under the first run, so a second one sees none."""
    for path in sorted(tree.glob("original/*/*"))[::5]:
        path.unlink()
    words = {
        "upgrade": ("upgrade", str(tree), "--delete"),
        "verify": ("verify", str(tree), "--repair"),
    }
    with raw_host(repository_content(publisher.repo), slow(1_000_000)) as host:
        flags = ("--mirror", host.url, "--retries", "1")
        with started("upgrade", tree, "--delete", *flags) as first:
            host.wait_for("packs/", 2)
            assert bucketsync(*words[verb]).code == 11
            (tree / ".bucketsync/lock").unlink()
            with started(*words[verb], *flags) as second:
                codes = {first.finish().code, second.finish().code}
        host.script = lambda _, answer: answer
        newest = publisher.newest.tree()
        ours = (newest, publisher.editions["y1"].tree())
        wrong = [
            path
            for path, data in contents(tree).items()
            if all(edition.get(path) != data for edition in ours)
        ]
        done = upgrade(tree, host)
    record("two runs at once", survived=done.code == 0, wrong=len(wrong))
    assert wrong == []
    assert codes <= {0, 3, 4, 7}
    assert done.code == 0, done.text
    assert contents(tree) == newest
    assert bucketsync("verify", tree).code == 0


def test_records_elsewhere_do_not_get_around_the_lock(
    tree: Path, publisher: Publisher, tmp_path: Path, record: Record
) -> None:
    with (
        raw_host(repository_content(publisher.repo), slow(FILE_BYTES * 20)) as host,
        started("upgrade", tree, "--mirror", host.url) as first,
    ):
        host.wait_for("packs/")
        done = bucketsync("upgrade", tree, "--state-dir", tmp_path / "elsewhere")
        first.send(signal.SIGKILL)
        first.wait()
    record("two runs at once", survived=done.code == 11)
    assert done.code == 11
