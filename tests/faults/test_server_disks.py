"""A host whose disk fails, or whose repository is published to, while it serves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.abuse import all_of, connect, is_served, statuses
from tests.support.faultreport import Record
from tests.support.host import running_host
from tests.support.mounts import bound
from tests.support.world import World, make_world

LARGE = 8 * 2**20


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_world(tmp_path)
    for post_id in (11, 21, 31):
        made.put("original", post_id, 2000)
    for post_id in (2, 12):
        made.put("original", post_id, LARGE)
    made.publish("y1")
    return made


def test_a_file_that_cannot_be_read_fails_alone(world: World, record: Record) -> None:
    """EIO: the file is there, and reading it fails, as from a bad sector."""
    bad, good = world.url("y1", "original", 11), world.url("y1", "original", 21)
    content = world.files["y1", "original", 21]
    # Nothing is mapped at its first byte, so to read that is an I/O error.
    memory = Path(f"/proc/{os.getpid()}/mem")
    with bound(memory, world.path("y1", "original", 11)), running_host(world.repo) as host:
        for path in (bad, world.pack_url("y1", "original", 1)):
            found = host.get(path)
            assert found.status in {410, 500}
            assert str(world.repo).encode() not in found.body
            assert is_served(host, good, content)
        assert host.get("/healthz").status == 200
    record("server: a file that cannot be read", survived=1)


def test_a_file_that_goes_while_it_is_sent_ends_one_answer(world: World, record: Record) -> None:
    url, good = world.url("y1", "original", 2), world.url("y1", "original", 21)
    with running_host(world.repo) as host, connect(host.port, window_bytes=4096) as connection:
        connection.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        found = connection.recv(1)
        world.path("y1", "original", 2).unlink()
        found += all_of(connection)
        assert len(found.partition(b"\r\n\r\n")[2]) < LARGE
        assert is_served(host, good, world.files["y1", "original", 21])
        assert is_served(host, world.url("y1", "original", 12), world.files["y1", "original", 12])
        assert host.get(url).status == 410
        assert host.metrics()["cut_answers_total"] == 1
    record("server: a file that goes while it is sent", survived=1)


def test_folders_that_vanish_are_not_found_and_come_back(world: World, record: Record) -> None:
    """A disk that is not mounted for a while."""
    with running_host(world.repo) as host:
        away = world.repo.with_name("away")
        for name in ("files", "objects", "tuf"):
            folder, url = world.repo / name, world.url("y1", "original", 21)
            asked = (url, world.pack_url("y1", "original", 1), *world.objects()[:1])
            folder.rename(away)
            assert {host.get(path).status for path in asked} <= {200, 404, 410, 500}
            assert host.get("/metrics").status == 200
            away.rename(folder)
            assert is_served(host, url, world.files["y1", "original", 21])
    record("server: folders that vanish", tried=3, survived=3)


def test_a_release_published_meanwhile_disturbs_no_answer(world: World, record: Record) -> None:
    url, content = world.url("y1", "original", 2), world.files["y1", "original", 2]
    with running_host(world.repo) as host, connect(host.port, window_bytes=4096) as connection:
        request = f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        found = connection.recv(1)
        new = world.put("original", 41, 3000)
        world.put("original", 2, LARGE)
        world.publish("y2")
        assert is_served(host, world.url("y2", "original", 41), new)
        found += all_of(connection)
        assert statuses(found[:100]) == [200]
        assert found.partition(b"\r\n\r\n")[2] == content
        assert is_served(host, url, content)
        assert is_served(host, world.url("y2", "original", 2), world.files["y2", "original", 2])
    record("server: a release published meanwhile", survived=1)
