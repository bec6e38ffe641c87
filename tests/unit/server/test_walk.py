"""What of a publisher's folder is an entry, what an asset, and what is out of place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manifests.errors import ConfigError, StoreError
from manifests.paths import Layout
from server.walk import (
    BucketWalk,
    FolderWalk,
    StrayKind,
    find_variants,
    walk_assets,
    walk_bucket,
    walk_variant,
)

LAYOUT = Layout(buckets=10, digits=2)


def make(tree: Path, *names: str) -> None:
    for name in names:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def walk(tree: Path, bucket: str = "01") -> BucketWalk:
    return walk_bucket(tree, "original", bucket, LAYOUT)


def names(found: BucketWalk) -> list[str]:
    return [found.entries.name(row) for row in range(len(found.entries))]


def assets(found: FolderWalk) -> list[str]:
    return [asset.text for asset in found.assets]


def strays(found: FolderWalk) -> list[tuple[StrayKind, str]]:
    return [(stray.kind, stray.path) for stray in found.strays]


def test_entries_come_by_ascending_id(tmp_path: Path) -> None:
    make(tmp_path, "original/01/21.png", "original/01/1.jpg", "original/01/111.gif")
    found = walk(tmp_path)
    assert names(found) == ["1.jpg", "21.png", "111.gif"]
    assert found.entries.sizes.tolist() == [len(b"original/01/") + n for n in (5, 6, 7)]
    assert (found.assets, found.strays) == ((), ())


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert names(walk(tmp_path, "09")) == []


def test_a_file_in_the_wrong_bucket_stays_an_asset(tmp_path: Path) -> None:
    make(tmp_path, "original/01/1.jpg", "original/01/12.jpg")
    found = walk(tmp_path)
    assert names(found) == ["1.jpg"]
    assert assets(found) == ["original/01/12.jpg"]
    assert strays(found) == [(StrayKind.WRONG_BUCKET, "original/01/12.jpg")]
    assert found.strays[0].post_id == 12
    assert "original/02" in found.strays[0].reason


def test_of_one_id_the_first_name_in_byte_order_stays(tmp_path: Path) -> None:
    make(tmp_path, *(f"original/01/11.{ext}" for ext in ("jpg", "png", "JPG")))
    found = walk(tmp_path)
    assert names(found) == ["11.JPG"]
    assert assets(found) == []
    assert strays(found) == [
        (StrayKind.CASE_TWIN, "original/01/11.jpg"),
        (StrayKind.DUPLICATE_ID, "original/01/11.png"),
    ]
    assert all("11.JPG" in stray.reason for stray in found.strays)


def test_case_twins_among_assets(tmp_path: Path) -> None:
    make(
        tmp_path, "original/01/12.jpg", "original/01/12.JPG", "original/01/A/x", "original/01/a/y"
    )
    found = walk(tmp_path)
    assert assets(found) == ["original/01/12.JPG", "original/01/A/x"]
    assert (StrayKind.CASE_TWIN, "original/01/12.jpg") in strays(found)
    assert (StrayKind.CASE_TWIN, "original/01/a") in strays(found)


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "original/01/1.jpg", "secret")
    bucket = tmp_path / "original/01"
    (bucket / "11.jpg").symlink_to(tmp_path / "secret")
    (bucket / "inner").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(bucket / "21.jpg")
    found = walk(tmp_path)
    assert names(found) == ["1.jpg"]
    assert assets(found) == []
    assert strays(found) == [
        (StrayKind.MISPLACED, "original/01/11.jpg"),
        (StrayKind.MISPLACED, "original/01/21.jpg"),
        (StrayKind.MISPLACED, "original/01/inner"),
    ]
    assert [stray.post_id for stray in found.strays] == [11, 21, 0]


@pytest.mark.parametrize(
    "name", ["a:b.jpg", "nul.txt", "end.", "tab\t", "e\u0301.jpg", "1.\u017fwf"]
)
def test_unsafe_names_are_left_out(tmp_path: Path, name: str) -> None:
    make(tmp_path, f"original/01/{name}")
    found = walk(tmp_path)
    assert assets(found) == []
    assert strays(found) == [(StrayKind.MISPLACED, f"original/01/{name}")]


def test_a_name_that_is_no_text_is_shown_escaped(tmp_path: Path) -> None:
    make(tmp_path, "original/01/1.jpg")
    (tmp_path / os.fsdecode(b"original/01/\xff.jpg")).write_bytes(b"")
    assert strays(walk(tmp_path)) == [(StrayKind.MISPLACED, "original/01/\\xff.jpg")]


def test_odd_names_and_folders_in_a_bucket_are_assets(tmp_path: Path) -> None:
    make(tmp_path, "original/01/0001.jpg", "original/01/notes.txt", "original/01/sub/12.jpg")
    found = walk(tmp_path)
    assert assets(found) == [
        "original/01/0001.jpg",
        "original/01/notes.txt",
        "original/01/sub/12.jpg",
    ]
    assert strays(found) == [
        (StrayKind.ODD_NAME, "original/01/0001.jpg"),
        (StrayKind.ODD_NAME, "original/01/notes.txt"),
    ]


def test_a_variant_has_buckets_and_things_beside_them(tmp_path: Path) -> None:
    make(
        tmp_path,
        "original/01/1.jpg",
        "original/00/10.jpg",
        "original/5.jpg",
        "original/10/20.jpg",
        "original/readme.txt",
        "original/extra/7.jpg",
    )
    (tmp_path / "original/02").write_bytes(b"a file that is named like a bucket")
    found = walk_variant(tmp_path, "original", LAYOUT)
    assert found.buckets == ("00", "01")
    assert assets(found) == [
        "original/10/20.jpg",
        "original/5.jpg",
        "original/extra/7.jpg",
        "original/readme.txt",
    ]
    assert sorted(strays(found)) == [
        (StrayKind.MISPLACED, "original/02"),
        (StrayKind.WRONG_BUCKET, "original/10/20.jpg"),
        (StrayKind.WRONG_BUCKET, "original/5.jpg"),
    ]


def test_assets_of_a_tree_lie_beside_its_variants(tmp_path: Path) -> None:
    make(tmp_path, "README", "original/01/1.jpg", "docs/01/1.jpg", "metadata/posts.json")
    found = walk_assets(tmp_path, LAYOUT, apart=("original", "metadata"))
    assert assets(found) == ["README", "docs/01/1.jpg"]
    assert found.strays == ()


def test_a_path_too_deep_is_left_out(tmp_path: Path) -> None:
    make(tmp_path, "/".join("d" * 40) + "/file")
    found = walk_assets(tmp_path, LAYOUT)
    assert found.assets == ()
    assert [stray.kind for stray in found.strays] == [StrayKind.MISPLACED]


def test_variants_are_the_folders_with_bucket_folders(tmp_path: Path) -> None:
    make(
        tmp_path, "original/01/1.jpg", "512px/02/2.jpg", "metadata/05/x", "docs/readme", ".x/01/y"
    )
    make(tmp_path, "wide/001/1.jpg", "high/10/1.jpg", "file")
    assert find_variants(tmp_path, LAYOUT) == ("512px", "original")
    assert find_variants(tmp_path, LAYOUT, ["original", "original"]) == ("original",)
    assert find_variants(tmp_path, LAYOUT, ["wide"]) == ("wide",)


def test_trees_without_variants_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "wide/0001/1.jpg")
    with pytest.raises(ConfigError, match="no folder has bucket folders such as 00"):
        find_variants(tmp_path, LAYOUT)
    with pytest.raises(ConfigError, match="expected a folder with variants"):
        find_variants(tmp_path / "missing", LAYOUT)
    with pytest.raises(ConfigError, match="expected the folder of a variant"):
        find_variants(tmp_path, LAYOUT, ["missing"])


@pytest.mark.parametrize("name", ["my pictures", "caf\u00e9"])
def test_a_folder_with_buckets_and_an_impossible_name_is_no_silent_asset(
    tmp_path: Path, name: str
) -> None:
    make(tmp_path, "original/01/1.jpg", f"{name}/01/1.jpg")
    with pytest.raises(ConfigError, match="is not a variant name"):
        find_variants(tmp_path, LAYOUT)


def test_variants_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "original/01/1.jpg", "Original/01/1.jpg")
    with pytest.raises(ConfigError, match="differ only in case: Original, original"):
        find_variants(tmp_path, LAYOUT)


def test_a_link_is_no_variant_and_no_bucket(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/01/1.jpg", "tree/original/02/2.jpg")
    (tmp_path / "tree/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(ConfigError, match="expected the folder of a variant"):
        find_variants(tmp_path / "tree", LAYOUT)
    (tmp_path / "tree/original/01").symlink_to(tmp_path / "elsewhere/01", target_is_directory=True)
    found = walk_variant(tmp_path / "tree", "original", LAYOUT)
    assert found.buckets == ("02",)
    assert strays(found) == [(StrayKind.MISPLACED, "original/01")]
    with pytest.raises(StoreError, match="symbolic link"):
        walk_bucket(tmp_path / "tree", "original", "01", LAYOUT)
