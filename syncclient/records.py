"""What is remembered of one bucket, as columns; :mod:`syncclient.state` keeps them as blobs."""

from __future__ import annotations

from collections.abc import Sequence
from stat import S_IFREG
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import I64, U8, U16, U32, U64, Bools, joined_codes
from manifests.digest import DIGEST_BYTES
from manifests.errors import ManifestError
from manifests.zstd import compress, inflate
from syncclient.files import UNSURE, fingerprint
from syncclient.state import RACY_NS

_MAX_BLOB_BYTES = 2**31


class Record(Struct, frozen=True, kw_only=True, eq=False):
    """What was last seen in one bucket folder, n files in any order.

    ids (n,) u32 · exts (n,) u16 index into ``extensions`` · sizes (n,) u64 · mtimes (n,) i64 ns or
    UNSURE · digests (n, 32) u8.  ``folder_mtime_ns`` is UNSURE unless nothing changed since the
    look. ``settled`` names the wish (release and selection) that the bucket fulfilled completely,
    or ""; ``files`` is then the number of files wanted here.  ``fingerprint`` (of a FolderLook) is
    what the folder then looked like, b"" if it need not look the same after a change; ``extra``
    the files of the user's in it.
    """

    extensions: tuple[str, ...]
    ids: U32
    exts: U16
    sizes: U64
    mtimes: I64
    digests: U8
    folder_mtime_ns: int = UNSURE
    settled: str = ""
    files: int = 0
    fingerprint: bytes = b""
    extra: int = 0

    def __len__(self) -> int:
        """Files."""
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.intp] | Bools) -> Record:
        """Some of the files, and nothing else."""
        return Record(
            extensions=self.extensions,
            ids=self.ids[rows],
            exts=self.exts[rows],
            sizes=self.sizes[rows],
            mtimes=self.mtimes[rows],
            digests=self.digests[rows],
        )


EMPTY_RECORD = Record(
    extensions=(),
    ids=np.empty(0, np.uint32),
    exts=np.empty(0, np.uint16),
    sizes=np.empty(0, np.uint64),
    mtimes=np.empty(0, np.int64),
    digests=np.empty((0, DIGEST_BYTES), np.uint8),
)


def joined(parts: Sequence[Record]) -> Record:
    """The files of several buckets, one after another, with one table of extensions."""
    extensions, exts = joined_codes([(part.extensions, part.exts) for part in parts])
    return Record(
        extensions=extensions,
        ids=np.concatenate([part.ids for part in parts]),
        exts=exts.astype(np.uint16),
        sizes=np.concatenate([part.sizes for part in parts]),
        mtimes=np.concatenate([part.mtimes for part in parts]),
        digests=np.concatenate([part.digests for part in parts]),
    )


def fingerprint_of(record: Record, now_ns: int) -> bytes:
    """The fingerprint of a folder (see FolderLook) that has the recorded files and nothing else.

    b"" if a file is so young that it may change and look the same.
    """
    if (unsure_if_racy(record.mtimes, now_ns) == UNSURE).any():
        return b""
    endings = [f".{extension}" for extension in record.extensions]
    pairs = zip(record.ids.tolist(), record.exts.tolist(), strict=True)
    names = [f"{post_id}{endings[ext]}" for post_id, ext in pairs]
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.intp)
    kinds = np.full(len(names), S_IFREG, np.uint64)
    columns = (kinds, record.sizes[order], record.mtimes[order])
    return fingerprint(sorted(names), *(column.tobytes() for column in columns))


def unsure_if_racy(mtimes: I64, looked_ns: int) -> I64:
    """Mtimes as to be recorded after a look at ``looked_ns``.

    UNSURE where a later write could leave the same mtime.
    """
    return np.where(mtimes > looked_ns - RACY_NS, np.int64(UNSURE), mtimes)


def encode(record: Record) -> bytes:
    """The columns as a blob."""
    document = {
        "extensions": list(record.extensions),
        "ids": record.ids.astype("<u4").tobytes(),
        "exts": record.exts.astype("<u2").tobytes(),
        "sizes": record.sizes.astype("<u8").tobytes(),
        "mtimes": record.mtimes.astype("<i8").tobytes(),
        "digests": record.digests.tobytes(),
    }
    return compress(msgpack.packb(document), 1)


def decode(data: bytes, folder_mtime_ns: int, settled: str) -> Record | None:
    """The columns of a row; None if the blob is not what :func:`encode` writes."""
    try:
        raw = inflate(data, "state", _MAX_BLOB_BYTES)
        return _record(msgpack.unpackb(raw), folder_mtime_ns, settled)
    except (ManifestError, ValueError, KeyError, TypeError, msgpack.UnpackException):
        return None


def _record(found: dict[str, Any], folder_mtime_ns: int, settled: str) -> Record | None:
    ids = np.frombuffer(found["ids"], "<u4")
    record = Record(
        extensions=tuple(found["extensions"]),
        ids=ids,
        exts=np.frombuffer(found["exts"], "<u2"),
        sizes=np.frombuffer(found["sizes"], "<u8"),
        mtimes=np.frombuffer(found["mtimes"], "<i8"),
        digests=np.frombuffer(found["digests"], np.uint8).reshape(len(ids), DIGEST_BYTES),
        folder_mtime_ns=folder_mtime_ns,
        settled=settled,
    )
    columns = (record.exts, record.sizes, record.mtimes)
    whole = all(len(column) == len(ids) for column in columns)
    return record if whole and bool(np.all(record.exts < len(record.extensions))) else None
