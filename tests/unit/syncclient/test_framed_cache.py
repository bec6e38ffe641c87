"""Framed objects in the cache: frames by few ranges, checked before they are written or used."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from manifests.errors import ManifestError, StoreError, TransferError
from manifests.framed import FramedWriter, FrameKey
from manifests.framedref import FramedRef
from syncclient.cachedobject import object_path
from syncclient.framed import CachedFramed
from syncclient.hosts import Hosts
from syncclient.sources.host import HttpOptions
from tests.support.framedobjects import framed
from tests.support.rawhost import Ranges, RawHost, Script, flip, for_paths, honest, raw_host, times

KIND = "test"
FRAME_BYTES = 5000
FRAMES = 40
# A frame without bytes has the place of the one after it.
EMPTY: FrameKey = ("b", 3)


def frame_data(frame: FrameKey) -> bytes:
    if frame == EMPTY:
        return b""
    return random.Random(str(frame)).randbytes(FRAME_BYTES)  # noqa: S311 (test data)


EVERY_FRAME = [(section, number) for section in "ab" for number in range(FRAMES)]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FramedRef]:
    """A folder to serve, and the one object in it: two sections of frames."""

    def write(writer: FramedWriter) -> dict[str, str]:
        for section, number in EVERY_FRAME:
            writer.add(section, number, frame_data((section, number)))
        return {"name": "x"}

    ref, data = framed(KIND, write)
    repo = tmp_path_factory.mktemp("repo")
    path = repo / object_path(ref.digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return repo, ref


@asynccontextmanager
async def opened(
    published: tuple[Path, FramedRef],
    cache: Path,
    script: Script = honest,
    ranges: Ranges = Ranges.MANY,
    kind: str = KIND,
) -> AsyncIterator[tuple[CachedFramed, Hosts, RawHost]]:
    cached = CachedFramed(cache / "object", published[1], kind, "thing")
    try:
        with raw_host(published[0], script, ranges=ranges) as host:
            async with Hosts([host.url], HttpOptions(timeout_s=5), 2) as hosts:
                await cached.open(hosts)
                yield cached, hosts, host
    finally:
        cached.close()


def right(frames: list[FrameKey]) -> dict[FrameKey, bytes]:
    return {frame: frame_data(frame) for frame in frames}


async def test_a_few_frames_cost_a_few_bytes(
    published: tuple[Path, FramedRef], tmp_path: Path
) -> None:
    wanted = [("b", 7), ("a", 2), ("a", 30), ("a", 2)]
    async with opened(published, tmp_path) as (cached, hosts, host):
        assert cached.header.about.text("name") == "x"
        assert await cached.fetch(hosts, wanted) == right(wanted)
        assert len(host.log) == 2
        assert host.sent_bytes < published[1].header_bytes + 4 * FRAME_BYTES


async def test_what_is_held_is_not_fetched_again(
    published: tuple[Path, FramedRef], tmp_path: Path
) -> None:
    async with opened(published, tmp_path) as (cached, hosts, _):
        await cached.fetch(hosts, EVERY_FRAME[5:20])
    async with opened(published, tmp_path) as (cached, hosts, host):
        assert cached.held(EVERY_FRAME) == right([*EVERY_FRAME[5:20], EMPTY])
        assert await cached.fetch(hosts, EVERY_FRAME[5:20]) == right(EVERY_FRAME[5:20])
        assert host.log == []
        assert await cached.fetch(hosts, EVERY_FRAME[:25]) == right(EVERY_FRAME[:25])
        assert host.sent_bytes < 12 * FRAME_BYTES


@pytest.mark.parametrize("ranges", [Ranges.MANY, Ranges.NONE])
async def test_everything_whatever_the_host(
    published: tuple[Path, FramedRef], tmp_path: Path, ranges: Ranges
) -> None:
    async with opened(published, tmp_path, ranges=ranges) as (cached, hosts, _):
        assert await cached.fetch(hosts, EVERY_FRAME) == right(EVERY_FRAME)
        assert await cached.fetch(hosts, []) == {}


async def test_damage_in_the_cache_is_fetched_again(
    published: tuple[Path, FramedRef], tmp_path: Path
) -> None:
    async with opened(published, tmp_path) as (cached, hosts, _):
        await cached.fetch(hosts, EVERY_FRAME)
    data = bytearray((tmp_path / "object").read_bytes())
    data[3 * FRAME_BYTES] ^= 1
    data[-1] ^= 1
    (tmp_path / "object").write_bytes(data)
    async with opened(published, tmp_path) as (cached, hosts, host):
        assert len(cached.held(EVERY_FRAME)) == len(EVERY_FRAME) - 1
        assert await cached.fetch(hosts, EVERY_FRAME) == right(EVERY_FRAME)
        assert len(host.log) == 2


async def test_wrong_bytes_are_neither_used_nor_written(
    published: tuple[Path, FramedRef], tmp_path: Path
) -> None:
    once = times(1, for_paths("objects/", flip))
    async with opened(published, tmp_path / "once", script=once) as (cached, hosts, _):
        assert await cached.fetch(hosts, EVERY_FRAME) == right(EVERY_FRAME)
    with pytest.raises(TransferError, match="sent wrong bytes"):
        async with opened(published, tmp_path / "never", script=for_paths("objects/", flip)):
            pass
    assert not any((tmp_path / "never" / "object").read_bytes())


def test_without_a_host_there_is_what_is_held(
    published: tuple[Path, FramedRef], tmp_path: Path
) -> None:
    cached = CachedFramed(tmp_path / "none", published[1], KIND, "thing")
    with pytest.raises(StoreError, match="thing is not in the cache"):
        cached.held(EVERY_FRAME)


async def test_another_kind_of_object_is_refused(
    published: tuple[Path, FramedRef], tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="expected 'other', got 'test'"):
        async with opened(published, tmp_path, kind="other"):
            pass
    short = replace(published[1], size_bytes=published[1].size_bytes - 1)
    with pytest.raises(TransferError):
        async with opened((published[0], short), tmp_path / "short"):
            pass
