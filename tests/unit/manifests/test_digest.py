"""BLAKE3 names every object: the official vectors, and digests as text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.digest import Digest, digest_bytes
from manifests.errors import ManifestError

VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "blake3" / "test_vectors.json"
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.skipif(
    not VECTORS.exists(), reason=f"BLAKE3 vectors: put BLAKE3's test_vectors.json at {VECTORS}"
)
def test_official_vectors() -> None:
    cases = json.loads(VECTORS.read_bytes())["cases"]
    assert len(cases) == 35
    for case in cases:
        data = bytes(index % 251 for index in range(case["input_len"]))
        assert Digest.of(data).hex == case["hash"][:64], case["input_len"]
        assert digest_bytes(memoryview(data)).hex() == case["hash"][:64]


def test_digest_of_nothing() -> None:
    assert str(Digest.of(b"")) == Digest.of(bytearray()).hex == EMPTY


def test_hex_is_read_in_either_case_and_written_in_lower() -> None:
    assert Digest.from_hex(EMPTY.upper()) == Digest.of(b"")
    assert Digest.from_hex(EMPTY.upper()).hex == EMPTY


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY[:-1],
        EMPTY + "0",
        EMPTY[:-1] + "g",
        EMPTY[:32] + " " + EMPTY[32:],
        EMPTY + "\n",
        EMPTY[:-2] + "٣٣",
    ],
)
def test_other_text_is_no_digest(text: str) -> None:
    with pytest.raises(ManifestError, match="expected 64 hexadecimal digits") as caught:
        Digest.from_hex(text)
    assert caught.value.where == "digest"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_other_lengths_are_no_digest(size: int) -> None:
    with pytest.raises(ManifestError, match=f"expected 32 bytes, got {size}"):
        Digest(bytes(size))


def test_digests_sort_and_hash_by_their_bytes() -> None:
    low, high = Digest(bytes(32)), Digest(b"\xff" * 32)
    assert sorted([high, low]) == [low, high]
    assert len({low, Digest(bytes(32))}) == 1
