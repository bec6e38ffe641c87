"""Cached manifests: fetched once, checked at each reading, mended where a byte is wrong."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from manifests.errors import ManifestError, TransferError
from manifests.model import Descriptor
from manifests.notices import Absence, Notices
from syncclient.cachedobject import object_path
from syncclient.hosts import Hosts
from syncclient.release import ReleaseView
from syncclient.selection import Selection
from syncclient.sources.host import HttpOptions
from tests.support.rawhost import Ranges, RawHost, Script, flip, for_paths, honest, raw_host, times
from tests.support.releases import LAYOUT, Publisher, make_publisher, random_files

EVERYTHING = Selection()


def ids(*numbers: int) -> Selection:
    return Selection(ids=np.array(sorted(numbers), np.uint32))


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Two releases of tiny files: 3,000 and a few that were added, changed, removed."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    first = random_files(range(1, 3001), size_bytes=4)
    made.publish("y1", first)
    second = {key: value for key, value in first.items() if key[1] not in {5, 15, 26}}
    second |= random_files([7, 3333], size_bytes=5)
    made.publish("y2", second)
    return made


@asynccontextmanager
async def opened(
    publisher: Publisher,
    cache: Path,
    wish: Selection = EVERYTHING,
    script: Script = honest,
    ranges: Ranges = Ranges.MANY,
) -> AsyncIterator[tuple[ReleaseView, RawHost]]:
    with raw_host(publisher.repo, script, ranges=ranges) as host:
        async with Hosts([host.url], HttpOptions(timeout_s=5), 2) as hosts:
            view = view_of(publisher.descriptors[-1], cache, wish)
            try:
                await view.open(hosts)
                yield view, host
            finally:
                view.close()


def view_of(
    descriptor: Descriptor, cache: Path, wish: Selection, notices: Notices | None = None
) -> ReleaseView:
    return ReleaseView(descriptor, notices or Notices(), wish, cache)


def found(view: ReleaseView) -> dict[int, int]:
    """Sizes of all wanted entries by id."""
    sizes: dict[int, int] = {}
    for bucket in view.buckets:
        wanted = view.bucket("original", bucket).wanted
        sizes |= dict(zip(wanted.ids.tolist(), wanted.sizes.tolist(), strict=True))
    return sizes


def expected(publisher: Publisher) -> dict[int, int]:
    return {number: len(data) for (_, number), (_, data) in publisher.newest.files.items()}


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def flip_a_bit_each(folder: Path) -> None:
    source = random.Random(1)  # noqa: S311 (test data)
    for path in files_below(folder):
        data = bytearray(path.read_bytes())
        data[source.randrange(len(data))] ^= 1
        path.write_bytes(data)


def cut_each(folder: Path, size: int) -> None:
    for path in files_below(folder):
        path.write_bytes(path.read_bytes()[:size])


async def test_layers_make_the_release(publisher: Publisher, tmp_path: Path) -> None:
    async with opened(publisher, tmp_path) as (view, _):
        assert found(view) == expected(publisher)
        bucket = view.bucket("original", 7)
        of_seven = bucket.history.sizes[bucket.history.ids == 7]
        assert len(of_seven) == 2
        assert int(bucket.wanted.layers[bucket.wanted.ids == 7][0]) == 1


async def test_a_manifest_that_is_needed_whole_is_one_request(
    publisher: Publisher, tmp_path: Path
) -> None:
    async with opened(publisher, tmp_path) as (_, host):
        assert sorted(exchange.path for exchange in host.log) == sorted(
            object_path(layer.manifests["original"].digest)
            for layer in publisher.descriptors[-1].layers
        )


async def test_a_full_cache_needs_no_host(publisher: Publisher, tmp_path: Path) -> None:
    async with opened(publisher, tmp_path):
        pass
    async with opened(publisher, tmp_path) as (view, host):
        assert found(view) == expected(publisher)
        assert host.log == []


async def test_a_few_ids_cost_a_few_frames(publisher: Publisher, tmp_path: Path) -> None:
    wanted = ids(5, 7, 1001, 1011, 2500, 9_999_999)
    async with opened(publisher, tmp_path, wanted) as (view, host):
        assert view.buckets == [0, 1, 5, 7, 9]
        assert found(view) == {
            number: size
            for number, size in expected(publisher).items()
            if number in {7, 1001, 1011, 2500}
        }
        few = host.sent_bytes
    async with opened(publisher, tmp_path / "other") as (_, host):
        assert few < host.sent_bytes / 2


async def test_more_is_fetched_when_more_is_wanted(publisher: Publisher, tmp_path: Path) -> None:
    async with opened(publisher, tmp_path, Selection(buckets=(0, 4))) as (view, host):
        assert set(found(view)) == {n for n in expected(publisher) if n % 10 < 5}
        first = host.sent_bytes
    async with opened(publisher, tmp_path) as (view, host):
        assert found(view) == expected(publisher)
        assert host.sent_bytes < first * 1.5
        assert host.asked("objects/")


async def test_damage_in_the_cache_is_fetched_again(publisher: Publisher, tmp_path: Path) -> None:
    async with opened(publisher, tmp_path):
        pass
    flip_a_bit_each(tmp_path)
    async with opened(publisher, tmp_path) as (view, host):
        assert found(view) == expected(publisher)
        assert 0 < host.sent_bytes < 20_000


@pytest.mark.parametrize("size", [0, 100, 5000])
async def test_a_cache_that_was_cut_is_filled(
    publisher: Publisher, tmp_path: Path, size: int
) -> None:
    async with opened(publisher, tmp_path):
        pass
    cut_each(tmp_path, size)
    async with opened(publisher, tmp_path) as (view, _):
        assert found(view) == expected(publisher)


async def test_wrong_bytes_never_reach_the_cache(publisher: Publisher, tmp_path: Path) -> None:
    once = times(1, for_paths("objects/", flip))
    async with opened(publisher, tmp_path, script=once) as (view, _):
        assert found(view) == expected(publisher)
    with pytest.raises(TransferError, match="sent wrong bytes"):
        async with opened(publisher, tmp_path / "other", script=for_paths("objects/", flip)):
            pass
    assert not any(any(path.read_bytes()) for path in files_below(tmp_path / "other"))


async def test_a_plain_host_without_ranges_will_do(publisher: Publisher, tmp_path: Path) -> None:
    async with opened(publisher, tmp_path, ranges=Ranges.NONE) as (view, _):
        assert found(view) == expected(publisher)


async def test_a_publisher_who_contradicts_himself_is_refused(
    publisher: Publisher, tmp_path: Path
) -> None:
    newest = publisher.descriptors[-1]
    lied = replace(newest, layout=replace(LAYOUT, buckets=9))
    with raw_host(publisher.repo) as host:
        async with Hosts([host.url], HttpOptions(timeout_s=5), 1) as hosts:
            view = view_of(lied, tmp_path, EVERYTHING)
            with pytest.raises(ManifestError, match="another number of buckets"):
                await view.open(hosts)
            view.close()


async def test_what_is_said_to_be_lost_is_marked(publisher: Publisher, tmp_path: Path) -> None:
    absence = Absence(
        layer="y1", variant="original", ids=np.array([2, 7, 12], np.uint32), reason="lost"
    )
    async with opened(publisher, tmp_path):
        view = view_of(
            publisher.descriptors[-1], tmp_path, EVERYTHING, Notices(absences=(absence,))
        )
        with raw_host(publisher.repo) as host:
            async with Hosts([host.url], HttpOptions(), 1) as hosts:
                await view.open(hosts)
        two, seven = view.bucket("original", 2), view.bucket("original", 7)
        assert two.wanted.ids[two.absent].tolist() == [2, 12]
        # The newer layer has its own file of that id.
        assert not seven.absent.any()
        view.close()


def test_objects_lie_by_their_first_digits(publisher: Publisher) -> None:
    ref = publisher.descriptors[0].layers[0].manifests["original"]
    assert (publisher.repo / object_path(ref.digest)).is_file()
