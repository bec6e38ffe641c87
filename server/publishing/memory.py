"""What the publisher remembers between runs: REPO/.publish/record.db, one SQLite file (WAL).

A row a bucket, columns in compressed blobs, each committed as soon as its bucket is done, so
that a killed publish need not hash it again.  It is only a cache: without it the next publish
reads every file.  What the bytes of a blob mean is known to :mod:`server.publishing.look` and
:mod:`server.publishing.links`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
import numpy.typing as npt

from manifests.errors import StoreError
from manifests.zstd import compress, inflate

# What SQLite says of a file that is damaged or no database at all; a full disk is neither.
_UNREADABLE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_NOTADB}
_VERSION: Final = 1
_FAST: Final = 1
_MAX_BLOB_BYTES: Final = 2**31
# look.release names what a signed release holds of the variant (lineage.manifests_digest), if that
# is what was seen.
_SCHEMA: Final = """
CREATE TABLE look (tree TEXT, variant TEXT, bucket INTEGER, data BLOB NOT NULL, release BLOB,
                   PRIMARY KEY (tree, variant, bucket));
CREATE TABLE links (layer TEXT, variant TEXT, bucket INTEGER, data BLOB NOT NULL,
                    PRIMARY KEY (layer, variant, bucket));
CREATE TABLE assets (tree TEXT PRIMARY KEY, data BLOB NOT NULL);
"""

# What earlier versions did not keep: hashes for torrents of the layer that is being made.
_LATER_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pieces (layer TEXT, variant TEXT, bucket INTEGER, data BLOB NOT NULL,
                                   PRIMARY KEY (layer, variant, bucket));
"""

Columns = Mapping[str, npt.NDArray[Any]]


def pack_columns(head: Mapping[str, Any], columns: Columns) -> bytes:
    """Some plain values and some arrays as one blob."""
    arrays = {
        name: (column.dtype.str, column.shape, column.tobytes())
        for name, column in columns.items()
    }
    return compress(msgpack.packb((head, arrays)), _FAST)


def unpack_columns(data: bytes) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read back what :func:`pack_columns` made; the arrays are read-only."""
    head, arrays = msgpack.unpackb(inflate(data, "record.db", _MAX_BLOB_BYTES))
    return head, {
        name: np.frombuffer(raw, kind).reshape(shape)
        for name, (kind, shape, raw) in arrays.items()
    }


def _prepare(db: sqlite3.Connection) -> None:
    """Make the tables of a new file; sqlite3.DatabaseError for one of another version."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, _VERSION}:
        raise sqlite3.DatabaseError(f"version {version}, expected {_VERSION}")
    if version == 0:
        db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
    db.executescript(_LATER_SCHEMA)


def _is_unreadable(error: sqlite3.Error) -> bool:
    """Whether the file itself is no good; our own error, without a code, is about its version."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_FORMAT) & 0xFF in _UNREADABLE


class Memory:
    """The open record of one repository; belongs to the run that holds the publisher's lock."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """Open it, or begin a new one if there is none that this version can read."""
        self._path = path
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            if not _is_unreadable(error):
                raise self._refused(error) from error
            warn(f"{path} cannot be read ({error}): every file will be hashed again")
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None)
        try:
            # Surviving a kill is enough: after a crash of the machine files are hashed again.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            _prepare(db)
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _refused(self, error: sqlite3.Error) -> StoreError:
        hint = "It is a cache: delete it and publish again."
        if not _is_unreadable(error):
            hint = "Make room there and publish again; what was hashed is kept."
        return StoreError(f"{self._path}: {error}", hint=hint)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def look(self, tree: str, variant: str, bucket: int) -> tuple[bytes, bytes] | None:
        """What was last seen in a bucket, and the name of what holds just that, or nothing."""
        query = "SELECT data, release FROM look WHERE tree=? AND variant=? AND bucket=?"
        row = self._run(query, tree, variant, bucket).fetchone()
        return None if row is None else (bytes(row[0]), bytes(row[1] or b""))

    def links(self, layer: str, variant: str, bucket: int) -> bytes | None:
        """What an unfinished publish has put into a bucket of its layer."""
        return self._blob(
            "SELECT data FROM links WHERE layer=? AND variant=? AND bucket=?",
            layer,
            variant,
            bucket,
        )

    def pieces(self, layer: str, variant: str, bucket: int) -> bytes | None:
        """Hashes for torrents of what the layer has of a bucket."""
        return self._blob(
            "SELECT data FROM pieces WHERE layer=? AND variant=? AND bucket=?",
            layer,
            variant,
            bucket,
        )

    def assets(self, tree: str) -> bytes | None:
        """What was last seen of the assets of a tree."""
        return self._blob("SELECT data FROM assets WHERE tree=?", tree)

    def unfinished_layers(self) -> tuple[str, ...]:
        """Layers that were begun and not forgotten since."""
        return tuple(name for (name,) in self._run("SELECT DISTINCT layer FROM links"))

    def keep_bucket(  # noqa: PLR0913 (one row of each table)
        self,
        tree: str,
        layer: str,
        variant: str,
        bucket: int,
        *,
        look: bytes | None,
        links: bytes | None,
        pieces: bytes | None,
    ) -> None:
        """Remember what one bucket looked like and what the layer has of it; None: no news."""
        if look is None and links is None and pieces is None:
            return
        with self._transaction():
            if look is not None:
                self._run(
                    "REPLACE INTO look VALUES (?, ?, ?, ?, NULL)", tree, variant, bucket, look
                )
            if links is not None:
                self._run("REPLACE INTO links VALUES (?, ?, ?, ?)", layer, variant, bucket, links)
            if pieces is not None:
                query = "REPLACE INTO pieces VALUES (?, ?, ?, ?)"
                self._run(query, layer, variant, bucket, pieces)

    def keep_release(self, tree: str, variant: str, held: bytes, buckets: Iterable[int]) -> None:
        """A release is signed that holds, of a variant, what was last seen in these buckets.

        ``held`` names all that it holds of the variant.
        """
        # A row is written with its blob: none is where it says so already.
        query = (
            "UPDATE look SET release=? "
            "WHERE tree=? AND variant=? AND bucket=? AND release IS NOT ?"
        )
        with self._transaction():
            for bucket in buckets:
                self._run(query, held, tree, variant, bucket, held)

    def keep_assets(self, tree: str, data: bytes) -> None:
        """Remember what the assets of a tree look like."""
        self._run("REPLACE INTO assets VALUES (?, ?)", tree, data)

    def forget_layer(self, layer: str) -> None:
        """A layer is signed, or was given up: nobody will go on with it."""
        self._run("DELETE FROM links WHERE layer=?", layer)
        self._run("DELETE FROM pieces WHERE layer=?", layer)

    def forget_pieces_but(self, layer: str) -> None:
        """Forget the hashes of every other layer."""
        self._run("DELETE FROM pieces WHERE layer<>?", layer)

    def _blob(self, query: str, *values: str | int) -> bytes | None:
        row = self._run(query, *values).fetchone()
        return None if row is None else bytes(row[0])

    def _run(self, query: str, *values: str | int | bytes) -> sqlite3.Cursor:
        try:
            return self._db.execute(query, values)
        except sqlite3.Error as error:
            raise self._refused(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._run("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._run("COMMIT")
