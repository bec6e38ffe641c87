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
from manifests.errors import ExitCode
from manifests.paths import MAX_ID
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
    tree = folder / "user" / "tree"
    tree.parent.mkdir()
    before = files_below(folder)
    with raw_host(publisher.repo) as host:
        run = bucketsync("clone", host.url, tree, "--source", "http", "--retries", "2", *flags)
    assert run.code == ExitCode.REFUSED, run.text
    assert re.search(place, run.error), run.error
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
