"""What a survey saw of a bucket spares a second listing, unless a name came or went meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from manifests.digest import digest_bytes
from manifests.paths import Layout
from server.publishing import buckets
from server.publishing.buckets import carry_out, survey
from server.publishing.hashing import Taken, Taker
from server.publishing.links import Method, Target
from server.publishing.look import Look
from server.publishing.work import BucketReport, BucketTask, Workload
from server.walk import BucketWalk, walk_bucket
from syncclient.tree import FileStat
from tests.support.publisher import LAYOUT

BUCKET = 3
# Older than any look, so that whatever happens afterwards shows.
_LONG_AGO_NS = 10**18


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bucket of three files."""
    made = tmp_path / "tree" / "original" / LAYOUT.bucket_name(BUCKET)
    made.mkdir(parents=True)
    for post_id in (3, 11, 19):
        write(made, f"{post_id}.dat", b"%d" % post_id)
    age(made)
    return made


def write(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)
    age(folder / name)


def age(path: Path) -> None:
    os.utime(path, ns=(_LONG_AGO_NS, _LONG_AGO_NS))


def surveyed(folder: Path, tmp_path: Path) -> BucketTask:
    """The task of the bucket after its survey."""
    target = Target(
        layer=str(tmp_path / "layer"),
        stages=str(tmp_path / "stages"),
        date_ns=_LONG_AGO_NS,
        methods=(Method.COPY,),
    )
    task = BucketTask(
        tree=str(folder.parents[1]),
        variant="original",
        bucket=BUCKET,
        layout=LAYOUT,
        lineage=(),
        look=None,
        is_settled=False,
        links=None,
        target=target,
    )
    work = survey(task)
    assert isinstance(work, Workload)
    return replace(task, sight=work.sight)


def contents(report: BucketReport) -> dict[str, bytes]:
    """The digest of each file of the layer, by name."""
    digests = [digest.tobytes() for digest in report.put.digests]
    return dict(zip(report.put.names(), digests, strict=True))


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: digest_bytes(path.read_bytes()) for path in folder.iterdir()}


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The buckets that were listed."""
    seen: list[str] = []

    def walk(tree: Path, variant: str, bucket: str, layout: Layout) -> BucketWalk:
        seen.append(bucket)
        return walk_bucket(tree, variant, bucket, layout)

    monkeypatch.setattr(buckets, "walk_bucket", walk)
    return seen


def test_a_folder_with_the_same_names_is_listed_once(
    folder: Path, tmp_path: Path, walks: list[str]
) -> None:
    report = carry_out(surveyed(folder, tmp_path))
    assert len(walks) == 1
    assert contents(report) == on_disk(folder)


def gone(folder: Path) -> None:
    (folder / "11.dat").unlink()


def come(folder: Path) -> None:
    write(folder, "27.dat", b"27")


def renamed(folder: Path) -> None:
    (folder / "11.dat").rename(folder / "35.dat")


def replaced(folder: Path) -> None:
    write(folder, "new", b"another")
    (folder / "new").rename(folder / "11.dat")


@pytest.mark.parametrize("change", [gone, come, renamed, replaced])
def test_a_folder_whose_names_changed_is_listed_again(
    folder: Path, tmp_path: Path, walks: list[str], change: Callable[[Path], None]
) -> None:
    task = surveyed(folder, tmp_path)
    change(folder)
    report = carry_out(task)
    assert len(walks) == 2
    assert contents(report) == on_disk(folder)


def test_a_folder_that_is_gone_is_empty(folder: Path, tmp_path: Path) -> None:
    task = surveyed(folder, tmp_path)
    folder.rename(tmp_path / "elsewhere")
    assert contents(carry_out(task)) == {}


def test_a_file_written_to_in_place_is_read_as_it_is(
    folder: Path, tmp_path: Path, walks: list[str]
) -> None:
    task = surveyed(folder, tmp_path)
    (folder / "11.dat").write_bytes(b"longer than before")
    assert contents(carry_out(task)) == on_disk(folder)
    assert len(walks) == 1


def test_inode_numbers_have_64_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlays and pools of disks use the highest one too, of some files."""

    class FarTaker(Taker):
        def take(
            self, name: str, base_digest: bytes | None, listed: FileStat | None = None
        ) -> Taken:
            taken = super().take(name, base_digest, listed)
            number = far if name == "11.dat" else taken.stat.inode
            return taken._replace(stat=taken.stat._replace(inode=number))

    far = 2**64 - 1
    task = surveyed(folder, tmp_path)
    monkeypatch.setattr(buckets, "Taker", FarTaker)
    look = Look.decode(carry_out(task).look)
    assert look is not None
    near = [(folder / name).stat().st_ino for name in ("3.dat", "19.dat")]
    assert look.inodes.tolist() == [near[0], far, near[1]]


def test_a_folder_that_changed_just_before_it_was_seen_is_listed_again(
    folder: Path, tmp_path: Path, walks: list[str]
) -> None:
    """Within one tick of the clock another name would not move its mtime."""
    come(folder)
    carry_out(surveyed(folder, tmp_path))
    assert len(walks) == 2
