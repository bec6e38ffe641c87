"""Looking at a tree: counts, what is believed without reading, and disks that are not there."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from manifests.errors import ExitCode, StoreError
from syncclient.config import Transport, load_tree_config
from syncclient.events import Event, Notice, Phase, Progress
from syncclient.look import Look, Wish
from syncclient.pool import Pool, in_thread
from syncclient.records import decode
from syncclient.session import Session, open_session
from syncclient.survey import Survey
from syncclient.tasks import HashTask, hash_task
from tests.support.client import bucketsync
from tests.support.rawhost import raw_host
from tests.support.releases import Publisher, make_publisher, random_files


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """One release with 200 files in two variants."""
    made = make_publisher(tmp_path_factory.mktemp("release"))
    files = random_files(range(1, 151), size_bytes=300)
    made.publish("y1", files | random_files(range(1, 51), variant="512px", size_bytes=30))
    return made


@pytest.fixture(scope="module")
def cloned(publisher: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tree, which is not to be changed."""
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree).code == 0
    return tree


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(cloned, tmp_path / "tree", symlinks=True)


@asynccontextmanager
async def session_of(tree: Path, events: list[Event]) -> AsyncIterator[Session]:
    config = load_tree_config(tree)
    async with open_session(tree, config, Transport(retries=1), events.append) as session:
        yield session


async def look(
    tree: Path, *, quick: bool = False, refetch: bool = False, events: list[Event] | None = None
) -> Survey:
    async with session_of(tree, events if events is not None else []) as session:
        descriptor = session.stored_descriptor("y1")
        assert descriptor is not None
        wish = Wish(
            descriptor=descriptor,
            selection=session.config.selection,
            quick=quick,
            refetch=refetch,
        )
        async with Look(session, wish) as looking:
            return await looking.look()


def counts(survey: Survey) -> dict[str, int]:
    names = ("kept", "added", "changed", "foreign", "removable", "extra", "hashed")
    return {name: getattr(survey, name) for name in names if getattr(survey, name)}


def file_of(tree: Path, number: int) -> Path:
    (found,) = tree.glob(f"original/{number % 10:04d}/{number}.*")
    return found


def rest(tree: Path) -> None:
    """Give every folder a time long past."""
    for folder in tree.glob("*/0*"):
        os.utime(folder, ns=(7, 7))


def convert(tree: Path) -> None:
    """Overwrite every original."""
    for path in tree.glob("original/*/*"):
        path.write_bytes(b"converted")


async def test_a_complete_tree_has_nothing_to_do(tree: Path) -> None:
    events: list[Event] = []
    survey = await look(tree, events=events)
    assert counts(survey) == {"kept": 200}
    assert survey.works == []
    assert Phase(name="scan", total_files=200) in events
    assert Progress(files=200) in events


async def test_each_kind_of_change_is_counted(tree: Path) -> None:
    file_of(tree, 1).unlink()
    file_of(tree, 2).write_bytes(b"the user's")
    os.utime(file_of(tree, 3))
    (tree / "original/0001/999991.jpg").write_bytes(b"the user's")
    (tree / "original/0001/notes.txt").write_bytes(b"the user's")
    events: list[Event] = []
    survey = await look(tree, events=events)
    assert counts(survey) == {
        "kept": 198,
        "added": 1,
        "foreign": 1,
        "extra": 2,
        "hashed": 1,
    }
    assert any(isinstance(e, Notice) and "moved aside" in e.text for e in events)
    assert len(survey.works) == 2


def meddle(tree: Path, chance: random.Random) -> None:
    """Do to some files what users do."""
    for path in sorted(tree.glob("*/0*/*")):
        if chance.random() < 0.3:
            elsewhere = path.parent.with_name(f"{chance.randrange(10):04d}") / path.name
            match chance.randrange(7):
                case 0:
                    path.unlink()
                case 1:
                    path.write_bytes(b"the user's")
                case 2:
                    os.utime(path)
                case 3:
                    path.rename(elsewhere)
                case 4:
                    elsewhere.write_bytes(path.read_bytes())
                case 5:
                    path.with_name("notes.txt").write_bytes(b"")
                case _:
                    path.with_suffix(".odd").write_bytes(b"x")


def known(tree: Path) -> list[tuple[object, ...]]:
    """What the state remembers of each bucket, but for the times of folders."""
    with closing(sqlite3.connect(tree / ".bucketsync/state.db")) as db:
        rows = db.execute(
            "SELECT variant, bucket, settled, files, data, fingerprint, extra "
            "FROM bucket LEFT JOIN seen USING (variant, bucket) ORDER BY variant, bucket"
        ).fetchall()
    found: list[tuple[object, ...]] = []
    for *plain, data, fingerprint, extra in rows:
        record = decode(data, 0, "")
        assert record is not None
        names = [
            f"{n}.{record.extensions[e]}" for n, e in zip(record.ids, record.exts, strict=True)
        ]
        columns = zip(names, record.sizes, record.mtimes, map(bytes, record.digests), strict=True)
        found.append((*plain, sorted(columns), fingerprint, extra))
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_buckets_compared_together_come_to_what_each_comes_to_alone(
    cloned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    await look(shutil.copytree(cloned, tmp_path / "first", symlinks=True))
    meddle(tmp_path / "first", random.Random(seed))  # noqa: S311 (test data)
    results = []
    for name, at_once in (("together", 64), ("alone", 1), ("some", 3)):
        tree = tmp_path / "first"
        saved = shutil.copytree(tree / ".bucketsync", tmp_path / name)
        monkeypatch.setattr("syncclient.release._BUCKETS_AT_ONCE", at_once)
        survey = await look(tree)
        works = [
            (
                work.variant,
                work.bucket,
                *zip(work.fetch.names(), work.replaces, work.foreign.tolist(), strict=True),
                list(work.remove.files()),
            )
            for work in survey.works
        ]
        results.append((counts(survey), works, known(tree)))
        shutil.rmtree(tree / ".bucketsync")
        saved.rename(tree / ".bucketsync")
    assert results[0][1]
    assert results[0] == results[1] == results[2]


async def test_what_was_read_is_believed_the_next_time(tree: Path) -> None:
    for number in range(1, 31):
        os.utime(file_of(tree, number), ns=(7, 7))
    assert counts(await look(tree)) == {"kept": 200, "hashed": 30}
    assert counts(await look(tree)) == {"kept": 200}


async def test_what_is_too_young_is_read_again(tree: Path) -> None:
    """Git's racy rule: a write in the same moment would leave size and time as they are."""
    path = file_of(tree, 1)
    os.utime(path)
    assert counts(await look(tree))["hashed"] == 1
    assert counts(await look(tree))["hashed"] == 1
    now = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))
    assert counts(await look(tree)) == {"kept": 199, "foreign": 1, "hashed": 1}


async def fingerprints(tree: Path) -> dict[int, bytes]:
    async with session_of(tree, []) as session:
        glances = session.state.glance("original")
        return {bucket: glance.fingerprint for bucket, glance in glances.items()}


async def test_a_bucket_that_looks_as_it_did_is_not_compared_again(tree: Path) -> None:
    (tree / "original/0001/notes.txt").write_bytes(b"the user's")
    (tree / "original/0001/999991.jpg").write_bytes(b"the user's")
    os.utime(tree / "original/0001/999991.jpg", ns=(7, 7))
    rest(tree)
    first = counts(await look(tree))
    assert first == {"kept": 200, "extra": 2}
    known = await fingerprints(tree)
    assert all(known.values())
    assert counts(await look(tree)) == first
    assert counts(await look(tree, quick=True)) == first
    assert await fingerprints(tree) == known


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tree: file_of(tree, 1).unlink(), {"kept": 199, "added": 1}),
        (
            lambda tree: os.utime(file_of(tree, 1), ns=(9, 9)),
            {"kept": 200, "hashed": 1},
        ),
        (
            lambda tree: os.truncate(file_of(tree, 1), 7),
            {"kept": 199, "foreign": 1},
        ),
        (
            lambda tree: (tree / "original/0001/notes.txt").touch(),
            {"kept": 200, "extra": 1},
        ),
        (
            lambda tree: (tree / "original/0001/999991.jpg").touch(),
            {"kept": 200, "extra": 1},
        ),
    ],
)
async def test_what_changed_since_it_was_settled_is_seen(
    tree: Path, change: Callable[[Path], object], expected: dict[str, int]
) -> None:
    await look(tree)
    assert all((await fingerprints(tree)).values())
    change(tree)
    assert counts(await look(tree)) == expected


async def test_a_folder_with_a_young_file_has_to_be_compared_again(tree: Path) -> None:
    """Were it believed by its looks, a second write in the same moment would not be seen."""
    os.utime(file_of(tree, 1))
    await look(tree)
    known = await fingerprints(tree)
    assert [bucket for bucket, fingerprint in known.items() if not fingerprint] == [1]


async def test_what_verify_doubts_is_compared_again(tree: Path) -> None:
    await look(tree)
    async with session_of(tree, []) as session:
        session.state.doubt("original", 1, [(1, file_of(tree, 1).suffix[1:])])
    assert counts(await look(tree)) == {"kept": 200, "hashed": 1}


async def test_quick_believes_folders(tree: Path) -> None:
    # A first look settles every bucket whose folder has been at rest for two seconds.
    rest(tree)
    assert counts(await look(tree)) == {"kept": 200}
    file_of(tree, 2).write_bytes(b"an edit in place, which quick does not see")
    file_of(tree, 3).unlink()
    survey = await look(tree, quick=True)
    assert (survey.scan, counts(survey)) == ("quick", {"kept": 199, "added": 1})
    assert counts(await look(tree)) == {"kept": 198, "added": 1, "foreign": 1}


async def test_a_disk_that_is_gone_is_not_a_tree_to_fill(tree: Path) -> None:
    (tree / "original").rename(tree / "elsewhere")
    # However often it is asked.
    for _ in range(2):
        with pytest.raises(StoreError, match="had 150 files") as caught:
            await look(tree)
        assert caught.value.exit_code == ExitCode.STORAGE
        assert "--yes" in caught.value.hint
    survey = await look(tree, refetch=True)
    assert counts(survey) == {"kept": 50, "added": 150}
    (tree / "elsewhere").rename(tree / "original")
    assert counts(await look(tree)) == {"kept": 200}


async def test_files_that_were_all_changed_are_no_missing_disk(tree: Path) -> None:
    convert(tree)
    assert counts(await look(tree)) == {"kept": 50, "foreign": 150}


async def test_a_folder_that_is_a_link_is_never_read_as_empty(tree: Path) -> None:
    (tree / "original/0001").rename(tree / "elsewhere")
    (tree / "original/0001").symlink_to(tree / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        await look(tree)


async def test_a_cancel_waits_for_the_thread_and_stops_it() -> None:
    """Nobody may close the state under a survey that goes on in its thread."""
    begun = threading.Event()
    stop = threading.Event()
    order: list[str] = []

    def work() -> None:
        begun.set()
        stop.wait(timeout=30)
        order.append("thread")

    task = asyncio.create_task(in_thread(work, stop))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.wait({task})
    order.append("caller")
    assert task.cancelled()
    assert order == ["thread", "caller"]


def test_a_pool_that_was_stopped_begins_nothing(tree: Path) -> None:
    stop = threading.Event()
    with Pool(10, 2, stop) as pool:
        task = HashTask(str(tree), ("original", "0001"), ["1.png", "gone.jpg"])
        first, second = pool.submit(hash_task, task).result()
        assert first is not None
        assert second is None
        results = pool.map(hash_task, [task] * 100)
        assert next(results) == [first, None]
        stop.set()
        with pytest.raises(CancelledError):
            list(results)


def test_processes_hash_like_threads(tree: Path) -> None:
    tasks = [HashTask(str(tree), ("original", f"{bucket:04d}"), ["1.png"]) for bucket in range(10)]
    with Pool(10**6, 2, threading.Event()) as processes, Pool(1, 2, threading.Event()) as threads:
        assert list(processes.map(hash_task, tasks)) == list(threads.map(hash_task, tasks))


_COMMAND = """
import sys
import syncclient.pool
from syncclient.cli import main
if __name__ == "__main__":
    syncclient.pool._FILES_WORTH_PROCESSES = 0
    sys.exit(main())
"""


def test_processes_import_nothing_from_where_the_client_is_called(
    tree: Path, tmp_path: Path
) -> None:
    """A release may put such files into the tree in which somebody types ``verify``."""
    for name in ("multiprocessing", "pickle", "numpy"):
        (tree / f"{name}.py").write_text("open('taken over', 'w'); raise SystemExit")
    # As the installed command is run: by its path.
    command = tmp_path / "bin" / "bucketsync"
    command.parent.mkdir()
    command.write_text(_COMMAND)
    done = subprocess.run(
        [sys.executable, str(command), "verify", "--jobs", "2"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not (tree / "taken over").exists()
    assert done.returncode == 0, done.stderr
