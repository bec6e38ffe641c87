"""Bencoding is canonical both ways and bounded."""

from __future__ import annotations

import pytest

from manifests.errors import ManifestError
from manifests.torrents.bencode import Encoded, Value, decode, encode, head


def read(data: bytes, **limits: int) -> Value:
    return decode(data, "doc", **{"max_bytes": 10**6, "max_values": 1000, **limits})


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, b"i0e"),
        (-12, b"i-12e"),
        (b"spam", b"4:spam"),
        (b"", b"0:"),
        ([b"a", [], 1], b"l1:alei1ee"),
        ({b"b": 1, b"a": {}, b"": b"x"}, b"d0:1:x1:ade1:bi1ee"),
        ({b"\xff": 1, b"z": 2}, b"d1:zi2e1:\xffi1ee"),
    ],
)
def test_examples(value: Value, data: bytes) -> None:
    assert encode(value) == data
    assert read(data) == value


@pytest.mark.parametrize(
    ("data", "at", "problem"),
    [
        (b"", 0, "expected a value, got the end"),
        (b"x", 0, "expected a value, got byte 0x78"),
        (b"i01e", 0, "integer"),
        (b"i-0e", 0, "integer"),
        (b"i1", 0, "integer"),
        (b"ie", 0, "integer"),
        (b"i 1e", 0, "integer"),
        (b"i" + b"9" * 20 + b"e", 0, "integer of 64 bits"),
        (b"01:a", 0, "length"),
        (b"1", 0, "length"),
        (b"5:spam", 0, "a string of 5 bytes, but 4 left"),
        (b"9999999999:", 0, "a string of 9999999999 bytes"),
        (b"l1:a", 4, "expected a value, got the end"),
        (b"di1ei1ee", 1, "length"),
        (b"d1:bi1e1:ai2ee", 10, "key b'a' does not come after b'b'"),
        (b"d1:ai1e1:ai2ee", 10, "key b'a' does not come after b'a'"),
        (b"d1:ae", 4, "expected a value, got byte 0x65"),
        (b"i1ei2e", 3, "3 bytes too many"),
    ],
)
def test_any_other_encoding_is_refused_at_its_byte(data: bytes, at: int, problem: str) -> None:
    with pytest.raises(ManifestError, match="not canonical bencoding") as caught:
        read(data)
    assert caught.value.where == "doc"
    assert f"at byte {at}: " in caught.value.problem
    assert problem in caught.value.problem


def test_limits_are_the_last_that_pass() -> None:
    nested = b"l" * 5 + b"e" * 5
    assert read(nested, max_depth=5, max_values=5, max_bytes=10)
    with pytest.raises(ManifestError, match="nested more than 4 deep"):
        read(nested, max_depth=4)
    with pytest.raises(ManifestError, match="more than 4 values"):
        read(nested, max_values=4)
    with pytest.raises(ManifestError, match="10 bytes, more than the limit of 9"):
        read(nested, max_bytes=9)


def test_keys_count_as_values() -> None:
    assert read(b"d1:ai1ee", max_values=3)
    with pytest.raises(ManifestError, match="more than 2 values"):
        read(b"d1:ai1ee", max_values=2)


def test_what_is_encoded_already_is_copied() -> None:
    assert encode({b"a": Encoded(b"i7e")}) == b"d1:ai7ee"


@pytest.mark.parametrize("value", [True, 1.5, "text", None, {1: b"x"}])
def test_what_has_no_bencoding_is_a_mistake(value: object) -> None:
    with pytest.raises(TypeError):
        encode([value])  # type: ignore[list-item]


def test_the_head_is_that_of_a_dictionary() -> None:
    assert head(b"d1:ai1e1:zi2ee", "t", b"b", max_values=9) == {b"a": 1}
    with pytest.raises(ManifestError, match="expected a dictionary"):
        head(b"l1:ai1ee", "t", b"b", max_values=9)
