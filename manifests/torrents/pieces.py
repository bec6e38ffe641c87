"""What BitTorrent wants to know of a file, from one pass over its bytes.

v1 (BEP 3 with the padding of BEP 47): the SHA-1 of each piece, the last one filled up with zeros.
v2 (BEP 52): the SHA-256 of each block of 16 KiB is a leaf of a binary tree; its root names the
file, and the level of the tree at which a node stands for a piece is the file's *piece layer*.  A
file of at most one piece has a tree as deep as it needs and no layer.  An empty file has nothing.

Whoever reads a file for its BLAKE3 hands the same buffers to a :class:`PieceHasher`.  All of it is
in hashlib, which lets other threads run meanwhile.  A hasher holds the leaves of one piece and a
hash a piece, whatever the size of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from manifests.columns import I64, U8, U64, ragged_index
from manifests.torrents.terms import BLOCK_BYTES, V1_BYTES, V2_BYTES, check_piece_bytes

_ZEROS = memoryview(bytes(2**20))


def _zero_nodes(levels: int) -> tuple[bytes, ...]:
    nodes = [bytes(V2_BYTES)]
    for _ in range(levels):
        nodes.append(hashlib.sha256(nodes[-1] * 2).digest())
    return tuple(nodes)


# Roots of trees of zero leaves, by their depth: what fills a tree up to a power of two.
_ZERO_NODES = _zero_nodes(48)


def piece_counts(sizes: U64, piece_bytes: int) -> I64:
    """How many pieces a file of each size has; the last may be short."""
    return np.asarray(-(-sizes.astype(np.int64) // piece_bytes), np.int64)


def layer_counts(sizes: U64, piece_bytes: int) -> I64:
    """How many hashes the piece layer of each file has: none up to one piece."""
    counts = piece_counts(sizes, piece_bytes)
    counts[counts == 1] = 0
    return counts


class FileHashes(NamedTuple):
    """The hashes of one file.

    ``root`` 32 bytes (zeros for an empty file), ``pieces`` 20 bytes a piece, ``tail`` 20 bytes,
    the last piece without the zeros (both none if v2 only), ``layer`` 32 bytes a piece (none for a
    file of at most one piece).
    """

    size_bytes: int
    root: bytes
    pieces: bytes
    tail: bytes
    layer: bytes


class PieceHasher:
    """Takes the bytes of one file in any portions and gives its :class:`FileHashes`."""

    __slots__ = (
        "_block",
        "_hybrid",
        "_layer",
        "_leaves",
        "_piece",
        "_piece_bytes",
        "_pieces",
        "_room",
        "_size_bytes",
    )

    def __init__(self, piece_bytes: int, *, hybrid: bool = True) -> None:
        self._piece_bytes = check_piece_bytes(piece_bytes)
        self._hybrid = hybrid
        self._size_bytes = 0
        # v1: the hash of the piece that is being filled, and the bytes it still lacks.
        self._pieces: list[bytes] = []
        self._piece = _sha1()
        self._room = piece_bytes
        # v2: the block that is being filled, leaves of the piece, hashes of whole pieces.
        self._block = bytearray()
        self._leaves: list[bytes] = []
        self._layer: list[bytes] = []

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """The next bytes of the file."""
        view = memoryview(data)
        self._size_bytes += len(view)
        if self._hybrid:
            self._fill_pieces(view)
        self._fill_blocks(view)

    def finish(self) -> FileHashes:
        """The hashes of all that was given; the hasher is of no use afterwards."""
        tail = self._end_pieces() if self._hybrid else b""
        if self._block:
            self._leaves.append(hashlib.sha256(self._block).digest())
        root, layer = self._tree()
        return FileHashes(
            size_bytes=self._size_bytes,
            root=root,
            pieces=b"".join(self._pieces),
            tail=tail,
            layer=layer,
        )

    def _fill_pieces(self, view: memoryview) -> None:
        start = 0
        while len(view) - start >= self._room:
            self._piece.update(view[start : start + self._room])
            self._pieces.append(self._piece.digest())
            start += self._room
            self._piece, self._room = _sha1(), self._piece_bytes
        if start < len(view):
            self._piece.update(view[start:])
            self._room -= len(view) - start

    def _end_pieces(self) -> bytes:
        """Fill the last piece up; its hash as it was before."""
        if self._room == self._piece_bytes:
            return self._pieces[-1] if self._pieces else bytes(V1_BYTES)
        tail = self._piece.digest()
        for start in range(0, self._room, len(_ZEROS)):
            self._piece.update(_ZEROS[: self._room - start])
        self._pieces.append(self._piece.digest())
        return tail

    def _fill_blocks(self, view: memoryview) -> None:
        start = 0
        if self._block:
            start = BLOCK_BYTES - len(self._block)
            self._block += view[:start]
            if len(self._block) < BLOCK_BYTES:
                return
            self._leaves.append(hashlib.sha256(self._block).digest())
            self._block.clear()
        stop = start + (len(view) - start) // BLOCK_BYTES * BLOCK_BYTES
        sha256 = hashlib.sha256
        self._leaves += [
            sha256(view[at : at + BLOCK_BYTES]).digest() for at in range(start, stop, BLOCK_BYTES)
        ]
        self._block += view[stop:]
        self._close_pieces()

    def _close_pieces(self) -> None:
        """Put a node in the place of the leaves of every piece that is whole."""
        width = self._piece_bytes // BLOCK_BYTES
        closed = len(self._leaves) // width * width
        for at in range(0, closed, width):
            self._layer.append(_reduce(self._leaves[at : at + width], _depth(width), 0))
        del self._leaves[:closed]

    def _tree(self) -> tuple[bytes, bytes]:
        """The root, and the piece layer."""
        if not self._layer:
            if not self._leaves:
                return bytes(V2_BYTES), b""
            return _reduce(self._leaves, _depth(len(self._leaves)), 0), b""
        if self._leaves:
            width = self._piece_bytes // BLOCK_BYTES
            self._layer.append(_reduce(self._leaves, _depth(width), 0))
        if len(self._layer) == 1:
            return self._layer[0], b""
        layer = b"".join(self._layer)
        return root_of_layer(layer, self._piece_bytes), layer


def hash_pieces(data: bytes, piece_bytes: int, *, hybrid: bool = True) -> FileHashes:
    """The hashes of a whole file in memory, as a :class:`PieceHasher` gives them."""
    size_bytes = len(data)
    if not 0 < size_bytes < BLOCK_BYTES:
        hasher = PieceHasher(piece_bytes, hybrid=hybrid)
        hasher.update(data)
        return hasher.finish()
    # Most files of most datasets: less than a block, so one leaf, one piece and no layer.
    tail = pieces = b""
    if hybrid:
        piece = hashlib.sha1(data, usedforsecurity=False)
        tail = piece.digest()
        for room in range(piece_bytes - size_bytes, 0, -len(_ZEROS)):
            piece.update(_ZEROS[:room])
        pieces = piece.digest()
    return FileHashes(size_bytes, hashlib.sha256(data).digest(), pieces, tail, b"")


def _sha1() -> hashlib._Hash:
    # What protects a file is its BLAKE3 and the v2 tree; SHA-1 is what v1 clients check with.
    return hashlib.sha1(usedforsecurity=False)


def _depth(leaves: int) -> int:
    """The levels above that many leaves."""
    return (leaves - 1).bit_length()


def _reduce(nodes: list[bytes], levels: int, level: int) -> bytes:
    """The node ``levels`` above nodes of one level, filled up with zero leaves on the right."""
    sha256 = hashlib.sha256
    for filler in _ZERO_NODES[level : level + levels]:
        if len(nodes) % 2:
            nodes = [*nodes, filler]
        pairs = zip(nodes[::2], nodes[1::2], strict=True)
        nodes = [sha256(left + right).digest() for left, right in pairs]
    return nodes[0]


def root_of_layer(layer: bytes, piece_bytes: int) -> bytes:
    """The root of the file that has this piece layer; at least one hash of 32 bytes."""
    nodes = [layer[at : at + V2_BYTES] for at in range(0, len(layer), V2_BYTES)]
    return _reduce(nodes, _depth(len(nodes)), _depth(piece_bytes // BLOCK_BYTES))


class PieceColumns(Struct, frozen=True, kw_only=True, eq=False):
    """The hashes of n files, one after another.

    sizes (n,) u64 bytes · roots (n, 32) u8, zeros for an empty file · pieces (p, 20) u8, none if
    v2 only · tails (n, 20) u8, the last piece of each file without its zeros, none if v2 only or
    read from a torrent · layers (q, 32) u8.  How many rows of ``pieces`` and ``layers`` a file
    has follows from its size.
    """

    piece_bytes: int
    hybrid: bool
    sizes: U64
    roots: U8
    pieces: U8
    tails: U8
    layers: U8

    @classmethod
    def joined(
        cls, files: Sequence[FileHashes], piece_bytes: int, *, hybrid: bool = True
    ) -> PieceColumns:
        """The columns of files that were hashed with these settings, in this order."""
        return cls(
            piece_bytes=piece_bytes,
            hybrid=hybrid,
            sizes=np.array([file.size_bytes for file in files], np.uint64),
            roots=hash_rows(b"".join(file.root for file in files), V2_BYTES),
            pieces=hash_rows(b"".join(file.pieces for file in files), V1_BYTES),
            tails=hash_rows(b"".join(file.tail for file in files), V1_BYTES),
            layers=hash_rows(b"".join(file.layer for file in files), V2_BYTES),
        )

    @classmethod
    def concat(cls, parts: Sequence[PieceColumns]) -> PieceColumns:
        """One after another; all were hashed with the same settings, and there is at least one."""
        return cls(
            piece_bytes=parts[0].piece_bytes,
            hybrid=parts[0].hybrid,
            sizes=np.concatenate([part.sizes for part in parts]),
            roots=np.concatenate([part.roots for part in parts]),
            pieces=np.concatenate([part.pieces for part in parts]),
            tails=np.concatenate([part.tails for part in parts]),
            layers=np.concatenate([part.layers for part in parts]),
        )

    def __len__(self) -> int:
        """Files."""
        return len(self.sizes)

    def rows(self, start: int, stop: int) -> PieceColumns:
        """The files from one row to another."""
        return self.take(np.arange(start, stop, dtype=np.int64))

    def alone(self) -> PieceColumns:
        """A single file as a torrent of its own has it: with no zeros after it."""
        if len(self) != 1 or not self.hybrid or not len(self.pieces):
            return self
        return replace(self, pieces=np.concatenate((self.pieces[:-1], self.tails)))

    def take(self, rows: I64) -> PieceColumns:
        """The files of these rows, in their order."""
        layer_rows = _rows_of(layer_counts(self.sizes, self.piece_bytes), rows)
        piece_rows = _rows_of(piece_counts(self.sizes, self.piece_bytes), rows)
        return PieceColumns(
            piece_bytes=self.piece_bytes,
            hybrid=self.hybrid,
            sizes=self.sizes[rows],
            roots=self.roots[rows],
            pieces=self.pieces[piece_rows] if self.hybrid else self.pieces,
            tails=self.tails[rows] if len(self.tails) else self.tails,
            layers=self.layers[layer_rows],
        )


def hash_rows(joined: bytes, width: int) -> U8:
    """Hashes of ``width`` bytes, one after another, as the rows of an array."""
    return np.frombuffer(joined, np.uint8).reshape(-1, width)


def _rows_of(counts: I64, rows: I64) -> I64:
    """Where the hashes of these files stand, if each file has so many."""
    starts = np.cumsum(counts) - counts
    return ragged_index(starts[rows], counts[rows])
