from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from docs.examples.openmoji import (
    EDITIONS,
    NETWORK,
    REFUSED,
    USAGE,
    Job,
    LayoutError,
    assign_ids,
    compare,
    fetch,
    lay_out,
    main,
    make_tree,
    normalise,
    tags_of,
)
from tests.support.needs import needs
from tests.support.npm import openmoji_trees

# A port that nothing listens on: port 9 is "discard", and binding it takes root.
NOWHERE = "http://127.0.0.1:9"


def entry(hexcode: str, annotation: str, **more: str) -> dict[str, Any]:
    return {
        "hexcode": hexcode,
        "annotation": annotation,
        "tags": "",
        "openmoji_tags": "",
        "group": "animals-nature",
        "subgroups": "animal-mammal",
        "openmoji_author": "Ana Jäger",
        "openmoji_date": " 2020-03-29",
        "skintone_base_hexcode": "",
        **more,
    }


CATALOG = [
    entry("1F431", "cat face", tags="cat, face, pet"),
    entry("1F44B", "waving hand", group="people-body", subgroups="hand"),
    entry("1F44B-1F3FB", "waving hand: light skin tone", skintone_base_hexcode="1F44B"),
]


def package(path: Path, catalog: list[dict[str, Any]]) -> Path:
    """An npm package with the parts of OpenMoji that count, and some that do not."""
    files = {
        "package/LICENSE.txt": b"a license",
        "package/color/svg/../../evil.svg": b"<svg/>",
        "package/font/OpenMoji-Color.ttf": b"large",
        "package/data/openmoji.json": json.dumps(catalog).encode(),
    }
    for one in catalog:
        for folder in ("color", "black"):
            files[f"package/{folder}/svg/{one['hexcode']}.svg"] = f"<{folder}/>".encode()
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def rows(tree: Path, table: str) -> list[dict[str, Any]]:
    text = (tree / "metadata" / f"{table}000000000000.json").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    ids = assign_ids([CATALOG[:2], CATALOG])
    job = Job(
        package=package(tmp_path / "p.tgz", CATALOG),
        tree=tmp_path / "trees" / "14.0.0",
        version="14.0.0",
        ids={**ids, "1F431": 2001},
        variants=("original", "black"),
    )
    make_tree(job)
    return job.tree


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("cat face", "cat_face"),
        ("  Emily  Jäger ", "emily_jager"),
        ("woman\u2019s boot", "woman's_boot"),
        ("*", ""),
        ("-minus", "minus"),
        ("寿", ""),
        ("medium-light skin tone", "medium-light_skin_tone"),
    ],
)
def test_tags_are_written_as_danbooru_writes_them(text: str, tag: str) -> None:
    assert normalise(text) == tag


def test_all_that_is_said_of_an_illustration_becomes_a_tag() -> None:
    one = entry("1", "family: man, boy", tags="kin, man", openmoji_tags="home")
    assert tags_of(one) == [
        "ana_jager", "animal-mammal", "animals-nature", "boy", "family", "home", "kin", "man",
    ]  # fmt: skip


def test_ids_follow_first_appearance_and_stay() -> None:
    old, new = [entry("B", ""), entry("A", "")], [entry("C", ""), entry("A", "")]
    assert assign_ids([old, new]) == {"B": 1, "A": 2, "C": 3}


def test_a_tree_holds_both_variants_metadata_and_assets(tree: Path) -> None:
    found = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert found == {
        "ATTRIBUTION.txt",
        "LICENSE.txt",
        "black/0001/2001.svg",
        "black/0002/2.svg",
        "black/0003/3.svg",
        "metadata/posts000000000000.json",
        "metadata/tags000000000000.json",
        "original/0001/2001.svg",
        "original/0002/2.svg",
        "original/0003/3.svg",
    }
    assert (tree / "original/0002/2.svg").read_bytes() == b"<color/>"
    assert "14.0.0" in (tree / "ATTRIBUTION.txt").read_text(encoding="utf-8")
    released = EDITIONS["14.0.0"].unix_s
    assert {(tree / name).stat().st_mtime for name in found} == {released}
    assert [path.name for path in tree.parent.iterdir()] == ["14.0.0"]


def test_posts_describe_the_coloured_files(tree: Path) -> None:
    posts = {row["id"]: row for row in rows(tree, "posts")}
    assert list(posts) == ["2", "3", "2001"]
    for post_id, row in posts.items():
        data = (tree / "original" / f"{int(post_id) % 1000:04d}" / f"{post_id}.svg").read_bytes()
        assert row["md5"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
        assert row["file_size"] == str(len(data))
        assert row["created_at"] == "2020-03-29 00:00:00 UTC"
        assert {type(value) for value in row.values()} == {str, bool}
    assert posts["3"]["parent_id"] == "2"
    assert [posts[number]["has_children"] for number in ("2", "3")] == [True, False]
    assert "parent_id" not in posts["2"]
    assert posts["2001"]["tag_string_artist"] == "ana_jager"
    assert posts["2001"]["tag_string_meta"] == "animal-mammal animals-nature"
    assert posts["2001"]["tag_string_general"] == "cat cat_face face pet"


def test_the_tags_table_counts_the_posts(tree: Path) -> None:
    counts = {row["name"]: (row["category"], row["post_count"]) for row in rows(tree, "tags")}
    assert counts["ana_jager"] == ("1", "3")
    assert counts["waving_hand"] == ("0", "2")
    assert counts["hand"] == ("5", "1")


def test_a_tree_that_exists_is_left_alone(tree: Path, tmp_path: Path) -> None:
    before = (tree / "original/0002/2.svg").stat()
    assert lay_out(tree.parent, tmp_path / "no cache", ["14.0.0"]) == [tree]
    assert (tree / "original/0002/2.svg").stat() == before


def test_a_tree_without_a_wanted_variant_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / "black").rename(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match="without black") as caught:
        lay_out(tree.parent, tmp_path, ["14.0.0"])
    assert caught.value.exit_code == USAGE


def test_a_package_with_other_bytes_is_refused_and_forgotten(tmp_path: Path) -> None:
    stored = package(tmp_path / "openmoji-13.1.0.tgz", CATALOG)
    with pytest.raises(LayoutError, match=r"13\.1\.0 .* not the package") as caught:
        fetch(tmp_path, ["13.1.0"])
    assert caught.value.exit_code == REFUSED
    assert not stored.exists()


def test_without_npm_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(tmp_path / "d"), "--cache", str(tmp_path / "c")]) == NETWORK
    assert capsys.readouterr().err.splitlines() == [
        "error: npm is not installed (on Debian: apt-get install npm)."
    ]


@needs("npm")
def test_without_a_network_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("npm_config_registry", NOWHERE)
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    command = [str(tmp_path / "d"), "--cache", str(tmp_path / "c"), "--versions", "13.1.0"]
    assert main(command) == NETWORK
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: npm could not fetch openmoji 13.1.0: is there a network?")
    assert not (tmp_path / "d").exists()


@pytest.fixture(scope="module")
def trees() -> list[Path]:
    return openmoji_trees()


def test_the_versions_differ_as_the_tutorial_says(trees: list[Path]) -> None:
    changes = [line.partition(": ")[2] for line in compare(trees)]
    assert changes == [
        "3,914 illustrations, 3,914 new, 0 changed, 0 removed",
        "4,083 illustrations, 169 new, 729 changed, 0 removed",
        "4,284 illustrations, 201 new, 589 changed, 0 removed",
        "4,292 illustrations, 8 new, 6 changed, 0 removed",
    ]


def test_each_illustration_has_both_files_and_a_row(trees: list[Path]) -> None:
    for tree in trees:
        names = {f"{row['id']}.svg" for row in rows(tree, "posts")}
        for variant in ("original", "black"):
            assert {path.name for path in (tree / variant).rglob("*.svg")} == names


def test_assets_come_and_go(trees: list[Path]) -> None:
    fonts = [{path.name for path in (tree / "font").glob("*")} for tree in trees]
    assert fonts == [
        {"README.md", "demo.html", "openmoji.css"},
        {"README.md", "demo.html", "openmoji.css"},
        {"README.md"},
        set(),
    ]
