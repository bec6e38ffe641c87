"""A publisher who signs what must not be: our command clones it, is refused, and writes nothing.

Signatures, lengths and digests all hold, so only the decoders stand between what he says and the
disk.  The rules one by one are tested with the decoders (tests/unit/manifests); here a whole run
shows exit code, place and tree for at least one break of each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests import codec
from manifests.columns import CHUNK_BYTES
from manifests.digest import Digest
from manifests.errors import ExitCode
from manifests.framed import MAGIC
from manifests.metadata.rowfile import KIND as ROWS_KIND
from manifests.paths import MAX_ID
from manifests.tagindex.build import KIND as TAGS_KIND
from tests.support.client import Run, bucketsync, contents
from tests.support.faultreport import Record
from tests.support.forgery import HOSTILE_FRAMES, Forgery, Frame, compress, lies_about_its_size
from tests.support.hostile import HostilePublisher
from tests.support.publisher import files_below
from tests.support.rawhost import raw_host

GOOD = Frame(bucket=0, first=1)
LARGE = CHUNK_BYTES + 1
MIB = 2**20


@pytest.fixture
def publisher(tmp_path: Path) -> HostilePublisher:
    return HostilePublisher(tmp_path / "publisher")


def refused(publisher: HostilePublisher, folder: Path, place: str, *flags: str) -> Run:
    """Clone; exit 6, the place is named, and nothing is anywhere but in the tree's own folder."""
    run = clone(publisher, folder, *flags)
    assert run.code == ExitCode.REFUSED, run.text
    assert re.search(place, run.error), run.error
    return run


def clone(publisher: HostilePublisher, folder: Path, *flags: str) -> Run:
    """Clone what cannot be had; nothing is anywhere but in the tree's own folder."""
    tree = folder / "user" / "tree"
    tree.parent.mkdir()
    before = files_below(folder)
    with raw_host(publisher.repo) as host:
        run = bucketsync("clone", host.url, tree, "--retries", "2", "--source", "http", *flags)
    assert contents(tree) == {}
    written = files_below(folder).keys() - before.keys()
    assert all(path.startswith("user/tree/.bucketsync/") for path in written), written
    return run


MANIFESTS = {
    "ids that repeat": (
        Frame(bucket=1, steps=[0, 0], sizes=[1, 1]),
        r"rows\[1\]\.ids: not strict",
    ),
    "ids that fall": (
        Frame(bucket=1, first=5, steps=[0, 2**32 - 1], sizes=[1, 1]),
        r"rows\[1\]\.ids: an id outside",
    ),
    "an id over the limit": (
        Frame(bucket=6, first=MAX_ID // 10),
        r"rows\[1\]\.ids: an id outside",
    ),
    "a count too large": (Frame(bucket=1, count=2), r"rows\[1\]: 42 bytes are too few for 2"),
    "a count too small": (
        Frame(bucket=1, steps=[0, 1], sizes=[1, 99], count=1, file_bytes=100),
        r"rows\[1\]: states 84 bytes",
    ),
    "sizes that do not add up": (Frame(bucket=1, file_bytes=99), r"rows\[1\]\.sizes: do not add"),
    "an extension of nothing": (Frame(bucket=1, exts=[7]), r"rows\[1\]\.extensions: a code"),
    "a chunk too few": (
        Frame(bucket=1, sizes=[LARGE], chunks=bytes(32)),
        r"rows\[1\]\.chunks: not one digest",
    ),
    "a chunk too many": (Frame(bucket=1, chunks=bytes(32)), r"rows\[1\]\.chunks: not one digest"),
    "a bucket of none": (Frame(bucket=10), r"rows\[1\]\.bucket: no such bucket"),
    "rows out of order": (Frame(bucket=0, first=0), r"rows\[1\]\.first: not after"),
    "frames that overlap": (Frame(bucket=0, first=1), r"rows\[1\]\.first: not after"),
    "a bomb that says so": (
        Frame(bucket=1, data=compress(bytes(20 * MIB))[:1098]),
        r"rows\[1\]: ",
    ),
    "a bomb that lies": (
        Frame(bucket=1, data=lies_about_its_size(bytes(42), 2**32 - 1)),
        r"rows\[1\]: states 4294967295 bytes, at most 74",
    ),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_forged_frame(
    what: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    frame, place = MANIFESTS[what]
    good, bad = Forgery().make(), Forgery(frames=[GOOD, frame]).make()
    publisher.publish(codec.encode(publisher.release(good, bad)))
    refused(publisher, tmp_path, rf"birds1/original\.{place}")
    record("hostile publisher: manifests", survived=1)


def test_a_frame_that_reaches_into_the_next(publisher: HostilePublisher, tmp_path: Path) -> None:
    reaching = Frame(first=1, steps=[0, 7], sizes=[1, 1])
    forged = Forgery(frames=[reaching, Frame(first=5)]).make()
    publisher.publish(codec.encode(publisher.release(forged)))
    refused(publisher, tmp_path, r"birds1/original\.rows\[0\]\.ids: reaches into the next row")


HEADERS = {
    "another format": (Forgery(fields={"format": 2}), r"format: expected 1"),
    "an extension that climbs": (Forgery(fields={"extensions": ["/../../x"]}), r"extensions\[0\]"),
    "an extension with a backslash": (
        Forgery(fields={"extensions": ["a\\b"]}),
        r"extensions\[0\]",
    ),
    "an extension with a NUL": (Forgery(fields={"extensions": ["a\0"]}), r"extensions\[0\]"),
    "an extension with a space": (Forgery(fields={"extensions": ["jpg "]}), r"extensions\[0\]"),
    "buckets of another release": (Forgery(fields={"buckets": 20}), r"another number of buckets"),
    "more rows than columns": (Forgery(fields={"rows": 2}), r"bucket: expected 8 bytes"),
    "removed ids that repeat": (
        Forgery(removed=2, tail=compress(b"\1\0\0\0\1\0\0\0\0\0")),
        r"removed\.ids: .*unique",
    ),
    "entries that do not add up": (Forgery(ref={"entries": 2}), r"count: adds up to 1"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_forged_header(
    what: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    forgery, place = HEADERS[what]
    publisher.publish(codec.encode(publisher.release(forgery.make())))
    refused(publisher, tmp_path, rf"birds1/original.*{place}")
    record("hostile publisher: manifests", survived=1)


def test_a_header_that_is_a_bomb(publisher: HostilePublisher, tmp_path: Path) -> None:
    forged = Forgery().seal(compress(bytes(20 * MIB)), 2**32 - 1)
    publisher.publish(codec.encode(publisher.release(forged)))
    refused(publisher, tmp_path, r"birds1/original\.header: states 20971520 bytes, at most")


PATHS = {
    "climbs": "../outside",
    "climbs later": "docs/../../outside",
    "is absolute": "/outside",
    "has a backslash": "..\\outside",
    "has a drive": "C:outside",
    "has a NUL": "docs/a\0b",
    "is a device": "CON",
    "is a device with an extension": "docs/aux.txt",
    "ends in a dot": "docs./readme",
    "ends in a space": "docs/readme ",
    "is not in form C": "docs/e\u0301.txt",
    "lies in the client's folder": ".bucketsync/config.toml",
    "lies in it in another case": ".BucketSync/state.db",
    "lies in it but for what is not seen": ".bucket\u200csync/state.db",
    "is the place of an entry": "original/0001/1.jpg",
    "is a bucket": "original/0001",
}


@pytest.mark.parametrize("what", PATHS)
def test_an_asset_whose_path(
    what: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    refused_assets(publisher, tmp_path, r"birds1\.assets\[1\]\.path: ", "#first", PATHS[what])
    record("hostile publisher: paths", survived=1)


def refused_assets(publisher: HostilePublisher, folder: Path, place: str, *paths: str) -> None:
    digest = publisher.put(b"an asset")
    assets = [{"path": path, "size": 8, "digest": digest.raw} for path in paths]
    publisher.publish(codec.encode(publisher.release(Forgery().make()) | {"assets": assets}))
    refused(publisher, folder, place)


@pytest.mark.parametrize(
    "paths",
    [
        ("docs/README", "docs/readme"),
        ("stra\u00dfe", "STRASSE"),
        ("\u00c9", "\u00e9"),
        ("ab", "a\u200db"),
        ("a", "a/b"),
        ("docs/a", "docs/a"),
    ],
)
def test_assets_that_are_one_file_somewhere(
    paths: tuple[str, str], publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    refused_assets(publisher, tmp_path, r"birds1\.assets", *sorted(paths))
    record("hostile publisher: paths", survived=1)


Document = dict[str, Any]


def manifest_map(document: Document) -> Document:
    found: Document = document["layers"][0]["manifests"]["original"]
    return found


DESCRIPTORS: dict[str, tuple[Callable[[Document], object], str]] = {
    "a variant that climbs": (
        lambda d: d["layers"][0]["manifests"].update({"..": manifest_map(d)}),
        r"layers\[0\]\.manifests",
    ),
    "a variant that is a device": (
        lambda d: d["layers"][0]["manifests"].update({"nul": manifest_map(d)}),
        r"layers\[0\]\.manifests",
    ),
    "the folder of metadata": (
        lambda d: d["layers"][0]["manifests"].update({"metadata": manifest_map(d)}),
        r"layers\[0\]\.manifests",
    ),
    "variants that differ in case": (
        lambda d: d["layers"][0]["manifests"].update({"Original": manifest_map(d)}),
        r"manifests: .*differ only in case",
    ),
    "a layer that climbs": (lambda d: d["layers"][0].update(name="../x"), r"layers\[0\]\.name"),
    "another release": (lambda d: d.update(release="birds9"), r"layers|release"),
    "another dataset's name": (lambda d: d.update(dataset="a/b"), r"dataset"),
    "another format": (lambda d: d.update(format=2), r"format: expected 1"),
    "no format": (lambda d: d.pop("format"), r"format"),
    "buckets without number": (lambda d: d.update(buckets=0), r"buckets"),
    "too few digits": (lambda d: d.update(digits=0), r"digits"),
    "a size that is negative": (lambda d: manifest_map(d).update(size=-1), r"original\.size"),
    "a size that is text": (lambda d: manifest_map(d).update(size="1"), r"original\.size"),
    "a header larger than all": (
        lambda d: manifest_map(d).update(header_size=2**31),
        r"original\.header_size",
    ),
    "a digest cut short": (lambda d: manifest_map(d).update(digest=b"x"), r"original\.digest"),
    "a date beyond all": (lambda d: d["layers"][0].update(date=2**63), r"layers\[0\]\.date"),
    "more files than layers hold": (
        lambda d: d["variants"]["original"].update(files=99),
        r"variants\.original\.files",
    ),
}


@pytest.mark.parametrize("what", DESCRIPTORS)
def test_a_forged_descriptor(
    what: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    spoil, place = DESCRIPTORS[what]
    document = publisher.release(Forgery().make())
    spoil(document)
    publisher.publish(codec.encode(document))
    refused(publisher, tmp_path, rf"birds1\S*{place}|birds1\.({place})")
    record("hostile publisher: descriptors", survived=1)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"<html>", b"\x91" * 5000 + b"\x90", b"\xdd\xff\xff\xff\xff", b"\xc1" * 100],
    ids=["nothing", "no field", "a page", "nested", "4 billion items", "no msgpack"],
)
def test_a_descriptor_that_is_none(
    data: bytes, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    publisher.publish(data)
    refused(publisher, tmp_path, r"birds1")
    record("hostile publisher: descriptors", survived=1)


def absences(**changes: object) -> bytes:
    absence = {"layer": "birds1", "variant": "original", "reason": "gone", "count": 1}
    absence |= {"ids": b"\1\0\0\0"} | changes
    return codec.encode({"format": codec.FORMAT, "absences": [absence]})


@pytest.mark.parametrize(
    ("notices", "place"),
    [
        (absences(count=2, ids=b"\2\0\0\0\1\0\0\0"), r"absences\[0\]\.ids"),
        (absences(count=2, ids=b"\1\0\0\0\1\0\0\0"), r"absences\[0\]\.ids"),
        (absences(ids=b"\0\0\0\0"), r"absences\[0\]\.ids"),
        (absences(count=2), r"absences\[0\]\.ids"),
        (absences(variant=".."), r"absences\[0\]\.variant"),
        (absences(layer="a/b"), r"absences\[0\]\.layer"),
        (b"\xc1", r"notices"),
    ],
)
def test_forged_notices(
    notices: bytes, place: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    publisher.publish(codec.encode(publisher.release(Forgery().make())), notices)
    refused(publisher, tmp_path, rf"notices.*{place}|{place}")
    record("hostile publisher: notices", survived=1)


@pytest.mark.parametrize("what", HOSTILE_FRAMES)
def test_a_frame_that_is_not_one_frame(
    what: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    frame = Frame(bucket=1, data=HOSTILE_FRAMES[what](Frame(bucket=1).inside()))
    publisher.publish(codec.encode(publisher.release(Forgery(frames=[GOOD, frame]).make())))
    refused(publisher, tmp_path, r"birds1/original\.rows\[1\]")
    record("hostile publisher: manifests", survived=1)


_FRAMES = b"no frame of anything"


def framed(publisher: HostilePublisher, header: bytes) -> Document:
    """The reference to a framed object of any header, whose digests match."""
    packed = compress(header)
    data = MAGIC + _FRAMES + packed
    return {
        "digest": publisher.put(data).raw,
        "size": len(data),
        "header_digest": Digest.of(packed).raw,
        "header_size": len(packed),
    }


def framed_map(kind: str, **sections: Document) -> Document:
    return {"format": codec.FORMAT, "kind": kind, "about": {}, "sections": sections}


def one_frame(start: int, length: int, **changes: object) -> Document:
    frame = {"frames": 1, "start": start.to_bytes(8, "little"), "key": bytes(4)}
    return {**frame, "length": length.to_bytes(4, "little"), "digest": bytes(32), **changes}


FRAMED: dict[str, tuple[Document, str]] = {
    "of another kind": (framed_map("nothing"), r"header\.kind: expected"),
    "with a frame outside": (framed_map("KIND", rows=one_frame(2**40, 9)), r"outside the object"),
    "with a frame of four gigabytes": (
        framed_map("KIND", rows=one_frame(8, 2**32 - 1)),
        r"outside the object|more than",
    ),
    "with too few digests": (
        framed_map("KIND", rows=one_frame(8, 1, digest=b"")),
        r"digest: expected 32 bytes",
    ),
    "with a frame of nothing": (
        framed_map("KIND", rows=one_frame(8, 20, digest=Digest.of(_FRAMES).raw)),
        r"birds1/tags|metadata\.posts\.rows\[0\]",
    ),
    "with no sections": ({"format": codec.FORMAT, "kind": "KIND", "about": {}}, r"sections"),
}


@pytest.mark.parametrize("what", FRAMED)
def test_a_tag_index(
    what: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    document, place = FRAMED[what]
    document = {**document, "kind": document["kind"].replace("KIND", TAGS_KIND)}
    release = publisher.release(Forgery().make())
    release["tag_index"] = framed(publisher, codec.encode(document))
    publisher.publish(codec.encode(release))
    refused(publisher, tmp_path, place, "--select", "a")
    record("hostile publisher: tag index", survived=1)


@pytest.mark.parametrize("what", FRAMED)
def test_a_table_of_metadata(
    what: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    document, place = FRAMED[what]
    document = {**document, "kind": document["kind"].replace("KIND", ROWS_KIND)}
    release = publisher.release(Forgery().make())
    table = framed(publisher, codec.encode(document))
    release["metadata"] = [{"name": "posts", "rows": 1, "bytes": 9, **table}]
    publisher.publish(codec.encode(release))
    refused(publisher, tmp_path, place, "--with-metadata")
    record("hostile publisher: metadata", survived=1)


@pytest.mark.parametrize("name", ["../posts", "a/b", "con", "posts ", ""])
def test_a_table_whose_name_is_no_name(
    name: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    release = publisher.release(Forgery().make())
    table = framed(publisher, codec.encode(framed_map(ROWS_KIND)))
    release["metadata"] = [{"name": name, "rows": 1, "bytes": 9, **table}]
    publisher.publish(codec.encode(release))
    refused(publisher, tmp_path, r"metadata\[0\]\.name", "--with-metadata")
    record("hostile publisher: metadata", survived=1)


def torrent(publisher: HostilePublisher, data: bytes) -> Document:
    hashes = {"v1": bytes(20), "v2": bytes(32)}
    digest = publisher.put(data).raw
    return {"first": 0, "last": 9, "part": 0, "digest": digest, "size": len(data), **hashes}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"first": 9, "last": 0}, r"torrents\[0\]\.first"),
        ({"v2": b"x"}, r"torrents\[0\]\.v2"),
        ({"size": 2**40}, r"torrents\[0\]\.size"),
        ({"part": 2}, r"torrents\[0\]\.part"),
    ],
)
def test_a_set_of_torrents(
    changes: Document, place: str, publisher: HostilePublisher, tmp_path: Path, record: Record
) -> None:
    release = publisher.release(Forgery().make())
    listed = [torrent(publisher, b"de") | changes]
    named = {"piece": 2**14, "hybrid": 1, "private": 0, "torrents": listed}
    release["layers"][0]["torrents"] = {"original": named}
    publisher.publish(codec.encode(release))
    refused(publisher, tmp_path, rf"layers\[0\]\.torrents\.original\.{place}")
    record("hostile publisher: torrents", survived=1)


@pytest.mark.parametrize(
    "data",
    [
        b"de",
        b"",
        b"d4:infod4:name9:../../../ee",
        b"l" * 100_000,
        b"d4:info" + b"d1:a" * 60 + b"i1e" + b"e" * 61,
    ],
    ids=["empty", "nothing", "climbs", "nested", "deep"],
)
def test_a_torrent(data: bytes, publisher: HostilePublisher, tmp_path: Path) -> None:
    """Peers are a way to a file like any other: who needs them is told, others ask a host."""
    release = publisher.release(Forgery().make())
    named = {"piece": 2**14, "hybrid": 1, "private": 0, "torrents": [torrent(publisher, data)]}
    release["layers"][0]["torrents"] = {"original": named}
    publisher.publish(codec.encode(release))
    run = clone(publisher, tmp_path, "--source", "torrent", "--listen", "127.0.0.1:0")
    assert run.code == ExitCode.INCOMPLETE, run.text
    assert "a torrent of the release cannot be read" in run.text
