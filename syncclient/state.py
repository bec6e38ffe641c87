"""What the client remembers of a tree: one SQLite file, a row a bucket, columns in a blob.

It is a cache: losing it costs a reading of the files, never data.  Rules that make it safe to
believe:

* A record holds for a file while size and mtime are the recorded ones.  An mtime that is not
  clearly older than the look is recorded as *unsure* (-1), so the file is read again (git's racy
  rule).
* Rows written since the last ``syncfs`` carry the boot they were written in.  After a crash of the
  machine that boot is over, and such rows are not believed: the bytes may never have reached the
  disk.
* A file that is damaged, or from a newer version, is put aside and begun anew.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from manifests.digest import DIGEST_BYTES
from manifests.errors import StoreError
from syncclient.files import UNSURE

if TYPE_CHECKING:
    from syncclient.records import Record

STATE_NAME = "state.db"
_VERSION = 1
# File systems keep mtimes in steps of up to 2 s (FAT); a younger mtime could hide a later write.
RACY_NS = 2 * 10**9
_COMMIT_S = 1.0
# What SQLite says of a file that is damaged or no database at all.
_UNREADABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_NOTADB}
_TABLES = {"bucket", "seen", "asset", "made", "verified"}
_SCHEMA = """
CREATE TABLE bucket (
    variant TEXT NOT NULL, bucket INTEGER NOT NULL, folder_mtime INTEGER NOT NULL,
    settled TEXT NOT NULL, files INTEGER NOT NULL, boot TEXT NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (variant, bucket));
CREATE TABLE asset (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, digest BLOB NOT NULL,
    boot TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE verified (
    variant TEXT NOT NULL, bucket INTEGER NOT NULL, PRIMARY KEY (variant, bucket)) WITHOUT ROWID;
"""
# What earlier versions did not have: files of metadata, and what a settled bucket looked like.
_LATER_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    variant TEXT NOT NULL, bucket INTEGER NOT NULL, fingerprint BLOB NOT NULL,
    extra INTEGER NOT NULL, PRIMARY KEY (variant, bucket)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS made (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL, digest BLOB NOT NULL,
    token TEXT NOT NULL, boot TEXT NOT NULL) WITHOUT ROWID;
"""


class Glance(NamedTuple):
    """A record without its columns; see :class:`records.Record`."""

    folder_mtime_ns: int = UNSURE
    settled: str = ""
    files: int = 0
    fingerprint: bytes = b""
    extra: int = 0


class AssetRecord(Struct, frozen=True, kw_only=True):
    """What was last seen of one asset."""

    size_bytes: int
    mtime_ns: int
    digest: bytes


NOTHING_KNOWN = Glance()


def sure_mtime(mtime_ns: int, looked_ns: int) -> int:
    """An mtime as to be recorded after a look: UNSURE where a later write could leave the same."""
    return UNSURE if mtime_ns > looked_ns - RACY_NS else mtime_ns


def boot_id() -> str:
    """Names the present run of the machine; on systems without one, a constant."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"


def _check_format(db: sqlite3.Connection, version: int) -> None:
    """DatabaseError unless the file has our format and its tables."""
    if version != _VERSION:
        raise sqlite3.DatabaseError(f"format {version}, expected {_VERSION}")
    missing = _TABLES - {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    if missing:
        raise sqlite3.DatabaseError(f"no tables {', '.join(sorted(missing))}")


class State:
    """The open state of one tree; every method is blocking and belongs to one thread at a time."""

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        """``warn`` is told when the file could not be read and was begun anew."""
        self.path = path
        self._warn = warn
        self._boot = boot_id()
        self._part_from_others()
        try:
            self._db = self._connect()
        except sqlite3.Error as error:
            self._put_aside(error)
            self._db = self._connect()

    def _part_from_others(self) -> None:
        """Copy a file that has other names, as after ``cp -al``: it is about one tree only.

        StoreError if the disk refuses.
        """
        try:
            for suffix in ("", "-wal", "-shm"):
                path = self.path.with_name(self.path.name + suffix)
                if path.is_file() and path.stat().st_nlink > 1:
                    copy = path.with_name(path.name + ".new")
                    copy.unlink(missing_ok=True)
                    shutil.copyfile(path, copy)
                    copy.replace(path)
        except OSError as error:
            message = f"{self.path}: {error.strerror}"
            raise StoreError(message) from error

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The driver calls from worker threads, but never from two at once.
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
            if version in {0, _VERSION}:
                db.executescript(_LATER_SCHEMA)
            if version != 0:
                _check_format(db, version)
        except BaseException:
            db.close()
            raise
        return db

    def _put_aside(self, error: sqlite3.Error) -> None:
        """Keep a file that cannot be read under another name; StoreError for any other error."""
        self._raise_unless_unreadable(error)
        aside = self.path.with_name(f"{self.path.name}.unreadable-{int(time.time())}")
        self.path.replace(aside)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._warn(
            f"{self.path.name} could not be read ({error}); it was kept as {aside.name}. "
            "Files are looked at afresh."
        )

    def _raise_unless_unreadable(self, error: sqlite3.Error) -> None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_FORMAT)
        if code & 0xFF not in _UNREADABLE:
            message = f"{self.path}: {error}"
            hint = "Make room there, or choose another folder with --state-dir."
            raise StoreError(message, hint=hint) from error

    def _rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Carry out one statement, on a new file if the present one turns out to be damaged."""
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._raise_unless_unreadable(error)
            writing = self._db.in_transaction
            self._db.close()
            self._put_aside(error)
            self._db = self._connect()
            if writing:
                self._db.execute("BEGIN IMMEDIATE")
            return self._db.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become visible together or not at all."""
        self._rows("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise
        self._rows("COMMIT")

    @contextmanager
    def steadily(self) -> Iterator[Callable[[], None]]:
        """Many writes that each stand for themselves, made durable about once a second.

        Yields a function to be called after each; a transaction for each bucket would cost more
        than looking at it.  What was written before an error stays.
        """
        began_s = time.monotonic()

        def written() -> None:
            nonlocal began_s
            if time.monotonic() - began_s > _COMMIT_S:
                self._rows("COMMIT")
                self._rows("BEGIN IMMEDIATE")
                began_s = time.monotonic()

        self._rows("BEGIN IMMEDIATE")
        try:
            yield written
        finally:
            # A full disk has ended it already.
            if self._db.in_transaction:
                self._rows("COMMIT")

    # ----------------------------------------------------------------- buckets

    def load(self, variant: str, bucket: int) -> Record:
        """The record of a bucket; an empty one where there is none that can be believed."""
        return self.load_several(variant, [bucket])[0]

    def load_several(self, variant: str, buckets: Sequence[int]) -> list[Record]:
        """The records of some buckets, at most some hundred, in their order."""
        places = ", ".join("?" * len(buckets))
        rows = self._rows(
            "SELECT bucket, folder_mtime, settled, data FROM bucket "  # noqa: S608 (places only)
            f"WHERE variant = ? AND boot IN ('', ?) AND bucket IN ({places})",
            (variant, self._boot, *buckets),
        )
        from syncclient import records  # noqa: PLC0415 (numpy; most runs read no columns)

        found = {
            bucket: records.decode(data, mtime_ns, settled)
            for bucket, mtime_ns, settled, data in rows
        }
        return [found.get(bucket) or records.EMPTY_RECORD for bucket in buckets]

    def store(self, variant: str, bucket: int, record: Record) -> None:
        """Replace the record of a bucket."""
        from syncclient import records  # noqa: PLC0415 (see load_several)

        self._rows(
            "INSERT OR REPLACE INTO bucket VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                variant,
                bucket,
                record.folder_mtime_ns,
                record.settled,
                record.files,
                self._boot,
                records.encode(record),
            ),
        )
        if record.fingerprint:
            self._rows(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)",
                (variant, bucket, record.fingerprint, record.extra),
            )
        else:
            self._rows("DELETE FROM seen WHERE variant = ? AND bucket = ?", (variant, bucket))

    def settle(self, variant: str, bucket: int, settled: str, mtime_ns: int) -> None:
        """Note which wish a bucket fulfils as it is, and the time of its folder."""
        self._rows(
            "UPDATE bucket SET settled = ?, folder_mtime = ? WHERE variant = ? AND bucket = ?",
            (settled, mtime_ns, variant, bucket),
        )

    def doubt(self, variant: str, bucket: int, wrong: Collection[tuple[int, str]]) -> None:
        """Note files (id, extension) that were read and are not what is recorded of them.

        While size and mtime hold they stay ours, so a repair replaces them; their digest becomes
        that of no file.
        """
        record = self.load(variant, bucket)
        names = zip(record.ids.tolist(), record.exts.tolist(), strict=True)
        bad = [(post_id, record.extensions[ext]) in wrong for post_id, ext in names]
        digests = record.digests.copy()
        digests[bad] = 0
        self.store(
            variant, bucket, replace(record, digests=digests, settled="", folder_mtime_ns=-1)
        )

    def variants(self) -> set[str]:
        """The variants of which anything is remembered."""
        return {variant for (variant,) in self._rows("SELECT DISTINCT variant FROM bucket")}

    def forget_variant(self, variant: str) -> None:
        """Remember nothing of a variant."""
        for table in ("bucket", "seen"):
            self._rows(f"DELETE FROM {table} WHERE variant = ?", (variant,))  # noqa: S608

    def forget(self, variant: str, bucket: int) -> None:
        """Remember nothing of a bucket."""
        for table in ("bucket", "seen"):
            self._rows(
                f"DELETE FROM {table} WHERE variant = ? AND bucket = ?",  # noqa: S608 (see above)
                (variant, bucket),
            )

    def glance(self, variant: str) -> dict[int, Glance]:
        """Each believable row, without its columns."""
        rows = self._rows(
            "SELECT bucket, folder_mtime, settled, files, "
            "IFNULL(fingerprint, x''), IFNULL(extra, 0) "
            "FROM bucket LEFT JOIN seen USING (variant, bucket) "
            "WHERE variant = ? AND boot IN ('', ?)",
            (variant, self._boot),
        )
        return {row[0]: Glance(*row[1:]) for row in rows}

    # ----------------------------------------------------------------- assets

    def load_assets(self) -> dict[str, AssetRecord]:
        """Every believable asset record by path."""
        rows = self._rows(
            "SELECT path, size, mtime, digest FROM asset WHERE boot IN ('', ?)", (self._boot,)
        )
        return {
            path: AssetRecord(size_bytes=size, mtime_ns=mtime, digest=digest)
            for path, size, mtime, digest in rows
        }

    def store_asset(self, path: str, record: AssetRecord | None) -> None:
        """Replace or forget the record of one asset."""
        if record is None:
            self._rows("DELETE FROM asset WHERE path = ?", (path,))
            return
        self._rows(
            "INSERT OR REPLACE INTO asset VALUES (?, ?, ?, ?, ?)",
            (path, record.size_bytes, record.mtime_ns, record.digest, self._boot),
        )

    def doubt_asset(self, path: str) -> None:
        """Note an asset that was read and is not what is recorded of it, as :meth:`doubt` does."""
        self._rows("UPDATE asset SET digest = ? WHERE path = ?", (bytes(DIGEST_BYTES), path))

    # ----------------------------------------------------------------- files of metadata

    def load_made(self) -> dict[str, tuple[AssetRecord, str]]:
        """Every believable record of a file that was made here, and the token of its content."""
        rows = self._rows(
            "SELECT path, size, mtime, digest, token FROM made WHERE boot IN ('', ?)",
            (self._boot,),
        )
        return {
            path: (AssetRecord(size_bytes=size, mtime_ns=mtime, digest=digest), token)
            for path, size, mtime, digest, token in rows
        }

    def store_made(self, path: str, record: AssetRecord, token: str) -> None:
        """Replace the record of one."""
        self._rows(
            "INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?, ?)",
            (path, record.size_bytes, record.mtime_ns, record.digest, token, self._boot),
        )

    def doubt_made(self, path: str) -> None:
        """Note one that was read and is not what is recorded of it, as :meth:`doubt` does."""
        self._rows(
            "UPDATE made SET digest = ?, token = '' WHERE path = ?", (bytes(DIGEST_BYTES), path)
        )

    # ----------------------------------------------------------------- durability, verification

    def unsynced(self) -> bool:
        """Whether rows exist whose files may not have reached the disk."""
        query = "SELECT EXISTS (SELECT 1 FROM {} WHERE boot != '')"
        tables = ("bucket", "asset", "made")
        return any(self._rows(query.format(table))[0][0] for table in tables)

    def quiet_s(self) -> float:
        """Seconds since anything was written here by an earlier run."""
        files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        stats = [file.stat() for file in files if file.exists()]
        # Whoever opens the file makes an empty one beside it.
        return time.time() - max((info.st_mtime for info in stats if info.st_size), default=0.0)

    def mark_synced(self) -> None:
        """Say that all files of this boot's rows are on disk; drop rows of boots that ended."""
        with self.transaction():
            for table in ("bucket", "asset", "made"):
                self._rows(f"DELETE FROM {table} WHERE boot NOT IN ('', ?)", (self._boot,))  # noqa: S608
                self._rows(f"UPDATE {table} SET boot = '' WHERE boot != ''")  # noqa: S608

    def verified(self) -> set[tuple[str, int]]:
        """Buckets that the present round of verification has done."""
        return {(v, b) for v, b in self._rows("SELECT variant, bucket FROM verified")}

    def mark_verified(self, variant: str, bucket: int) -> None:
        """Note one bucket as done."""
        self._rows("INSERT OR REPLACE INTO verified VALUES (?, ?)", (variant, bucket))

    def forget_verified(self) -> None:
        """Begin a new round of verification."""
        self._rows("DELETE FROM verified")
