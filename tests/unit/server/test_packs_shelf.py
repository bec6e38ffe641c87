"""Packs kept in memory: read once however many ask, and never more than their share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manifests.errors import StoreError
from server.hosting.catalog import ServedLayer, load_catalog
from server.hosting.packs import DEFAULT_CACHE_BYTES, Pack, PackReader, PackShelf
from tests.support.world import World, make_world


class CountingReader(PackReader):
    """Counts how often each bucket is really read."""

    def __init__(self, repo: Path) -> None:
        super().__init__(repo)
        self.reads: Counter[int] = Counter()

    def read(self, layer: ServedLayer, variant: str, bucket: int) -> Pack:
        self.reads[bucket] += 1
        return super().read(layer, variant, bucket)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("shelf"))
    for post_id in range(10, 60):
        made.put("original", post_id, 10)
    made.publish("y1")
    return made


@pytest.fixture
def layer(world: World) -> ServedLayer:
    return load_catalog(world.repo).layers["y1"]


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


async def test_what_many_ask_for_is_read_once(
    world: World, layer: ServedLayer, executor: ThreadPoolExecutor
) -> None:
    reader = CountingReader(world.repo)
    shelf = PackShelf(reader, executor, DEFAULT_CACHE_BYTES)
    found = await asyncio.gather(*(shelf.pack(layer, "original", 3) for _ in range(50)))
    assert all(pack is found[0] for pack in found)
    assert found[0].ids.tolist() == [13, 23, 33, 43, 53]
    assert await shelf.pack(layer, "original", 3) is found[0]
    assert reader.reads == {3: 1}
    assert (shelf.misses, shelf.hits) == (50, 1)


async def test_the_least_used_pack_goes_first(
    world: World, layer: ServedLayer, executor: ThreadPoolExecutor
) -> None:
    reader = CountingReader(world.repo)
    one = reader.read(layer, "original", 0).held_bytes
    shelf = PackShelf(reader, executor, 2 * one)
    for bucket in (1, 2, 1, 3, 1, 2):
        await shelf.pack(layer, "original", bucket)
        assert shelf.held_bytes <= 2 * one
    assert reader.reads == {0: 1, 1: 1, 2: 2, 3: 1}


async def test_a_pack_larger_than_its_share_is_still_kept(
    world: World, layer: ServedLayer, executor: ThreadPoolExecutor
) -> None:
    reader = CountingReader(world.repo)
    shelf = PackShelf(reader, executor, 1)
    for _ in range(3):
        await shelf.pack(layer, "original", 1)
    assert reader.reads == {1: 1}


async def test_an_error_is_not_kept(
    world: World, layer: ServedLayer, executor: ThreadPoolExecutor, tmp_path: Path
) -> None:
    digest = layer.ref.manifests["original"].digest.hex
    path = world.repo / "objects" / digest[:2] / digest
    shelf = PackShelf(PackReader(world.repo), executor, DEFAULT_CACHE_BYTES)
    path.rename(tmp_path / "away")
    with pytest.raises(StoreError, match="is missing"):
        await shelf.pack(layer, "original", 1)
    (tmp_path / "away").rename(path)
    assert len((await shelf.pack(layer, "original", 1)).ids) == 5
