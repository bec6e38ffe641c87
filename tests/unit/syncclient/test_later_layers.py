"""An upgrade compares what later layers speak of; that comes to what comparing all comes to."""

from __future__ import annotations

import asyncio
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
from syncclient.records import decode
from syncclient.selection import Selection
from syncclient.session import open_session
from syncclient.survey import Survey
from tests.support.client import bucketsync
from tests.support.rawhost import raw_host
from tests.support.releases import Files, Publisher, make_publisher, random_files

# Ids that the releases after the first one speak of, and some of which they never do.
NEW, CHANGED, RENAMED, GONE, UNTOUCHED = 151, 11, 12, 13, 14


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Three releases: the second speaks of most buckets; the third drops a variant."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    files = random_files(range(1, 151), size_bytes=300)
    first = files | random_files(range(1, 51), variant="512px", size_bytes=30)
    made.publish("y1", first)
    second = first | random_files(range(NEW, NEW + 8), size_bytes=300)
    for number in (CHANGED, CHANGED + 10, CHANGED + 21):
        extension, data = first["original", number]
        second["original", number] = extension, data[::-1]
    second["original", RENAMED] = "webp", b"in another form"
    for number in (GONE, GONE + 10, GONE + 20):
        del second["original", number]
    made.publish("y2", second)
    third = without(second, "512px") | random_files(range(161, 163), size_bytes=300)
    third["original", GONE] = first["original", GONE]
    del third["original", NEW]
    made.publish("y3", third)
    return made


def without(files: Files, variant: str) -> dict[tuple[str, int], tuple[str, bytes]]:
    return {key: value for key, value in files.items() if key[0] != variant}


@pytest.fixture(scope="module")
def url(publisher: Publisher) -> Iterator[str]:
    """Where they are served."""
    with raw_host(publisher.repo) as host:
        yield host.url


@pytest.fixture(scope="module")
def cloned(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first release, which is not to be changed."""
    tree = tmp_path_factory.mktemp("cloned") / "tree"
    assert bucketsync("clone", url, tree, "--release", "y1").code == 0
    return tree


@pytest.fixture
def tree(cloned: Path, tmp_path: Path) -> Path:
    """A copy of it, whose folders are at rest."""
    return at_rest(shutil.copytree(cloned, tmp_path / "tree", symlinks=True))


def at_rest(tree: Path) -> Path:
    """Give every folder, and every file that is young, a time long past."""
    for path in tree.glob("*/0*/*"):
        if not path.is_symlink() and path.stat().st_mtime > 1.7e9:
            os.utime(path, ns=(7, 7))
    for folder in tree.glob("*/0*"):
        os.utime(folder, ns=(9, 9))
    return tree


def of_id(tree: Path, number: int) -> Path:
    (found,) = tree.glob(f"original/*/{number}.*")
    return found


async def look(
    tree: Path, release: str, *, quick: bool = False, buckets: tuple[int, int] | None = None
) -> Survey:
    config = load_tree_config(tree)
    async with open_session(tree, config, Transport(retries=1), lambda _: None) as session:
        descriptor = await session.descriptor(await session.refresh(), release)
        selection = Selection(buckets=buckets)
        wish = Wish(descriptor=descriptor, selection=selection, quick=quick)
        async with Look(session, wish) as looking:
            return await looking.look()


def outcome(survey: Survey) -> tuple[object, ...]:
    """Counts and work of a survey."""
    names = ("kept", "added", "changed", "foreign", "unavailable", "removable", "extra", "hashed")
    works = [
        (
            work.variant,
            work.bucket,
            *zip(work.fetch.names(), work.replaces, work.foreign.tolist(), strict=True),
            *work.remove.files(),
            work.after,
        )
        for work in survey.works
    ]
    return {name: getattr(survey, name) for name in names}, works


def remembered(tree: Path) -> dict[tuple[str, int], set[tuple[object, ...]]]:
    """What the state remembers of files."""
    with closing(sqlite3.connect(tree / ".bucketsync/state.db")) as db:
        rows = db.execute("SELECT variant, bucket, data FROM bucket").fetchall()
    found: dict[tuple[str, int], set[tuple[object, ...]]] = {}
    for variant, bucket, data in rows:
        record = decode(data, 0, "")
        assert record is not None
        names = [
            f"{n}.{record.extensions[e]}" for n, e in zip(record.ids, record.exts, strict=True)
        ]
        columns = zip(names, record.sizes, record.mtimes, map(bytes, record.digests), strict=True)
        found[variant, bucket] = set(columns)
    return found


def meddle(tree: Path, publisher: Publisher, chance: random.Random) -> None:
    """What users do: add files, some of them under names that releases will speak of."""
    later = {**publisher.editions["y3"].files, **publisher.editions["y2"].files}
    for (variant, number), (extension, data) in later.items():
        path = tree / variant / f"{number % 10:04d}" / f"{number}.{extension}"
        if not path.exists() and chance.random() < 0.4:
            path.write_bytes(data if chance.random() < 0.5 else b"the user's")
        elif chance.random() < 0.02:
            path.with_name(f"{number}.odd").write_bytes(b"the user's")
        elif chance.random() < 0.02:
            path.with_name(f"notes-{number}").write_bytes(b"the user's")


def change(tree: Path, chance: random.Random, *, in_place: bool) -> None:
    """What users do to files of the release."""
    for path in sorted(tree.glob("*/0*/*")):
        match chance.randrange(40):
            case 0:
                path.unlink()
            case 1 if in_place:
                path.write_bytes(b"the user's")
            case 2 if in_place:
                os.utime(path)
            case _:
                pass


@pytest.mark.parametrize("how", ["y2", "y3", "y2 quick", "y3 quick"])
@pytest.mark.parametrize("seed", range(4))
async def test_it_comes_to_what_a_whole_comparison_comes_to(
    tree: Path, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, how: str, seed: int
) -> None:
    release, _, quick = how.partition(" ")
    chance = random.Random(seed)  # noqa: S311 (test data)
    meddle(tree, publisher, chance)
    await look(at_rest(tree), "y1")
    change(tree, chance, in_place=not quick)
    saved = shutil.copytree(tree / ".bucketsync", tree.with_name("saved"))
    later = await look(tree, release, quick=bool(quick))
    known = remembered(tree)
    shutil.rmtree(tree / ".bucketsync")
    saved.rename(tree / ".bucketsync")
    monkeypatch.setattr(Look, "_earlier", lambda _: {})
    whole = await look(tree, release)
    assert later.works
    assert outcome(later) == outcome(whole)
    assert known == remembered(tree)


def watch_comparisons(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of entries that are composed to be compared, from now on."""
    from syncclient.release import ReleaseView  # noqa: PLC0415

    honest, compared = ReleaseView.several, list[int]()

    def several(*args: object, **named: object) -> object:
        view = honest(*args, **named)  # type: ignore[arg-type]
        compared.append(len(view.wanted))
        return view

    monkeypatch.setattr(ReleaseView, "several", several)
    return compared


@pytest.mark.parametrize("quick", [False, True])
async def test_it_compares_nothing_else(
    tree: Path, monkeypatch: pytest.MonkeyPatch, *, quick: bool
) -> None:
    await look(tree, "y1")
    compared = watch_comparisons(monkeypatch)
    survey = await look(tree, "y2", quick=quick)
    assert sum(compared) == 8 + 3 + 1
    assert (survey.added, survey.changed, survey.removable) == (9, 3, 4)
    assert survey.kept == 200 - 3 - 4


async def test_quick_reads_no_other_file_s_time(tree: Path) -> None:
    """Only folders whose time is another are looked into, and names that a later layer has."""
    await look(tree, "y1")
    path = of_id(tree, UNTOUCHED)
    os.utime(path, ns=(11, 11))
    path.write_bytes(b"the user's, in place")
    os.utime(path.parent, ns=(9, 9))
    survey = await look(tree, "y2", quick=True)
    assert (survey.foreign, survey.kept) == (0, 193)


def test_after_an_upgrade_nothing_is_compared(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(look(tree, "y1"))
    assert bucketsync("upgrade", tree, "--to", "y2", "--delete").code == 0
    monkeypatch.setattr(Look, "view", property(lambda _: pytest.fail("manifests are opened")))
    survey = asyncio.run(look(tree, "y2"))
    assert (survey.kept, survey.works) == (205, [])


def test_after_a_clone_nothing_is_compared(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bucketsync("clone", url, tmp_path / "new", "--release", "y2").code == 0
    monkeypatch.setattr(Look, "view", property(lambda _: pytest.fail("manifests are opened")))
    survey = asyncio.run(look(tmp_path / "new", "y2"))
    assert (survey.kept, survey.works) == (205, [])


def test_what_was_left_undone_is_no_settled_bucket(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``--delete`` files stay that the release no longer has."""
    asyncio.run(look(tree, "y1"))
    assert bucketsync("upgrade", tree, "--to", "y2").code == 0
    monkeypatch.setattr(Look, "_earlier", lambda _: {})
    survey = asyncio.run(look(tree, "y2"))
    assert survey.removable == 4


async def test_a_variant_that_is_dropped_is_not_settled(tree: Path) -> None:
    await look(tree, "y1")
    survey = await look(tree, "y3")
    assert survey.removable == 4 - 1 + 50


async def test_other_notices_have_everything_compared(
    publisher: Publisher, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is unavailable now was not when the bucket was settled."""
    await look(tree, "y1")
    publisher.withdraw("y1", "original", [UNTOUCHED])
    compared = watch_comparisons(monkeypatch)
    survey = await look(tree, "y2")
    assert sum(compared) == 205
    assert survey.kept == 193


async def test_what_proved_ours_is_so_for_an_earlier_release_too(
    tree: Path, publisher: Publisher
) -> None:
    """The user's file has the bytes of a later entry; back at the first release it is to go."""
    extension, data = publisher.editions["y2"].files["original", NEW]
    (tree / f"original/0001/{NEW}.{extension}").write_bytes(data)
    await look(at_rest(tree), "y1")
    await look(tree, "y2")
    survey = await look(tree, "y1")
    assert (survey.removable, survey.extra) == (1, 0)


async def test_a_folder_that_was_not_looked_into_has_no_fingerprint(
    tree: Path, publisher: Publisher
) -> None:
    """With ``--quick`` files that the user wrote in place are right, and then wrong again."""
    first, second = publisher.editions["y1"].files, publisher.editions["y2"].files
    extension, data = second["original", NEW]
    (tree / f"original/0001/{NEW}.{extension}").write_bytes(data)
    await look(at_rest(tree), "y1")
    changed = [of_id(tree, number) for number in (CHANGED, CHANGED + 10)]
    times = [path.stat().st_mtime_ns for path in changed]
    for path in changed:
        path.write_bytes(second["original", int(path.stem)][1])
    await look(at_rest(tree), "y2", quick=True)
    for path, mtime_ns in zip(changed, times, strict=True):
        path.write_bytes(first["original", int(path.stem)][1])
        os.utime(path, ns=(mtime_ns, mtime_ns))
    survey = await look(tree, "y2")
    assert survey.changed == 3


def test_layers_are_asked_of_no_bucket_outside_the_selection(tmp_path: Path) -> None:
    """Its part of the manifest is not here; that it is empty was settled when it was wanted."""
    publisher, tree = make_publisher(tmp_path), tmp_path / "tree"
    first = random_files([1, 2, 3, 4], size_bytes=30)
    publisher.publish("y1", first)
    # More than is fetched whole.
    second = first | random_files(range(5, 3000), size_bytes=1)
    publisher.publish("y2", second, store=False)
    with raw_host(publisher.repo) as host:
        assert bucketsync("clone", host.url, tree, "--release", "y1").code == 0
        asyncio.run(look(at_rest(tree), "y1", buckets=(0, 4)))
        survey = asyncio.run(look(tree, "y2", buckets=(0, 4)))
    assert (survey.kept, survey.added) == (4, sum(number % 10 < 5 for number in range(5, 3000)))
