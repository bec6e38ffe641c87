"""Files that are no longer what was published: refused, named, and never sent as if they were."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manifests.manifest import MAGIC
from server.hosting.joined import MAX_NAMED
from tests.support.host import TIMEOUT_S, Host, ask, running_host
from tests.support.world import World, make_world

LARGE = 24 * 2**20


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three files in every bucket: 10, 20 and 30, 11, 21 and 31, …."""
    made = make_world(tmp_path)
    for post_id in range(10, 40):
        made.put("original", post_id, 1000)
    return made


@pytest.fixture
def host(world: World) -> Iterator[Host]:
    world.publish("y1")
    with running_host(world.repo) as found:
        yield found


def overwrite(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"?" * path.stat().st_size)


def overwrite_and_keep_the_time(path: Path) -> None:
    """What nothing but an inode can tell."""
    before = path.stat()
    beside = path.with_name("new")
    beside.write_bytes(b"?" * before.st_size)
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.rename(path)


def append(path: Path) -> None:
    before = path.stat()
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"?")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def remove_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


CHANGES: list[Callable[[Path], None]] = [
    overwrite,
    append,
    Path.unlink,
    replace_by_link,
    replace_by_folder,
    replace_by_fifo,
    remove_folder,
]


def refused_ids(host: Host, path: str, range_header: str = "") -> list[int]:
    """The ids that a 410 names, by GET and by HEAD."""
    headers = {"Range": range_header} if range_header else {}
    found = ask(host.port, path, headers)
    assert found.status == 410
    assert found.headers["cache-control"] == "no-cache"
    fields = json.loads(found.body)
    assert fields["count"] == len(fields["ids"])
    assert ask(host.port, path, headers, "HEAD").status == 410
    return list(fields["ids"])


def test_a_file_that_changed_is_gone(world: World, host: Host) -> None:
    for bucket, change in enumerate(CHANGES):
        post_id = 20 + bucket
        path = world.url("y1", "original", post_id)
        assert host.get(path).body == world.files["y1", "original", post_id]
        change(world.path("y1", "original", post_id))
        assert refused_ids(host, path) == [post_id], change
        lost = refused_ids(host, world.pack_url("y1", "original", bucket))
        assert lost == ([16, 26, 36] if change is remove_folder else [post_id])
    host.stop()
    warnings = [event for event in host.events if event["event"] == "warning"]
    assert len(warnings) == 4 * len(CHANGES)
    assert host.events[-1]["files_refused"] == 4 * len(CHANGES) + 2 * 2


def test_the_rest_of_its_pack_is_served(world: World, host: Host) -> None:
    path, content = world.pack_url("y1", "original", 0), world.pack("y1", "original", 0)
    overwrite(world.path("y1", "original", 20))
    for header, expected in (("bytes=0-999", content[:1000]), ("bytes=2000-", content[2000:])):
        found = host.get(path, {"Range": header})
        assert (found.status, found.body) == (206, expected)
    for header in ("bytes=0-1000", "bytes=1999-1999", "bytes=0-0,1500-1500", "bytes=5-2500"):
        assert refused_ids_of_get(host, path, header) == [20]
    assert host.get(path, {"If-None-Match": found.headers["etag"]}).status == 304


def refused_ids_of_get(host: Host, path: str, header: str) -> list[int]:
    found = host.get(path, {"Range": header})
    assert found.status == 410
    return list(json.loads(found.body)["ids"])


@pytest.mark.parametrize("flags", [("--link", "hard"), ("--in-place",)])
def test_a_publisher_who_overwrites_his_tree_makes_no_wrong_bytes(
    world: World, flags: tuple[str, ...]
) -> None:
    world.publish("y1", *flags)
    with running_host(world.repo) as host:
        for bucket, change in enumerate([*CHANGES, overwrite_and_keep_the_time]):
            post_id = 20 + bucket
            path = world.url("y1", "original", post_id)
            assert host.get(path).body == world.files["y1", "original", post_id]
            linked = world.path("y1", "original", post_id)
            in_tree = world.tree / linked.relative_to(world.repo / "files" / "y1")
            assert linked.exists() == (flags != ("--in-place",))
            change(linked if linked.exists() else in_tree)
            assert refused_ids(host, path) == [post_id], change
            assert post_id in refused_ids(host, world.pack_url("y1", "original", bucket))


def test_an_entry_that_the_record_lacks_is_refused(world: World) -> None:
    world.publish("y1", "--link", "hard")
    (world.repo / ".publish" / "served" / "y1" / "original.npy").unlink()
    with running_host(world.repo) as host:
        assert refused_ids(host, world.url("y1", "original", 20)) == [20]


def test_a_refusal_names_some_and_counts_all(world: World) -> None:
    ids = range(100, 100 + 10 * (MAX_NAMED + 20), 10)
    for post_id in ids:
        world.put("original", post_id, 20_000)
    world.publish("y1")
    for post_id in ids:
        world.path("y1", "original", post_id).unlink()
    with running_host(world.repo) as host:
        found = json.loads(host.get(world.pack_url("y1", "original", 0)).body)
    assert found["ids"] == list(ids)[:MAX_NAMED]
    assert found["count"] == len(ids)


def test_a_damaged_manifest_is_an_error_of_the_host(world: World, host: Host) -> None:
    objects = (world.repo / "objects").glob("*/*")
    manifest = next(path for path in objects if path.read_bytes().startswith(MAGIC))
    manifest.chmod(0o644)
    manifest.write_bytes(b"?" * manifest.stat().st_size)
    assert host.get(world.pack_url("y1", "original", 0)).status == 500
    manifest.unlink()
    assert host.get(world.pack_url("y1", "original", 0)).status == 500
    host.stop()
    warnings = [event["message"] for event in host.events if event["event"] == "warning"]
    assert len(warnings) == 2
    assert "is missing" in warnings[1]


# --------------------------------------------------------------------------- under way


def begin_slowly(host: Host, path: str) -> socket.socket:
    """Ask for a large answer, and take little of it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    connection.settimeout(TIMEOUT_S)
    connection.connect(("127.0.0.1", host.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def rest_of(connection: socket.socket) -> tuple[int, int]:
    """The length that an answer announced and the bytes that came, up to it or to the end."""
    with connection:
        head, _, body = connection.recv(2**16).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        lines = (line.partition(b": ") for line in head.splitlines())
        length = next(int(value) for name, _, value in lines if name == b"Content-Length")
        received = len(body)
        while received < length and (data := connection.recv(2**20)):
            received += len(data)
    return length, received


SHAPES = {
    "many small files": dict.fromkeys(range(10, 340, 10), 10**6),
    "one large file": {10: LARGE},
    "a large file and a small one": {10: LARGE, 20: 10},
}


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_a_slow_client_gets_all_of_it(world: World, sizes: dict[int, int]) -> None:
    for post_id, size_bytes in sizes.items():
        world.put("512px", post_id, size_bytes)
    world.publish("y1")
    path, content = world.pack_url("y1", "512px", 0), world.pack("y1", "512px", 0)
    with running_host(world.repo) as host, begin_slowly(host, path) as connection:
        assert rest_of(connection) == (len(content), len(content))


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("change", [overwrite, Path.unlink])
def test_a_change_under_way_cuts_the_answer(
    world: World, sizes: dict[int, int], change: Callable[[Path], None]
) -> None:
    for post_id, size_bytes in sizes.items():
        world.put("512px", post_id, size_bytes)
    world.publish("y1")
    with running_host(world.repo) as host:
        connection = begin_slowly(host, world.pack_url("y1", "512px", 0))
        connection.recv(1, socket.MSG_PEEK)
        change(world.path("y1", "512px", max(sizes)))
        length, received = rest_of(connection)
        assert received < length
        # Who asks again hears which file it is, wherever in the pack that lies.
        again = host.get(world.pack_url("y1", "512px", 0))
        assert (again.status, json.loads(again.body)["ids"]) == (410, [max(sizes)])
        host.stop()
    cut, refused = [event["message"] for event in host.events if event["event"] == "warning"]
    assert "connection cut" in cut
    assert ": 410: " in refused
