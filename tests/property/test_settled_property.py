"""Whatever user and client do in turn, what is remembered as settled is as it is wanted.

A look that believes it comes to what a look comes to that compares every bucket whole.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from syncclient.config import Transport, load_tree_config
from syncclient.look import Look, Wish
from syncclient.session import open_session
from syncclient.survey import Survey
from tests.support.client import bucketsync
from tests.support.rawhost import Answer, RawHost, Request, raw_host
from tests.support.releases import LAYOUT, Files, Publisher, make_publisher, random_files

RELEASES = ("y1", "y2", "y3", "y4")
# Everything younger is not at rest; layers are older.
YOUNG_NS = 17 * 10**17
COUNTS = ("kept", "added", "changed", "foreign", "unavailable", "removable", "extra")


def next_files(files: Files, chance: random.Random) -> Files:
    """The files of the release after one that has ``files``."""
    after = dict(files)
    for key, (extension, data) in files.items():
        match chance.randrange(16):
            case 0:
                del after[key]
            case 1:
                after[key] = extension, data[::-1]
            case 2:
                after[key] = chance.choice(["png", "webp"]), data
            case _:
                pass
    new = [number for number in range(1, 90) if chance.random() < 0.1]
    return random_files(new, size_bytes=40, seed=str(chance.random())) | after


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Four releases, in which files come, change, go and come back; one has a second variant."""
    made, chance = make_publisher(tmp_path_factory.mktemp("releases")), random.Random(1)  # noqa: S311
    files: Files = random_files([n for n in range(1, 60) if n % 10 != 7], size_bytes=40)
    for name in RELEASES:
        small = random_files(range(1, 30), variant="512px", size_bytes=20)
        made.publish(name, {**files, **(small if name != "y3" else {})})
        files = next_files(files, chance)
    return made


class Host:
    """A host that may lack every third file."""

    def __init__(self) -> None:
        self.lacks = -1

    def script(self, request: Request, answer: Answer) -> Answer:
        """What it answers."""
        of_files = request.path.startswith(("files/", "packs/"))
        lacks = of_files and sum(request.path.encode()) % 3 == self.lacks
        return Answer(status=404) if lacks else answer


@pytest.fixture(scope="module")
def served(publisher: Publisher) -> Iterator[tuple[Host, RawHost]]:
    """The releases and the one who may lack some of them."""
    host = Host()
    with raw_host(publisher.repo, host.script) as running:
        yield host, running


class History:
    """A tree, what happens to it, and what was said of it."""

    def __init__(self, tree: Path, publisher: Publisher, seed: int) -> None:
        self.tree = tree
        self.chance = random.Random(seed)  # noqa: S311 (test data)
        self.publisher = publisher
        self.gone: dict[Path, tuple[bytes, int]] = {}
        self.times = itertools.count(10)
        self.at = 0

    def rest(self) -> None:
        """Give all that is young a time long past, which nothing else ever had."""
        for path in (*self.tree.glob("*/0*/*"), *self.tree.glob("*/0*")):
            if path.lstat().st_mtime_ns > YOUNG_NS and not path.is_symlink():
                os.utime(path, ns=(0, next(self.times)))

    def meddle(self) -> None:
        """What users do: take files away and bring them back, add some, write into some."""
        chance = self.chance
        edition = self.publisher.editions[chance.choice(RELEASES)]
        (variant, number), (extension, data) = chance.choice([*edition.files.items()])
        path = self.tree / LAYOUT.entry_path(variant, number, extension).text
        match chance.randrange(10):
            case 0 | 1 if path.is_file():
                self.gone[path] = path.read_bytes(), path.stat().st_mtime_ns
                path.unlink()
            case 2 | 3 if self.gone:
                path, (data, mtime_ns) = self.gone.popitem()
                if path.parent.is_dir() and not path.exists():
                    path.write_bytes(data)
                    os.utime(path, ns=(0, mtime_ns))
            case 4 if path.is_file():
                # Another name, so that folder times tell.
                path.unlink()
                path.write_bytes(b"the user's")
            case 5 if path.parent.is_dir():
                path.with_name(f"{number}.{chance.choice(['odd', 'webp', 'txt.odd'])}").touch()
            case 6 | 7 | 8 if path.parent.is_dir() and not path.exists():
                path.write_bytes(data)
            case 9 if path.parent.is_dir() and not path.exists():
                path.mkdir()
            case _:
                pass

    def words(self) -> tuple[str, list[str]]:
        """A release, mostly the next one, and flags for it."""
        chance = self.chance
        self.at = min(self.at + 1, 3) if chance.random() < 0.6 else chance.randrange(4)
        flags = ["--quick"] if chance.random() < 0.3 else []
        if chance.random() < 0.8:
            flags += ["--delete", "--max-delete", "100%"]
        if chance.random() < 0.1:
            flags += ["--bucket", chance.choice(["0..4", "0..9", "3..7"])]
        return RELEASES[self.at], flags


async def look(tree: Path, release: str, *, quick: bool) -> Survey:
    config = load_tree_config(tree)
    async with open_session(tree, config, Transport(retries=1), lambda _: None) as session:
        descriptor = await session.descriptor(await session.refresh(), release)
        selection = session.config.selection
        wish = Wish(descriptor=descriptor, selection=selection, quick=quick, refetch=True)
        async with Look(session, wish) as looking:
            return await looking.look()


def outcome(survey: Survey) -> tuple[object, ...]:
    works = [
        (
            work.variant,
            work.bucket,
            work.fetch.names(),
            work.foreign.tolist(),
            [*work.remove.files()],
        )
        for work in survey.works
    ]
    return {name: getattr(survey, name) for name in COUNTS}, works


async def two_outcomes(tree: Path, release: str, *, quick: bool) -> list[tuple[object, ...]]:
    """What two looks come to, of which the second knows of no bucket that it was settled."""
    state, saved = tree / ".bucketsync", tree.with_name("saved")
    shutil.copytree(state, saved, symlinks=True)
    found = [outcome(await look(tree, release, quick=quick))]
    shutil.rmtree(state)
    shutil.copytree(saved, state, symlinks=True)
    with closing(sqlite3.connect(state / "state.db")) as db:
        db.execute("UPDATE bucket SET settled = '', folder_mtime = -1")
        db.execute("DELETE FROM seen")
        db.commit()
    found.append(outcome(await look(tree, release, quick=False)))
    shutil.rmtree(state)
    saved.rename(state)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_what_is_settled_is_as_it_is_wanted(
    tmp_path: Path, publisher: Publisher, served: tuple[Host, RawHost], seed: int
) -> None:
    host, running = served
    history = History(tmp_path / "tree", publisher, seed)
    chance, tree = history.chance, history.tree
    host.lacks = -1
    assert bucketsync("clone", running.url, tree, "--release", "y1").code == 0
    for _ in range(7):
        for _ in range(chance.choice([0, 2, 5])):
            history.meddle()
        history.rest()
        if chance.random() < 0.7:
            asyncio.run(look(tree, RELEASES[history.at], quick=False))
        release, flags = history.words()
        quick = "--quick" in flags
        believed, doubted = asyncio.run(two_outcomes(tree, release, quick=quick))
        assert believed == doubted
        host.lacks = chance.choice([-1, -1, -1, -1, 0, 1, 2])
        bucketsync("upgrade", tree, "--to", release, "--retries", "1", *flags)
