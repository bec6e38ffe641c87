"""Canonical msgpack: one encoding a value, located errors, and bombs that do not go off."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from manifests import codec
from manifests.codec import Fields
from manifests.digest import Digest
from manifests.errors import ManifestError

HEAD = b"\xa6format\x01"
MIB = 2**20


def decode(data: bytes) -> Fields:
    return codec.decode(data, "doc", max_bytes=64 * MIB)


def refusal(data: bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        decode(data)
    return caught.value


def fields(**values: object) -> Fields:
    return Fields("doc", values)


def test_keys_are_sorted_by_their_bytes_at_every_depth() -> None:
    value = {"é": 1, "z": [{"b": 1, "a": 2}], "aa": None, "a": b"x", "format": 1}
    assert codec.encode(value) == (
        b"\x85\xa1a\xc4\x01x\xa2aa\xc0" + HEAD + b"\xa1z\x91\x82\xa1a\x02\xa1b\x01\xa2\xc3\xa9\x01"
    )
    assert codec.encode(dict(reversed(value.items()))) == codec.encode(value)
    assert decode(codec.encode(value)).keys() == ["a", "aa", "format", "z", "é"]


@pytest.mark.parametrize("value", [1.5, {1, 2}, bytearray(b"x"), msgpack.Timestamp(5)])
def test_values_without_a_canonical_form_are_not_written(value: object) -> None:
    with pytest.raises(TypeError, match="has no canonical form"):
        codec.encode({"format": 1, "z": [value]})


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("nothing", b""),
        ("no map", b"\x93\x01\x02\x03"),
        ("cut short", b"\x81\xa6form"),
        ("bytes after it", b"\x81" + HEAD + b"\xc0"),
        ("keys out of order", b"\x82\xa1z\x01" + HEAD),
        ("keys out of order inside", b"\x82" + HEAD + b"\xa1z\x82\xa1b\x01\xa1a\x01"),
        ("a key twice", b"\x82" + HEAD + HEAD),
        ("a key of bytes", b"\x82" + HEAD + b"\xc4\x01z\x01"),
        ("a key that is a number", b"\x82\x01\x01" + HEAD),
        ("a wide integer", b"\x81\xa6format\xcc\x01"),
        ("a signed integer", b"\x81\xa6format\xd0\x01"),
        ("a wide map", b"\xde\x00\x01" + HEAD),
        ("a wide text", b"\x81\xd9\x06format\x01"),
        ("a wide list", b"\x82" + HEAD + b"\xa1z\xdc\x00\x00"),
        ("wide bytes", b"\x82" + HEAD + b"\xa1z\xc5\x00\x01x"),
        ("text that is no UTF-8", b"\x82" + HEAD + b"\xa1z\xa1\xff"),
        ("a surrogate", b"\x82" + HEAD + b"\xa1z\xa3\xed\xa0\x80"),
        ("a float", b"\x82" + HEAD + b"\xa1z\xcb" + bytes(8)),
        ("an extension", b"\x82" + HEAD + b"\xa1z\xd4\x05x"),
        ("a timestamp", b"\x82" + HEAD + b"\xa1z\xd6\xff" + bytes(4)),
        ("a byte that is never used", b"\x82" + HEAD + b"\xa1z\xc1"),
        ("depth", b"\x82" + HEAD + b"\xa1z" + b"\x91" * 5000 + b"\xc0"),
        ("depth that can be read", b"\x82" + HEAD + b"\xa1z" + b"\x91" * 500 + b"\xc0"),
    ],
)
def test_only_the_canonical_encoding_is_read(what: str, data: bytes) -> None:
    error = refusal(data)
    assert error.where == "doc", what
    assert error.problem.startswith("not a canonical msgpack map"), what


def test_the_limit_of_bytes_comes_before_any_work() -> None:
    data = b"\x81" + HEAD
    assert codec.decode(data, "doc", max_bytes=len(data)).uint("format") == 1
    with pytest.raises(ManifestError, match=r"doc: 9 bytes, more than the limit of 8"):
        codec.decode(data, "doc", max_bytes=8)


@pytest.mark.parametrize("version", [0, 2, 2**64 - 1])
def test_other_versions_are_named_with_what_to_do(version: int) -> None:
    error = refusal(codec.encode({"format": version}))
    assert error.where == "doc.format"
    assert error.problem == f"expected 1, got {version}"
    assert "upgrade" in error.hint


def test_the_version_must_be_there() -> None:
    assert str(refusal(b"\x80")) == "doc.format: missing, expected an integer"
    assert str(refusal(b"\x81\xa6format\xc3")) == "doc.format: expected an integer, got bool"


def test_unknown_keys_are_left_alone() -> None:
    assert decode(codec.encode({"format": 1, "later": {"a": [True]}})).has("later")


def _lists(inner: bytes) -> bytes:
    """A canonical document of lists of 16 bits of length, each full of ``inner``."""
    full = b"\xdc\xff\xff" + inner * 0xFFFF
    many = len(range(0, 5 * MIB, len(full)))
    return b"\x82" + HEAD + b"\xa1z\xdc" + many.to_bytes(2, "big") + full * many


@pytest.mark.parametrize(
    ("what", "bomb"),
    [
        ("many empty maps", _lists(b"\x80")),
        ("many empty lists", _lists(b"\x90")),
        ("many nils", _lists(b"\xc0")),
        ("one long list", b"\x82" + HEAD + b"\xa1z\xdd\x00\x50\x00\x00" + bytes(5 * MIB)),
        ("one long map", b"\xdf\x00\x28\x00\x00" + b"\xa0\x01" * 5 * (MIB // 2)),
        ("lists in lists", b"\xdd\x00\x50\x00\x00" * 400 + bytes(5 * MIB)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bomb_costs_little_memory(what: str, bomb: bytes) -> None:
    tracemalloc.start()
    try:
        error = refusal(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.where == "doc", what
    assert peak < 64 * MIB, what


@pytest.mark.parametrize("count", [100_000, 100_001])
def test_lists_and_maps_have_a_limit_of_members(count: int) -> None:
    for value in ([0] * count, {f"{number:06}": 0 for number in range(count)}):
        data = codec.encode({"format": 1, "z": value})
        if count > 100_000:
            assert refusal(data).where == "doc"
        else:
            assert decode(data).has("z")


@pytest.mark.parametrize("more", [0, 1])
def test_a_document_has_a_limit_of_members_in_all(more: int) -> None:
    # Each list counts as one more than its members; the outer map has two.
    lists = [[0] * 100_000] * 12 + [[0] * (1_250_000 - 12 * 100_001 - 14 - 3 - 1 + more)]
    data = codec.encode({"format": 1, "z": lists})
    if more:
        assert "more than 1250000 items" in refusal(data).problem
    else:
        assert decode(data).has("z")


def test_a_document_as_large_as_any_may_be_is_read() -> None:
    ref = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7}
    asset = {"digest": b"", "path": "", "size": 0}
    largest = {
        "assets": [asset] * 100_000,
        "format": 1,
        "layers": [{"date": 0, "manifests": dict.fromkeys(map(str, range(64)), ref), "name": ""}]
        * 1000,
    }
    assert decode(codec.encode(largest)).has("assets")


Read = Callable[[Fields], Any]


@pytest.mark.parametrize(
    ("value", "read", "where", "problem"),
    [
        ({}, lambda f: f.uint("n"), "doc.n", "missing, expected an integer"),
        ({"n": -1}, lambda f: f.uint("n"), "doc.n", "expected 0 to 18446744073709551615, got -1"),
        ({"n": 8}, lambda f: f.uint("n", 7), "doc.n", "expected 0 to 7, got 8"),
        ({"n": True}, lambda f: f.uint("n"), "doc.n", "expected an integer, got bool"),
        ({"n": "1"}, lambda f: f.uint("n"), "doc.n", "expected an integer, got str"),
        ({"t": b"x"}, lambda f: f.text("t"), "doc.t", "expected text, got bytes"),
        ({"t": "xyz"}, lambda f: f.text("t", 2), "doc.t", "longer than 2 characters"),
        ({"t": "x" * 1025}, lambda f: f.text("t"), "doc.t", "longer than 1024 characters"),
        ({"b": "x"}, lambda f: f.blob("b", 1), "doc.b", "expected bytes, got str"),
        ({"b": b"xy"}, lambda f: f.blob("b", 1), "doc.b", "expected 1 bytes, got 2"),
        ({"b": "x"}, lambda f: f.blob_up_to("b", 1), "doc.b", "expected bytes, got str"),
        ({"b": b"xy"}, lambda f: f.blob_up_to("b", 1), "doc.b", "more than 1 bytes"),
        ({"l": [b"x"]}, lambda f: f.blobs("l", 2), "doc.l", "expected 2 items of bytes"),
        ({"l": [b"x", ""]}, lambda f: f.blobs("l", 2), "doc.l", "expected 2 items of bytes"),
        ({"l": [b""] * 3}, lambda f: f.blobs("l", 2), "doc.l", "more than 2 items"),
        ({"d": bytes(31)}, lambda f: f.digest("d"), "doc.d", "expected 32 bytes, got 31"),
        ({"m": []}, lambda f: f.map("m"), "doc.m", "expected a map, got list"),
        ({"m": {}}, lambda f: f.map("m").uint("n"), "doc.m.n", "missing, expected an integer"),
        ({"l": {}}, lambda f: f.texts("l", 9), "doc.l", "expected a list, got dict"),
        ({"l": ["a"] * 3}, lambda f: f.texts("l", 2), "doc.l", "more than 2 items"),
        (
            {"l": ["a", 1]},
            lambda f: f.texts("l", 9),
            "doc.l[1]",
            "expected text of at most 1024 characters",
        ),
        (
            {"l": ["a", "bcd"]},
            lambda f: f.texts("l", 9, 2),
            "doc.l[1]",
            "expected text of at most 2 characters",
        ),
        ({"l": [{}] * 3}, lambda f: list(f.maps("l", 2)), "doc.l", "more than 2 items"),
        ({"l": [{}, 1]}, lambda f: list(f.maps("l", 9)), "doc.l[1]", "expected a map, got int"),
        (
            {"l": [{"n": 1}, {}]},
            lambda f: [item.uint("n") for item in f.maps("l", 9)],
            "doc.l[1].n",
            "missing, expected an integer",
        ),
        (
            {"m": {"\x1b[2J": {}}},
            lambda f: f.map("m").map("\x1b[2J").uint("n"),
            "doc.m['\\x1b[2J'].n",
            "missing, expected an integer",
        ),
    ],
)
def test_every_error_names_its_place(
    value: dict[str, object], read: Read, where: str, problem: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        read(fields(**value))
    assert (caught.value.where, caught.value.problem) == (where, problem)


def test_every_type_is_read_back() -> None:
    digest = Digest.of(b"x")
    value = fields(
        n=7,
        t="é" * 1024,
        b=b"xy",
        bs=[b"", b"x"],
        d=digest.raw,
        m={"k": 1},
        l=["a", "b"],
        maps=[{"n": 1}],
        nil=None,
    )
    assert value.uint("n", 7) == 7
    assert value.text("t") == "é" * 1024
    assert value.blob("b", 2) == b"xy"
    assert value.blob_up_to("b", 2) == b"xy"
    assert value.blobs("bs", 2) == [b"", b"x"]
    assert value.digest("d") == digest
    assert value.map("m").uint("k") == 1
    assert value.texts("l", 2, 1) == ["a", "b"]
    assert [item.uint("n") for item in value.maps("maps", 1)] == [1]
    assert not value.has("nil")
    assert not value.has("absent")
    assert value.has("n")
    assert fields(n=2**64 - 1).uint("n") == 2**64 - 1


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(ManifestError, match="doc: key 1 is not text"):
        Fields("doc", {1: 2}).keys()


def test_a_long_key_is_cut_in_messages() -> None:
    assert len(fields().place("k" * 5000)) < 100
