"""Making the whole series: one folder a year, each a complete and independent source tree."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from manifests.errors import ConfigError
from server.sample.blemishes import Blemish, blemish
from server.sample.files import Picture, Task, copy_post, write_post
from server.sample.metadata import make_records, write_new, write_old
from server.sample.vocabulary import POOLS, TagNumbers
from server.sample.years import SampleSettings, Year, plan_years

# Below this many pictures, starting processes takes longer than drawing here.
_WORTH_PROCESSES = 60
_CHUNK = 16
_MAX_PROCESSES = 16

Drawer: TypeAlias = Callable[[Iterable[Task]], Iterable[Picture]]


class Release(Struct, frozen=True, kw_only=True):
    """One finished tree of the series; ``files`` and ``size_bytes`` count everything in it."""

    name: str
    tree: Path
    posts: int
    added: int
    changed: int
    removed: int
    files: int
    size_bytes: int
    blemishes: tuple[Blemish, ...]


def make_series(dest: Path, settings: SampleSettings) -> Iterator[Release]:
    """Make ``dest/2019``, ``dest/2020`` and so on, yielding each release once it is complete.

    ``dest`` must be absent or empty (ConfigError otherwise).  Stopped early, the finished years
    are whole and the one being made is not.
    """
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ConfigError(f"{dest} is not an empty folder", hint="Name a new one for the sample.")
    years = plan_years(settings)
    pictures: dict[int, Picture] = {}
    numbers = TagNumbers()
    with _drawer(settings) as drawer:
        for index, year in enumerate(years):
            tree = dest / str(year.number)
            pictures.update(_draw(drawer, tree, year, settings))
            if index:
                _copy_unchanged(dest / str(years[index - 1].number), tree, year, settings)
            _describe(tree, year, pictures, numbers, settings)
            spoil = settings.blemishes and year is years[-1]
            faults = blemish(tree, settings.layout, year, settings.seed) if spoil else []
            yield _sum_up(tree, year, faults)


@contextmanager
def _drawer(settings: SampleSettings) -> Iterator[Drawer]:
    """Something that draws many posts, in processes of its own if there are many."""
    if settings.posts < _WORTH_PROCESSES:
        yield partial(map, write_post)
        return
    with ProcessPoolExecutor(
        max_workers=min(_MAX_PROCESSES, os.cpu_count() or 1),
        mp_context=get_context("spawn"),
        initializer=_leave_interrupts_to_parent,
    ) as pool:
        yield partial(pool.map, write_post, chunksize=_CHUNK)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw(drawer: Drawer, tree: Path, year: Year, settings: SampleSettings) -> dict[int, Picture]:
    """Draw what is new or changed this year."""
    posts = [post for post in year.posts if post.id in year.fresh | year.changed]
    tasks = [
        Task(tree=tree, layout=settings.layout, seed=settings.seed, post=post) for post in posts
    ]
    return {post.id: picture for post, picture in zip(posts, drawer(tasks), strict=True)}


def _copy_unchanged(before: Path, tree: Path, year: Year, settings: SampleSettings) -> None:
    for post in year.posts:
        if post.id not in year.fresh | year.changed:
            copy_post(before, tree, settings.layout, post)


def _describe(
    tree: Path,
    year: Year,
    pictures: Mapping[int, Picture],
    numbers: TagNumbers,
    settings: SampleSettings,
) -> None:
    """Write the metadata in the generation of the year, and the assets."""
    made = make_records(year.posts, pictures, settings.seed)
    tags_of = {post.id: pictures[post.id].tags for post in year.posts}
    numbers.learn(tag for tags in tags_of.values() for tag in tags)
    pools = {pool: pool.members(tags_of) for pool in POOLS}
    folder = tree / "metadata"
    if settings.has_old_metadata(year.number):
        write_old(folder, year.number, made, pools, numbers)
    else:
        write_new(folder, year.date, made, pools, numbers)
    listed = [f"{pool.name}: {' '.join(map(str, members))}\n" for pool, members in pools.items()]
    (tree / "lists").mkdir()
    (tree / "lists" / "pools.txt").write_text("".join(listed), encoding="utf-8")
    (tree / "README.txt").write_text(_readme(year), encoding="utf-8")
    for path in (*folder.rglob("*.json"), tree / "lists" / "pools.txt", tree / "README.txt"):
        os.utime(path, (year.date, year.date))


def _readme(year: Year) -> str:
    return (
        f"Sample dataset, release {year.number}\n"
        f"\n"
        f"{len(year.posts):,} posts: {len(year.fresh):,} new, {len(year.changed):,} changed and "
        f"{len(year.removed):,} removed since the release before.\n"
        f"\n"
        f"original/  the pictures, in the folder of their id modulo the number of buckets\n"
        f"512px/     the same within 512 by 512 pixels, without animations and comics\n"
        f"metadata/  tags and all else that is known of each post\n"
        f"lists/     posts by pool\n"
        f"\n"
        f"Everything was drawn by a program and may be used freely (CC0 1.0).\n"
    )


def _sum_up(tree: Path, year: Year, faults: list[Blemish]) -> Release:
    sizes = [path.stat().st_size for path in tree.rglob("*") if path.is_file()]
    return Release(
        name=str(year.number),
        tree=tree,
        posts=len(year.posts),
        added=len(year.fresh),
        changed=len(year.changed),
        removed=len(year.removed),
        files=len(sizes),
        size_bytes=sum(sizes),
        blemishes=tuple(faults),
    )
