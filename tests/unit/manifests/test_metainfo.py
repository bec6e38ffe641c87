"""Torrents as bytes: layout, names, links, and what the reader refuses."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from manifests.errors import ManifestError
from manifests.torrents.bencode import decode, encode
from manifests.torrents.metainfo import Outer, contents_of, magnet, make_torrent
from manifests.torrents.pieces import PieceColumns
from manifests.torrents.reader import read_torrent
from manifests.torrents.terms import MAX_METAINFO_BYTES, InfoHashes
from tests.support.torrents import (
    KIB,
    LAYOUT,
    NOISE,
    contents_of_files,
    entries_of_files,
    hash_file,
    whole,
)

PIECE = 16 * KIB
FILES = {
    3: ("png", NOISE[:PIECE]),
    30: ("jpg", NOISE[: 2 * PIECE + 5]),
    6: ("webm", b""),
    2: ("png", NOISE[7:20]),
}
Document = dict[bytes, Any]


def document(*, hybrid: bool = True, outer: Outer | None = None) -> Document:
    data = make_torrent(contents_of_files(FILES, PIECE, hybrid=hybrid), outer or Outer()).data
    value = decode(data, "t", max_bytes=10**6, max_values=1000)
    assert isinstance(value, dict)
    return value


def test_files_come_in_the_order_of_their_bytes_with_pads_between() -> None:
    info = document()[b"info"]
    assert [(b"/".join(file[b"path"]), file[b"length"]) for file in info[b"files"]] == [
        (b"0000/3.png", PIECE),
        (b"0000/30.jpg", 2 * PIECE + 5),
        (b".pad/16379", PIECE - 5),
        (b"0000/6.webm", 0),
        (b"0002/2.png", 13),
        (b".pad/16371", PIECE - 13),
    ]
    assert list(info) == [
        b"file tree",
        b"files",
        b"meta version",
        b"name",
        b"piece length",
        b"pieces",
    ]
    assert list(info[b"file tree"]) == [b"0000", b"0002"]
    assert info[b"file tree"][b"0000"][b"6.webm"] == {b"": {b"length": 0}}


def test_v2_only_lists_files_once() -> None:
    info = document(hybrid=False)[b"info"]
    assert not {b"files", b"pieces"} & info.keys()


def test_a_single_file_has_no_pad() -> None:
    torrent = make_torrent(contents_of_files({3: ("png", b"abc")}, PIECE), Outer())
    assert hashlib.sha1(b"abc", usedforsecurity=False).digest() in torrent.data
    assert b".pad" not in torrent.data


def test_what_stands_around_changes_no_hash() -> None:
    contents = contents_of_files(FILES, PIECE)
    outer = Outer(
        trackers=(("http://a/announce", "http://b/announce"), ("udp://c:1",)),
        web_seeds=("https://h/files/drawn2020/",),
        comment="drawn2020, original 0000-0002",
        created_s=1_600_000_000,
    )
    plain, full = make_torrent(contents, Outer()), make_torrent(contents, outer)
    assert plain.info_hashes == full.info_hashes
    value = document(outer=outer)
    assert value[b"announce"] == b"http://a/announce"
    assert value[b"announce-list"] == [
        [b"http://a/announce", b"http://b/announce"],
        [b"udp://c:1"],
    ]
    assert value[b"url-list"] == [b"https://h/files/drawn2020/"]
    assert value[b"creation date"] == 1_600_000_000
    assert set(document()) == {b"info", b"piece layers"}


def test_a_private_torrent_has_hashes_of_its_own() -> None:
    public, private = (
        make_torrent(contents_of_files(FILES, PIECE, private=private), Outer())
        for private in (False, True)
    )
    assert public.info_hashes != private.info_hashes
    assert read_torrent(private.data).contents.private


def test_trackers_know_a_hybrid_by_both_hashes() -> None:
    both = InfoHashes(v1=b"1" * 20, v2=b"2" * 32)
    assert both.announced == (b"1" * 20, b"2" * 20)
    assert InfoHashes(v1=None, v2=b"2" * 32).announced == (b"2" * 20,)


def test_a_magnet_link() -> None:
    link = magnet(
        InfoHashes(v1=b"\x01" * 20, v2=b"\x02" * 32),
        name="drawn 2020",
        trackers=(("http://t/a?b&c",), ("udp://u:1", "http://t/a?b&c")),
    )
    assert link == (
        f"magnet:?xt=urn:btih:{'01' * 20}&xt=urn:btmh:1220{'02' * 32}&dn=drawn%202020"
        "&tr=http%3A%2F%2Ft%2Fa%3Fb%26c&tr=udp%3A%2F%2Fu%3A1"
    )


def test_hashes_of_other_files_are_refused() -> None:
    entries = entries_of_files(FILES)
    for count in (len(entries), len(entries) - 1):
        others = PieceColumns.joined([hash_file(b"x", PIECE)] * count, PIECE)
        with pytest.raises(ManifestError, match="not those of the entries"):
            contents_of(entries, others, whole(entries), layout=LAYOUT, variant="original")


def _entry(info: Document) -> Document:
    entry: Document = info[b"file tree"][b"0000"][b"30.jpg"][b""]
    return entry


def _rename(info: Document, bucket: bytes, name: bytes) -> None:
    """Of v2 alone: the list of v1 would not agree."""
    del info[b"files"], info[b"pieces"]
    tree = info[b"file tree"]
    tree.setdefault(bucket, {})[name] = tree[b"0002"].pop(b"2.png")
    if not tree[b"0002"]:
        del tree[b"0002"]


def _misalign(info: Document) -> None:
    """Of another layout, and without pads."""
    _in_both(info, b"x", b"x")
    info[b"files"] = [item for item in info[b"files"] if b"attr" not in item]


def _in_both(info: Document, name: bytes, listed: bytes) -> None:
    """One file renamed in the tree and in the list of v1."""
    tree = info[b"file tree"][b"0002"]
    tree[name] = tree.pop(b"2.png")
    (file,) = (item for item in info[b"files"] if item[b"path"] == [b"0002", b"2.png"])
    file[b"path"] = [b"0002", listed]


def _lengthen(document: Document, root: bytes) -> None:
    document[b"piece layers"][root] += bytes(32)


def _cut(document: Document, root: bytes, size_bytes: int) -> None:
    document[b"piece layers"][root] = document[b"piece layers"][root][:size_bytes]


def _exchange(document: Document, root: bytes) -> None:
    document[b"piece layers"][root] = bytes(len(document[b"piece layers"][root]))


Edit = Callable[[Document, Document], Any]
EDITS: list[tuple[Edit, str, str]] = [
    (lambda _, i: i[b"files"].pop(), "info.files", "expected 6 items, got 5"),
    (lambda _, i: i[b"files"].append(7), "info.files", "expected 6 items, got 7"),
    (lambda _, i: i[b"files"].reverse(), "info.files[0]", ""),
    (lambda _, i: i[b"files"][0].update({b"md5sum": b"x"}), "info.files[0]", "has this key"),
    (lambda _, i: i[b"files"][0].update({b"length": 1}), "info.files[0].length", "16384, got 1"),
    (lambda _, i: i[b"files"][2].pop(b"attr"), "info.files[2].attr", "missing"),
    (lambda _, i: i[b"files"][4].update({b"path": [b".."]}), "files[4].path[0]", "got b'..'"),
    (lambda _, i: i.pop(b"files"), "info.files", "missing"),
    (lambda _, i: i.update({b"source": b"x"}), "info.source", "no torrent of ours"),
    (lambda _, i: i.update({b"private": 0}), "info.private", "expected 1, got 0"),
    (lambda _, i: i.update({b"meta version": 3}), "info['meta version']", "of version 3"),
    (lambda _, i: i.update({b"piece length": 2 * PIECE}), "info.pieces", "expected 80 bytes"),
    (lambda _, i: i.update({b"pieces": b"x" * 79}), "info.pieces", "expected 100 bytes"),
    (lambda _, i: i.update({b"name": b"metadata"}), "info.name", "not a variant"),
    (lambda _, i: i.update({b"name": b"../x"}), "info.name", "not a variant name"),
    (lambda _, i: _in_both(i, b"x", b"x"), "info['file tree']", "another layout"),
    (lambda _, i: _in_both(i, b"x", b"y"), "info.files", "not the files that the file tree has"),
    (lambda _, i: _misalign(i), "info.files[", "does not begin with a piece"),
    (lambda _, i: _rename(i, b"002", b"2.png"), "info['file tree']", "another layout"),
    (lambda _, i: _rename(i, b"0002", b".."), "info['file tree']", "another layout"),
    (lambda _, i: _rename(i, b"..", b"2.png"), "info['file tree']", "another layout"),
    (lambda _, i: _rename(i, b"0002", b"2"), "info['file tree']", "another layout"),
    (lambda _, i: i[b"file tree"].update({b"0003": {}}), "['file tree']['0003']", "empty folder"),
    (lambda _, i: i[b"file tree"].clear(), "info['file tree']", "no file"),
    (lambda _, i: _entry(i).update({b"length": 2**40}), "length", "expected 0 to"),
    (lambda _, i: _entry(i).update({b"length": -1}), "length", "expected 0 to"),
    (lambda _, i: _entry(i).update({b"attr": b"x"}), "['30.jpg'].attr", "no such key"),
    (lambda _, i: _entry(i).update({b"pieces root": b"x"}), "['pieces root']", "32 bytes"),
    (lambda _, i: _entry(i).update({b"pieces root": bytes(32)}), "['pieces root']", "32 bytes"),
    (lambda _, i: _entry(i).update({b"length": 2**40 - 1}), "info.pieces", "expected"),
    (
        lambda _, i: i[b"file tree"][b"0000"].update({b"": {b"length": 1}}),
        "['file tree']['0000']",
        "a folder with the properties of a file",
    ),
    (lambda d, i: _cut(d, _entry(i)[b"pieces root"], 0), "layers']", "0 bytes are no row"),
    (lambda d, i: _cut(d, _entry(i)[b"pieces root"], 95), "layers']", "95 bytes are no row"),
    (lambda d, i: _exchange(d, _entry(i)[b"pieces root"]), "layers']", "do not give the root"),
    (lambda d, _: d[b"piece layers"].clear(), "['piece layers']", "missing"),
    # A node of zeros is what the tree is filled up with, so the root stays what it was.
    (lambda d, i: _lengthen(d, _entry(i)[b"pieces root"]), "layers']", "96 bytes, got 128"),
    (lambda d, _: d.update({b"announce": 1}), "torrent.announce[0]", "expected a string"),
    (lambda d, _: d.update({b"announce-list": [b"x", 1]}), "['announce-list'][1]", "a list"),
    (lambda d, _: d.update({b"url-list": [b"x", b"\xff"]}), "['url-list'][1]", "UTF-8"),
    (lambda d, _: d.update({b"url-list": [b""] * 1001}), "['url-list']", "more than 1000 URLs"),
    (lambda d, _: d.update({b"comment": []}), "torrent.comment", "expected a string"),
    (lambda d, _: d.update({b"creation date": b"1"}), "['creation date']", "an integer"),
    (lambda d, _: d[b"piece layers"].update({b"r": b""}), "layers'][72]", "no file has this"),
]


@pytest.mark.parametrize(("edit", "where", "problem"), EDITS)
def test_what_is_not_ours_is_refused_at_its_place(edit: Edit, where: str, problem: str) -> None:
    value = document()
    edit(value, value[b"info"])
    with pytest.raises(ManifestError) as caught:
        read_torrent(encode(value))
    assert where in caught.value.where
    assert problem in caught.value.problem


def test_a_torrent_may_have_a_thousand_web_seeds() -> None:
    value = document() | {b"url-list": [b"http://h/"] * 1000}
    assert len(read_torrent(encode(value)).outer.web_seeds) == 1000


def test_a_torrent_is_one_dictionary() -> None:
    with pytest.raises(ManifestError, match=r"^torrent: expected a dictionary, got"):
        read_torrent(b"le")
    data = make_torrent(contents_of_files(FILES, PIECE), Outer()).data
    with pytest.raises(ManifestError, match="2 bytes too many"):
        read_torrent(data + b"de")


V1_FILE: Document = {b"length": 5, b"path": [b"a"]}


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({b"files": [V1_FILE]}, "a torrent of v1 only"),
        ({b"files": [V1_FILE, {b"path": [b"l"], b"symlink path": [b"a"]}]}, "of v1 only"),
        ({b"length": 5}, "a torrent of v1 only"),
        ({b"files": []}, "no file in it"),
        ({b"files": [7]}, "expected a dictionary"),
        ({b"files": [V1_FILE | {b"path": []}]}, "expected names, at least one"),
        ({b"files": [V1_FILE | {b"path": [7]}]}, "expected names, at least one"),
        ({b"files": [V1_FILE | {b"length": 0}]}, "no file with a byte in it"),
        ({b"length": 5, b"pieces": bytes(40)}, "40 bytes, expected 20 for each of 1 pieces"),
        ({b"length": PIECE + 1}, "20 bytes, expected 20 for each of 2 pieces"),
    ],
)
def test_what_is_wrong_with_a_torrent_of_v1_is_said_first(info: Document, problem: str) -> None:
    whole: Document = {b"name": b"birds", b"piece length": PIECE, b"pieces": bytes(20)} | info
    with pytest.raises(ManifestError, match=problem):
        read_torrent(encode({b"info": whole}))


def test_a_layer_that_many_files_share_is_not_multiplied_without_end() -> None:
    """In v2 only a layer is there once; 3,000 files that share one of 200 hashes need 19 MB."""
    size = 200 * PIECE
    one = hash_file((NOISE * 2)[:size], PIECE, hybrid=False)
    file: Document = {b"": {b"length": size, b"pieces root": one.root}}
    info: Document = {
        b"file tree": {b"0000": {b"%d.png" % number: file for number in range(1, 3001)}},
        b"meta version": 2,
        b"name": b"original",
        b"piece length": PIECE,
    }
    data = encode({b"info": info, b"piece layers": {one.root: one.layer}})
    with pytest.raises(ManifestError, match="600000 hashes, more than a torrent can have"):
        read_torrent(data)


def test_a_torrent_of_too_many_files_is_refused() -> None:
    tree = {b"0": {b"%d.png" % number: {b"": {b"length": 0}} for number in range(1, 5002)}}
    info: Document = {
        b"file tree": tree,
        b"meta version": 2,
        b"name": b"o",
        b"piece length": PIECE,
    }
    with pytest.raises(ManifestError, match="more than 5000 files"):
        read_torrent(encode({b"info": info, b"piece layers": {}}))


def test_the_largest_torrent_of_ours_can_be_read() -> None:
    """5,000 files, each with a pad, in 5,000 buckets: within the limit of values."""
    data = {number: ("png", NOISE[number : number + 9]) for number in range(1, 5001)}
    layout = type(LAYOUT)(buckets=5000, digits=4)
    contents = contents_of_files(data, PIECE, layout=layout)
    assert np.array_equal(
        read_torrent(make_torrent(contents, Outer()).data).contents.hashes.sizes,
        contents.hashes.sizes,
    )


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"l" * MAX_METAINFO_BYTES, "nested more than 64 deep"),
        (b"l" + b"0:" * 4_999_999 + b"e", "more than 250000 values"),
        (b"i" + b"1" * 9_999_998 + b"e", "not a canonical integer"),
        (b"d4:infol" + b"le" * 4_999_000, "more than 250000 values"),
        (bytes(MAX_METAINFO_BYTES + 1), "10000001 bytes, more than the limit"),
    ],
)
def test_what_is_costly_to_read_is_refused_early(data: bytes, problem: str) -> None:
    tracemalloc.start()
    with pytest.raises(ManifestError, match=problem):
        read_torrent(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 32 * 2**20
