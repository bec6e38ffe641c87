"""The state: a cache that is believed only as far as it can be, and never stops a run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from manifests.errors import ExitCode, StoreError
from syncclient.files import UNSURE
from syncclient.records import Record, unsure_if_racy
from syncclient.state import AssetRecord, Glance, State
from tests.support.mounts import tmpfs

S = 10**9


def record(*ids: int, settled: str = "") -> Record:
    """A record of PNGs whose digest is their id."""
    return Record(
        extensions=("jpg", "png"),
        ids=np.array(ids, np.uint32),
        exts=np.full(len(ids), 1, np.uint16),
        sizes=np.array(ids, np.uint64) * np.uint64(10),
        mtimes=np.array(ids, np.int64) * S,
        digests=np.array([[number % 256] * 32 for number in ids], np.uint8).reshape(-1, 32),
        folder_mtime_ns=77 * S,
        settled=settled,
        files=len(ids),
    )


@contextmanager
def state_at(path: Path, warnings: list[str] | None = None) -> Iterator[State]:
    with closing(State(path, (warnings if warnings is not None else []).append)) as state:
        yield state


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a state will be."""
    return tmp_path / "private" / "state.db"


def fill(path: Path, buckets: int = 3) -> None:
    with state_at(path) as state, state.transaction():
        for bucket in range(buckets):
            state.store("original", bucket, record(*range(bucket + 1, 500, 10), settled="wish"))


def same(left: Record, right: Record) -> bool:
    columns = ("ids", "exts", "sizes", "mtimes", "digests")
    plain = ("extensions", "folder_mtime_ns", "settled")
    return all(
        np.array_equal(getattr(left, name), getattr(right, name)) for name in columns
    ) and all(getattr(left, name) == getattr(right, name) for name in plain)


def test_what_was_stored_is_loaded(path: Path) -> None:
    fill(path)
    with state_at(path) as state:
        expected = record(*range(2, 500, 10), settled="wish")
        assert same(state.load("original", 1), expected)
        assert len(state.load("original", 9)) == 0
        assert len(state.load("512px", 1)) == 0
        assert state.glance("original") == dict.fromkeys(range(3), Glance(77 * S, "wish", 50))


def test_a_transaction_is_all_or_nothing(path: Path) -> None:
    fill(path, 1)
    with state_at(path) as state:
        with suppress(KeyError), state.transaction():
            state.store("original", 0, record(7))
            state.store("original", 5, record(7))
            raise KeyError
        assert len(state.load("original", 0)) == 50
        assert len(state.load("original", 5)) == 0
        with state.transaction():
            state.store("original", 0, record(7))
    with state_at(path) as state:
        assert state.load("original", 0).ids.tolist() == [7]


def test_assets_are_remembered_and_forgotten(path: Path) -> None:
    kept = AssetRecord(size_bytes=5, mtime_ns=9, digest=b"d" * 32)
    with state_at(path) as state:
        state.store_asset("README", kept)
        state.store_asset("lists/pools.json", kept)
        state.store_asset("README", None)
        state.store_asset("never", None)
        assert state.load_assets() == {"lists/pools.json": kept}


def test_made_files_are_remembered_with_what_they_were_made_for(path: Path) -> None:
    made = AssetRecord(size_bytes=5, mtime_ns=9, digest=b"d" * 32)
    with state_at(path) as state:
        state.store_made("metadata/y1/posts.json", made, "one")
        state.store_made("metadata/y1/posts.json", made, "two")
        state.store_made("metadata/y1/tags.json", made, "three")
        state.doubt_made("metadata/y1/tags.json")
        assert state.load_made() == {
            "metadata/y1/posts.json": (made, "two"),
            "metadata/y1/tags.json": (replace(made, digest=bytes(32)), ""),
        }


def test_a_state_from_before_there_were_made_files_is_kept(path: Path) -> None:
    fill(path, 1)
    with closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE made")
    warnings: list[str] = []
    with state_at(path, warnings) as state:
        assert len(state.load("original", 0)) == 50
        assert state.load_made() == {}
    assert warnings == []


def test_rows_of_a_boot_that_ended_are_not_believed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asset = AssetRecord(size_bytes=5, mtime_ns=9, digest=b"d" * 32)
    fill(path, 1)
    with state_at(path) as state:
        state.store_asset("old", asset)
        state.store_made("old", asset, "token")
        assert state.unsynced()
        state.mark_synced()
        assert not state.unsynced()
        state.store("original", 1, record(11))
        state.store_asset("new", asset)
        state.store_made("new", asset, "token")
    monkeypatch.setattr("syncclient.state.boot_id", lambda: "another run of the machine")
    with state_at(path) as state:
        assert len(state.load("original", 0)) == 50
        assert len(state.load("original", 1)) == 0
        assert list(state.glance("original")) == [0]
        assert list(state.load_assets()) == ["old"]
        assert list(state.load_made()) == ["old"]
        state.mark_synced()
        assert not state.unsynced()
        assert list(state.load_assets()) == ["old"]


def test_an_open_file_is_as_quiet_as_its_last_run_left_it(path: Path) -> None:
    fill(path, 1)
    with state_at(path) as state:
        assert state.quiet_s() < 60
    os.utime(path, (0, 0))
    with state_at(path) as state:
        state.load("original", 0)
        assert state.quiet_s() > 10**6
        state.store("original", 0, record(1))
        assert state.quiet_s() < 60


def test_a_doubt_leaves_the_file_ours_with_the_digest_of_no_file(path: Path) -> None:
    with state_at(path) as state:
        state.store("original", 1, record(1, 11, 21, settled="wish"))
        state.doubt("original", 1, [(11, "png"), (1, "jpg")])
        found = state.load("original", 1)
    assert found.digests.any(axis=1).tolist() == [True, False, True]
    assert found.mtimes.tolist() == [1 * S, 11 * S, 21 * S]
    assert (found.settled, found.folder_mtime_ns) == ("", UNSURE)


def test_a_round_of_verification_is_remembered(path: Path) -> None:
    with state_at(path) as state:
        state.mark_verified("original", 3)
        state.mark_verified("original", 3)
    with state_at(path) as state:
        assert state.verified() == {("original", 3)}
        state.forget_verified()
        assert state.verified() == set()


def test_an_mtime_that_a_later_write_could_repeat_is_unsure() -> None:
    mtimes = np.array([100 * S, 98 * S, 98 * S + 1, 200 * S], np.int64)
    assert unsure_if_racy(mtimes, 100 * S).tolist() == [UNSURE, 98 * S, UNSURE, UNSURE]


# --------------------------------------------------------------------------- damage


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")


def another(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("DROP TABLE bucket; DROP TABLE asset;")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [garbage, newer, another, cut])
def test_a_file_that_cannot_be_read_is_kept_and_begun_anew(path: Path, damage: object) -> None:
    assert callable(damage)
    fill(path)
    damage(path)
    before, warnings = path.read_bytes(), list[str]()
    with state_at(path, warnings) as state:
        assert len(state.load("original", 0)) == 0
        state.store("original", 0, record(1))
    with state_at(path, warnings) as state:
        assert state.load("original", 0).ids.tolist() == [1]
    assert len(warnings) == 1
    assert "state.db could not be read" in warnings[0]
    (aside,) = path.parent.glob("state.db.unreadable-*")
    assert aside.read_bytes() == before


def test_damage_that_shows_later_is_no_different(path: Path) -> None:
    fill(path, 200)
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(8192)
        file.write(b"\xff" * (size - 8192))
    warnings: list[str] = []
    with state_at(path, warnings) as state:
        assert warnings == []
        with state.transaction():
            for bucket in range(200):
                assert len(state.load("original", bucket)) in {0, 50}
                state.store("original", bucket, record(7))
        assert [len(state.load("original", bucket)) for bucket in range(200)] == [1] * 200
    assert len(warnings) == 1


def test_a_row_that_is_no_record_counts_as_none(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE bucket SET data = x'00' WHERE bucket = 1")
    with state_at(path) as state:
        assert len(state.load("original", 1)) == 0
        assert len(state.load("original", 2)) == 50


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StoreError, match=r"state\.db") as caught:
        State(tmp_path / "state.db", print)
    assert "--state-dir" in caught.value.hint
    assert (tmp_path / "state.db").is_dir()


def test_a_full_disk_is_an_error_that_loses_nothing(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", size_bytes=400 * 1024) as disk:
        fill(disk / "state.db")
        noise = np.random.default_rng(1).integers(0, 256, (20_000 - 1, 32), np.uint8)
        big = replace(record(*range(1, 20_000)), digests=noise)
        with state_at(disk / "state.db") as state:
            with pytest.raises(StoreError, match="full") as caught, state.transaction():
                state.store("original", 0, big)
            assert caught.value.exit_code == ExitCode.STORAGE
            assert len(state.load("original", 0)) == 50
            with pytest.raises(StoreError, match="full"), state.steadily():
                state.store("original", 0, big)
            assert len(state.load("original", 0)) == 50


def test_what_was_written_steadily_stays_after_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncclient.state._COMMIT_S", -1)
    with state_at(path) as state, suppress(KeyError), state.steadily() as written:
        state.store("original", 0, record(7))
        written()
        with state_at(path) as other:
            assert other.load("original", 0).ids.tolist() == [7]
        state.store("original", 1, record(11))
        raise KeyError
    with state_at(path) as state:
        assert state.load("original", 1).ids.tolist() == [11]
