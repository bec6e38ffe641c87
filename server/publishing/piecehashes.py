"""Hashes for torrents on their way from a reading of files to a torrent.

They come from the one reading that also made the BLAKE3, bucket by bucket, and wait in the record
until the layer is complete: there is a hash a piece, and memory must not grow with the dataset.
Where the record has none (a run was killed, the record is new), files of the layer are read again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import blake3
import numpy as np
from msgspec import Struct

from manifests.columns import CHUNK_BYTES, Entries
from manifests.errors import StoreError
from manifests.torrents.pieces import FileHashes, PieceColumns, PieceHasher, hash_pieces
from server.publishing.links import disk_error
from server.publishing.memory import pack_columns, unpack_columns
from syncclient.tree import open_regular

_COLUMNS: Final = ("sizes", "roots", "pieces", "tails", "layers")


class PiecePlan(Struct, frozen=True):
    """How the files of a layer's variant are hashed for torrents."""

    piece_bytes: int
    hybrid: bool

    def hasher(self) -> PieceHasher:
        """A hasher for one file."""
        return PieceHasher(self.piece_bytes, hybrid=self.hybrid)

    def hash(self, data: bytes) -> FileHashes:
        """The hashes of one file that is in memory."""
        return hash_pieces(data, self.piece_bytes, hybrid=self.hybrid)


def encode_hashes(files: Sequence[FileHashes], put: Entries, plan: PiecePlan) -> bytes:
    """The hashes of the entries ``put``, in their order, as a blob."""
    joined = PieceColumns.joined(files, plan.piece_bytes, hybrid=plan.hybrid)
    columns = {name: getattr(joined, name) for name in _COLUMNS}
    head = {"piece": plan.piece_bytes, "hybrid": plan.hybrid}
    return pack_columns(head, columns | {"digests": put.digests})


def decode_hashes(blob: bytes | None, put: Entries, plan: PiecePlan) -> PieceColumns | None:
    """Read it back; None unless it holds just these entries, hashed by this plan."""
    if blob is None:
        return None
    head, columns = unpack_columns(blob)
    if (head["piece"], head["hybrid"]) != (plan.piece_bytes, plan.hybrid):
        return None
    if not np.array_equal(columns.pop("digests"), put.digests):
        return None
    return PieceColumns(piece_bytes=plan.piece_bytes, hybrid=plan.hybrid, **columns)


def hash_again(folder: str, put: Entries, plan: PiecePlan) -> PieceColumns:
    """Read the files of a bucket once more; StoreError if one is not what was published."""
    files = [
        _hash(os.path.join(folder, name), digest.tobytes(), plan)  # noqa: PTH118 (a hot loop)
        for name, digest in zip(put.names(), put.digests, strict=True)
    ]
    return PieceColumns.joined(files, plan.piece_bytes, hybrid=plan.hybrid)


def _hash(path: str, digest: bytes, plan: PiecePlan) -> FileHashes:
    whole, hasher = blake3.blake3(), plan.hasher()
    try:
        with os.fdopen(open_regular(path), "rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                whole.update(chunk)
                hasher.update(chunk)
    except OSError as error:
        raise disk_error(path, error) from error
    if whole.digest() != digest:
        raise StoreError(
            f"{path} changed while it was published",
            hint="Run the same command again when nothing writes to it.",
        )
    return hasher.finish()
