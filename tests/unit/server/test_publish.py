"""Publishing: what becomes of a tree, and what is done again when it changes."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest

from manifests.columns import CHUNK_BYTES
from manifests.digest import Digest
from manifests.errors import ExitCode
from server.publishing.buckets import carry_out
from server.publishing.lineage import manifests_digest
from server.publishing.work import BucketReport, BucketTask
from tests.support.publisher import LAYOUT, Publisher, files_below

DATE = "2021-06-01"
DATE_S = 1622505600


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    made = Publisher(tmp_path)
    made.fill(range(1, 60))
    made.fill(range(1, 30), "small", 50)
    return made


def test_a_release_holds_exactly_the_tree(publisher: Publisher) -> None:
    publisher.write(publisher.tree / "README.txt", b"about")
    publisher.write(publisher.tree / "docs" / "pools.json", b"{}")
    summary = publisher.publish("y1", "--date", DATE).summary
    assert publisher.release_files("y1") == publisher.tree_files()
    assert summary["files_added"] == summary["files_hashed"] == 59 + 29
    assert summary["assets"] == 2
    assert summary["base"] is None
    assert summary["layers"] == ["y1"]
    descriptor = publisher.releases()["y1"]
    assert summary["descriptor"] == Digest.of(descriptor.encode()).hex
    assert descriptor.created == DATE_S
    assert {name: total.files for name, total in descriptor.totals.items()} == {
        "original": 59,
        "small": 29,
    }


def test_files_of_a_layer_are_read_only_and_have_its_date(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    for path in (publisher.repo / "files" / "y1").rglob("*.dat"):
        info = path.stat()
        assert info.st_mtime == DATE_S
        assert stat.S_IMODE(info.st_mode) & 0o222 == 0
        assert info.st_nlink == 1


def test_the_same_tree_gives_the_same_release_however_many_work_on_it(tmp_path: Path) -> None:
    digests, published = set(), []
    for number, jobs in enumerate(("1", "2", "3")):
        publisher = Publisher(tmp_path / jobs)
        publisher.fill(range(1, 200))
        publisher.write(publisher.tree / "README", b"about")
        flags = ("--date", DATE, "--jobs", jobs, "--materialize-packs")
        digests.add(publisher.publish("y1", *flags).summary["descriptor"])
        published.append(publisher.published_bytes())
        assert published[number] == published[0]
    assert len(digests) == 1


def test_an_unchanged_tree_is_not_read_again(publisher: Publisher) -> None:
    publisher.write(publisher.tree / "README.txt", b"about")
    publisher.publish("y1", "--date", DATE)
    summary = publisher.publish("y2", "--date", "2022-06-01").summary
    assert summary["files_hashed"] == summary["bytes_hashed"] == summary["assets_hashed"] == 0
    assert summary["files_added"] == summary["files_changed"] == summary["files_removed"] == 0
    assert summary["files_unchanged"] == 59 + 29
    assert publisher.release_files("y2") == publisher.tree_files()
    assert not (publisher.repo / "files" / "y2").exists()
    assert publisher.releases()["y2"].layers[-1].manifests == {}


def test_a_layer_holds_what_changed_and_nothing_else(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    before = publisher.release_files("y1")
    publisher.write(publisher.place(3), b"changed")
    publisher.write(publisher.place(100), b"added")
    publisher.place(5).unlink()
    publisher.place(7).unlink()
    publisher.write(publisher.place(7, "png"), b"another extension")
    summary = publisher.publish("y2", "--date", "2022-06-01").summary
    assert (summary["files_added"], summary["files_changed"], summary["files_removed"]) == (
        1,
        2,
        1,
    )
    assert summary["files_hashed"] == 3
    assert files_below(publisher.repo / "files" / "y2") == {
        "original/003/3.dat": b"changed",
        "original/004/100.dat": b"added",
        "original/007/7.png": b"another extension",
    }
    assert publisher.release_files("y2") == publisher.tree_files()
    assert publisher.release_files("y1") == before


def test_a_changed_file_of_the_same_size_is_found(publisher: Publisher) -> None:
    publisher.write(publisher.place(3), b"first")
    publisher.publish("y1", "--date", DATE)
    publisher.write(publisher.place(3), b"other")
    assert publisher.publish("y2", "--date", "2022-06-01").summary["files_changed"] == 1
    assert publisher.release_files("y2")["original/003/3.dat"] == b"other"


def test_a_touched_file_is_read_again_and_found_unchanged(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    os.utime(publisher.place(3), (1000, 1000))
    summary = publisher.publish("y2", "--date", "2022-06-01").summary
    assert (summary["files_hashed"], summary["files_changed"]) == (1, 0)
    assert not (publisher.repo / "files" / "y2").exists()


def test_a_file_as_young_as_the_look_is_read_again(publisher: Publisher) -> None:
    future_ns = time.time_ns() + 3600 * 10**9
    os.utime(publisher.place(3), ns=(future_ns, future_ns))
    publisher.publish("y1", "--date", DATE)
    assert publisher.publish("y2", "--date", "2022-06-01").summary["files_hashed"] == 1


def test_without_a_base_everything_is_linked_again_but_not_read(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    summary = publisher.publish("y2", "--date", "2022-06-01", "--base", "none").summary
    assert summary["base"] is None
    assert summary["layers"] == ["y2"]
    assert (summary["files_added"], summary["files_hashed"]) == (88, 0)
    assert publisher.release_files("y2") == publisher.tree_files()


def test_a_lost_record_costs_time_and_nothing_else(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    (publisher.repo / ".publish" / "record.db").write_bytes(b"not a database" * 100)
    run = publisher.publish("y2", "--date", "2022-06-01")
    assert "cannot be read" in run.stderr
    assert (run.summary["files_hashed"], run.summary["files_unchanged"]) == (88, 88)


def test_an_older_base_can_be_named(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    publisher.write(publisher.place(200), b"a detour")
    publisher.publish("y2", "--date", "2022-06-01")
    publisher.place(200).unlink()
    summary = publisher.publish("y3", "--date", "2023-06-01", "--base", "y1").summary
    assert summary["layers"] == ["y1", "y3"]
    assert summary["files_added"] == summary["files_removed"] == 0
    assert publisher.release_files("y3") == publisher.tree_files()


def test_what_one_release_holds_is_not_taken_for_what_another_does(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    publisher.write(publisher.place(3), b"changed")
    publisher.publish("y2", "--date", "2022-06-01")
    summary = publisher.publish("y3", "--date", "2023-06-01", "--base", "y1").summary
    assert (summary["files_changed"], summary["files_hashed"]) == (1, 0)
    assert publisher.release_files("y3") == publisher.tree_files()


def settled_for(publisher: Publisher) -> set[bytes | None]:
    """What the rows of ``original`` say that they are settled for."""
    with closing(sqlite3.connect(publisher.repo / ".publish" / "record.db")) as db:
        query = "SELECT release FROM look WHERE variant = 'original'"
        return {name for (name,) in db.execute(query)}


def test_buckets_stay_settled_while_nothing_of_their_variant_changes(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    first = settled_for(publisher)
    assert first == {manifests_digest(publisher.releases()["y1"], "original")}
    publisher.write(publisher.tree / "README", b"an asset")
    publisher.publish("y2", "--date", "2022-06-01")
    assert settled_for(publisher) == first
    publisher.write(publisher.place(3), b"another")
    publisher.publish("y3", "--date", "2023-06-01")
    changed = settled_for(publisher)
    assert changed == {manifests_digest(publisher.releases()["y3"], "original")} != first


def test_what_a_killed_run_left_of_a_bucket_with_nothing_new_goes(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    left = publisher.repo / "files" / "y2" / "original" / "003" / "3.dat"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"left")
    publisher.write(publisher.place(4), b"another")
    publisher.publish("y2", "--date", "2022-06-01")
    assert not left.parent.exists()
    assert (publisher.repo / "files" / "y2" / "original" / "004" / "4.dat").exists()


def test_a_file_comes_into_a_bucket_that_a_killed_run_had_done(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish("y1", "--date", DATE)
    publisher.write(publisher.place(3), b"changed")
    with monkeypatch.context() as patch:
        patch.setattr("server.publishing.publication.audit_files", interrupt)
        publisher.publish("y2", "--date", "2022-06-01", expect=ExitCode.INTERRUPTED)
    publisher.write(publisher.place(67), b"of the same bucket")
    summary = publisher.publish("y2", "--date", "2022-06-01").summary
    assert summary["files_hashed"] == 1
    assert publisher.release_files("y2") == publisher.tree_files()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_changed_while_it_was_published_and_then_was_put_back_is_found(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish("y1", "--date", DATE)
    path = publisher.place(3)
    before, then_ns = path.read_bytes(), path.stat().st_mtime_ns

    def change_and_carry_out(task: BucketTask) -> BucketReport:
        publisher.overwrite(path, bytes(len(before)))
        return carry_out(task)

    with monkeypatch.context() as patch:
        patch.setattr("server.publishing.gather.carry_out", change_and_carry_out)
        publisher.publish("y2", "--date", "2022-06-01", "--base", "none")
    assert publisher.release_files("y2")["original/003/3.dat"] == bytes(len(before))
    publisher.overwrite(path, before)
    os.utime(path, ns=(then_ns, then_ns))
    publisher.publish("y3", "--date", "2023-06-01")
    assert publisher.release_files("y3") == publisher.tree_files()


def test_a_name_that_appears_beside_unchanged_files_is_found(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    publisher.write(publisher.tree / "original" / "003" / "odd.txt", b"an asset")
    publisher.place(5).unlink()
    publisher.place(5).symlink_to("13.dat")
    summary = publisher.publish("y2", "--date", "2022-06-01").summary
    assert summary["findings"] == {"misplaced": 1, "odd-name": 1}
    assert summary["files_removed"] == summary["assets"] == 1


def test_large_files_have_a_digest_for_each_chunk(publisher: Publisher) -> None:
    data = os.urandom(CHUNK_BYTES * 2 + 5)
    publisher.place(4).unlink()
    publisher.write(publisher.place(4, "film"), data)
    publisher.publish("y1", "--date", DATE)
    # The second time the digests come from the record, those of a neighbour from its bytes.
    publisher.write(publisher.place(12), bytes(CHUNK_BYTES + 1))
    publisher.publish("y2", "--date", DATE, "--base", "none")
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    expected = [Digest.of(piece).raw for piece in pieces]
    for release in ("y1", "y2"):
        entries = publisher.bucket(publisher.releases()[release], "original", 4)
        assert [bytes(row) for row in entries.chunks[:3]] == expected
    assert publisher.release_files("y2") == publisher.tree_files()


def test_packs_are_the_files_of_a_bucket_in_order(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE, "--materialize-packs")
    packs = files_below(publisher.repo / "packs" / "y1")
    assert len(packs) == 2 * LAYOUT.buckets
    expected = b"".join(publisher.place(post_id).read_bytes() for post_id in range(3, 60, 8))
    assert packs["original/003"] == expected


def test_files_out_of_place_travel_as_assets_or_are_named(publisher: Publisher) -> None:
    publisher.write(publisher.tree / "original" / "001" / "2.dat", b"wrong bucket")
    publisher.write(publisher.tree / "original" / "001" / "notes.txt", b"no id")
    publisher.write(publisher.tree / "original" / "001" / "9.png", b"second file of 9")
    (publisher.tree / "original" / "001" / "17.png").symlink_to("9.png")
    run = publisher.publish("y1", "--date", DATE)
    assets = {asset.path.text for asset in publisher.releases()["y1"].assets}
    assert assets == {"original/001/2.dat", "original/001/notes.txt"}
    assert "original/001/9.png" not in publisher.release_files("y1")
    counts = run.summary["findings"]
    assert counts["wrong-bucket"] == counts["duplicate-id"] == counts["misplaced"] == 1


def test_assets_can_be_limited(publisher: Publisher) -> None:
    publisher.write(publisher.tree / "README", b"about")
    publisher.write(publisher.tree / "docs" / "a.txt", b"a")
    publisher.write(publisher.tree / "docs" / "b.txt", b"b")
    publisher.write(publisher.tree / "metadata" / "posts.json", b"")
    publisher.publish("y1", "--date", DATE, "--asset", "docs")
    paths = [asset.path.text for asset in publisher.releases()["y1"].assets]
    assert paths == ["docs/a.txt", "docs/b.txt"]


def test_a_changed_asset_is_another_object(publisher: Publisher) -> None:
    publisher.write(publisher.tree / "README", b"first")
    publisher.publish("y1", "--date", DATE)
    publisher.write(publisher.tree / "README", b"second")
    publisher.publish("y2", "--date", "2022-06-01")
    assert publisher.release_files("y1")["README"] == b"first"
    assert publisher.release_files("y2")["README"] == b"second"


def test_overwriting_the_tree_leaves_published_files_whole(publisher: Publisher) -> None:
    publisher.publish("y1", "--date", DATE)
    before = publisher.release_files("y1")
    publisher.overwrite(publisher.place(3), b"written in place")
    assert publisher.release_files("y1") == before
    publisher.publish("y2", "--date", "2022-06-01")
    assert publisher.release_files("y1") == before
    assert publisher.release_files("y2")["original/003/3.dat"] == b"written in place"
    assert publisher.notices().absences == ()


def test_progress_is_told_at_most_twice_a_second(publisher: Publisher) -> None:
    run = publisher.publish("y1", "--date", DATE)
    told = [event for event in run.events if event["event"] == "progress"]
    phases = {event["phase"] for event in told}
    assert len(told) <= len(phases) + 2 * run.summary["seconds"]
