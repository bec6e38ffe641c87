"""Settings: kept whole or not at all, and merged from weak to strong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from manifests.errors import ConfigError, ExitCode, StoreError
from syncclient.config import (
    Transport,
    TreeConfig,
    load_tree_config,
    merge_transport,
    save_tree_config,
)
from syncclient.selection import Selection

CONFIG = TreeConfig(
    dataset="birds",
    urls=("https://a.example/birds", "https://b.example/birds"),
    root_fingerprint="ab" * 32,
    release="birds2021",
    selection=Selection(
        variants=("512px", "original"),
        buckets=(3, 7),
        ids=np.array([7, 13, 4_000_000_000]),
        metadata=True,
    ),
    variant_dirs={"original": "/mnt/big/original"},
    transport={"bwlimit": "2M", "mirrors": ["https://c.example"]},
)


def path_of(tree: Path) -> Path:
    return tree / ".bucketsync" / "config.toml"


async def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    await save_tree_config(tmp_path, CONFIG)
    loaded = load_tree_config(tmp_path)
    assert loaded.selection.ids is not None
    assert loaded.selection.ids.tolist() == [7, 13, 4_000_000_000]
    for name in ("dataset", "urls", "root_fingerprint", "release", "variant_dirs", "transport"):
        assert getattr(loaded, name) == getattr(CONFIG, name)
    assert (loaded.selection.variants, loaded.selection.buckets) == (("512px", "original"), (3, 7))
    assert loaded.selection.metadata


async def test_everything_is_the_default_selection(tmp_path: Path) -> None:
    await save_tree_config(
        tmp_path,
        TreeConfig(
            dataset="d", urls=("u",), root_fingerprint="", release="r", selection=Selection()
        ),
    )
    found = load_tree_config(tmp_path).selection
    assert (found.variants, found.buckets, found.ids) == (None, None, None)
    assert found.whole
    assert not found.metadata


async def test_a_failed_write_leaves_the_old_settings(tmp_path: Path) -> None:
    await save_tree_config(tmp_path, CONFIG)
    (tmp_path / ".bucketsync" / "config.toml.new").mkdir()
    with pytest.raises(StoreError, match=r"config\.toml"):
        await save_tree_config(tmp_path, CONFIG)
    assert load_tree_config(tmp_path).release == "birds2021"


@pytest.mark.parametrize("make", ["nothing", "file"])
def test_a_folder_without_settings_is_no_tree(tmp_path: Path, make: str) -> None:
    tree = tmp_path / "tree"
    if make == "file":
        tree.write_text("not even a folder")
    with pytest.raises(ConfigError, match="not a bucketsync tree") as caught:
        load_tree_config(tree)
    assert caught.value.exit_code == ExitCode.NOT_A_TREE
    assert "adopt" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('dataset = "birds"', 'dataset = "birds'),
        ('dataset = "birds"', ""),
        ('dataset = "birds"', "dataset = 7"),
        ('dataset = "birds"', 'dataset = "../birds"'),
        ('release = "birds2021"', 'release = "a/b"'),
        ("original =", '"../up" ='),
        ("buckets = [", "buckets = 3 #"),
        ("buckets = [", "buckets = ['x',"),
        ("urls = [", "urls = 5 #"),
        ("format = 1", "format = 2"),
        ("format = 1", "\udcff = 1"),
    ],
)
async def test_settings_that_cannot_be_read_name_their_file(
    tmp_path: Path, old: str, new: str
) -> None:
    await save_tree_config(tmp_path, CONFIG)
    text = path_of(tmp_path).read_text()
    assert old in text
    path_of(tmp_path).write_text(text.replace(old, new), errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"config\.toml") as caught:
        load_tree_config(tmp_path)
    assert caught.value.exit_code == ExitCode.NOT_A_TREE
    assert caught.value.hint


@pytest.mark.parametrize("lost", [True, False])
async def test_a_list_of_ids_that_cannot_be_read_is_named(tmp_path: Path, *, lost: bool) -> None:
    await save_tree_config(tmp_path, CONFIG)
    ids = tmp_path / ".bucketsync" / "selection.ids"
    if lost:
        ids.unlink()
    else:
        ids.write_text("7\nseven\n")
    with pytest.raises(ConfigError, match=r"selection\.ids") as caught:
        load_tree_config(tmp_path)
    assert caught.value.exit_code == ExitCode.NOT_A_TREE


def test_flags_win_over_environment_over_tree_over_defaults() -> None:
    kept = {"bwlimit": "1k", "retries": 2, "timeout_s": 10, "mirrors": ["https://kept"]}
    environment = {"BUCKETSYNC_RETRIES": "3", "BUCKETSYNC_TIMEOUT_S": "20", "HOME": "/"}
    flags: dict[str, object] = {
        "timeout_s": 30.5,
        "jobs": None,
        "locals": [],
        "mirrors": None,
    }
    assert merge_transport(kept, environment, flags) == Transport(
        bwlimit=1000, retries=3, timeout_s=30.5, mirrors=("https://kept",)
    )


def test_lists_in_the_environment_are_words() -> None:
    merged = merge_transport({}, {"BUCKETSYNC_MIRRORS": "https://a https://b"}, {})
    assert merged.mirrors == ("https://a", "https://b")


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        ({"BUCKETSYNC_JOBS": "many"}, {}),
        ({"BUCKETSYNC_TIMEOUT_S": "soon"}, {}),
        ({}, {"bwlimit": "fast"}),
        ({}, {"jobs": -1}),
        ({}, {"connections": 0}),
        ({}, {"retries": 0}),
        ({}, {"timeout_s": 0.0}),
    ],
)
def test_a_setting_that_makes_no_sense_is_a_usage_error(
    environment: dict[str, str], flags: dict[str, object]
) -> None:
    with pytest.raises(ConfigError):
        merge_transport({}, environment, flags)


def test_a_misspelled_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="no transport setting retriess"):
        merge_transport({"retriess": 3}, {}, {})


def test_a_setting_of_the_tree_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"config\.toml: .* bandwidth"):
        merge_transport({"bandwidth": 7, "retries": 3}, {}, {})
