"""Hashes of pieces against the definitions of BEP 3, 47 and 52, written out the long way."""

from __future__ import annotations

import hashlib
from hashlib import sha256

import numpy as np
import pytest

from manifests.errors import ConfigError
from manifests.torrents.pieces import PieceColumns, PieceHasher, layer_counts, piece_counts
from tests.support.torrents import KIB, NOISE, hash_file

BLOCK = 16 * KIB


def sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def tree(leaves: list[bytes], width: int) -> bytes:
    """The root of ``leaves``, filled up to ``width`` with zeros."""
    nodes = leaves + [bytes(32)] * (width - len(leaves))
    while len(nodes) > 1:
        nodes = [sha256(nodes[i] + nodes[i + 1]).digest() for i in range(0, len(nodes), 2)]
    return nodes[0]


def leaves_of(data: bytes) -> list[bytes]:
    return [sha256(data[at : at + BLOCK]).digest() for at in range(0, len(data), BLOCK)]


def test_an_empty_file_has_no_hashes() -> None:
    hashes = hash_file(b"", 64 * KIB)
    assert (hashes.size_bytes, hashes.root, hashes.pieces, hashes.layer) == (
        0,
        bytes(32),
        b"",
        b"",
    )
    assert hashes == PieceHasher(64 * KIB).finish()


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK])
def test_the_root_of_one_block_is_its_hash(size: int) -> None:
    assert hash_file(NOISE[:size], 64 * KIB).root == sha256(NOISE[:size]).digest()


@pytest.mark.parametrize(("size", "width"), [(BLOCK + 1, 2), (3 * BLOCK, 4), (4 * BLOCK, 4)])
def test_the_tree_of_a_file_of_one_piece_is_as_deep_as_it_needs(size: int, width: int) -> None:
    data = NOISE[:size]
    hashes = hash_file(data, 64 * KIB)
    assert hashes.root == tree(leaves_of(data), width)
    assert hashes.layer == b""


@pytest.mark.parametrize("size", [64 * KIB + 1, 128 * KIB - 1, 128 * KIB, 300 * KIB])
def test_the_piece_layer_of_a_larger_file(size: int) -> None:
    data = NOISE[:size]
    hashes = hash_file(data, 64 * KIB)
    pieces = [leaves_of(data[at : at + 64 * KIB]) for at in range(0, size, 64 * KIB)]
    assert hashes.layer == b"".join(tree(piece, 4) for piece in pieces)
    flat = leaves_of(data)
    assert hashes.root == tree(flat, 1 << (len(flat) - 1).bit_length())


@pytest.mark.parametrize("size", [1, 32 * KIB - 1, 32 * KIB, 32 * KIB + 1, 64 * KIB])
def test_the_last_piece_of_v1_is_filled_up_with_zeros(size: int) -> None:
    data = NOISE[:size]
    hashes = hash_file(data, 32 * KIB)
    padded = data + bytes(-size % (32 * KIB))
    parts = [padded[at : at + 32 * KIB] for at in range(0, len(padded), 32 * KIB)]
    assert hashes.pieces == b"".join(sha1(part) for part in parts)
    assert hashes.tail == sha1(data[(size - 1) // (32 * KIB) * 32 * KIB :])


def test_v2_only_has_no_hashes_of_v1() -> None:
    both, alone = (hash_file(NOISE[:50_000], BLOCK, hybrid=hybrid) for hybrid in (True, False))
    assert (alone.pieces, alone.tail) == (b"", b"")
    assert (alone.root, alone.layer) == (both.root, both.layer)


@pytest.mark.parametrize("piece_bytes", [0, -BLOCK, BLOCK // 2, 3 * BLOCK, 2**26])
def test_a_piece_is_a_power_of_two_in_bounds(piece_bytes: int) -> None:
    with pytest.raises(ConfigError, match=f"{piece_bytes} bytes"):
        PieceHasher(piece_bytes)


def test_counts_at_the_boundaries() -> None:
    sizes = np.array([0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1], np.uint64)
    assert piece_counts(sizes, BLOCK).tolist() == [0, 1, 1, 1, 2, 2, 3]
    assert layer_counts(sizes, BLOCK).tolist() == [0, 0, 0, 0, 2, 2, 3]


def test_columns_alone_have_the_last_piece_without_zeros() -> None:
    data = NOISE[: 40 * KIB]
    columns = PieceColumns.joined([hash_file(data, 32 * KIB)], 32 * KIB).alone()
    assert columns.pieces.tobytes() == sha1(data[: 32 * KIB]) + sha1(data[32 * KIB :])
