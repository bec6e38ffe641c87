"""Paths and names: what every file system stores under exactly that name, and nothing else."""

from __future__ import annotations

import pytest

from manifests import paths
from manifests.errors import ManifestError
from manifests.paths import MAX_ID, Layout, asset_path, component_problem

TRAPS = {
    "": "is not a name",
    ".": "is not a name",
    "..": "is not a name",
    "a\x00b": "some file systems refuse",
    "a\tb": "some file systems refuse",
    "a\x1b[31m": "some file systems refuse",
    "a\x7f": "some file systems refuse",
    "a\x85b": "some file systems refuse",
    "..\\evil": "some file systems refuse",
    "c:evil": "some file systems refuse",
    "a*": "some file systems refuse",
    "a?": "some file systems refuse",
    'a"b': "some file systems refuse",
    "a<b": "some file systems refuse",
    "a>b": "some file systems refuse",
    "a|b": "some file systems refuse",
    "name.": "ends in a dot or a space",
    "name ": "ends in a dot or a space",
    "...": "ends in a dot or a space",
    "CON": "device name",
    "prn.txt": "device name",
    "Aux.tar.gz": "device name",
    "nul .txt": "device name",
    "com1": "device name",
    "COM²": "device name",
    "lpt9.jpg": "device name",
    "conin$": "device name",
    "CONOUT$.x": "device name",
    "e\u0301.txt": "normal form C",
    "\ud800": "is not text",
    "x" * 256: "longer than 255 bytes",
    "é" * 128: "longer than 255 bytes",
}
FINE = [
    "a..b",
    "..a",
    ".hidden",
    "...a",
    "README.md",
    "con_",
    "icon",
    "com10",
    "com",
    "null.txt",
    "été.txt",
    "日本語",
    "a b",
    "x" * 255,
    "é" * 127,
    "-rf",
    "~root",
    "%2e%2e",
]


@pytest.mark.parametrize(("name", "problem"), TRAPS.items())
def test_unsafe_components(name: str, problem: str) -> None:
    assert problem in component_problem(name)


@pytest.mark.parametrize("name", FINE)
def test_safe_components(name: str) -> None:
    assert component_problem(name) == ""
    assert asset_path(f"docs/{name}/x").text == f"docs/{name}/x"


@pytest.mark.parametrize("name", [name for name in TRAPS if name])
@pytest.mark.parametrize("shape", ["{}", "{}/x", "x/{}", "x/{}/y"])
def test_no_part_of_an_asset_path_may_be_unsafe(name: str, shape: str) -> None:
    with pytest.raises(ManifestError, match="unsafe path") as caught:
        asset_path(shape.format(name), "assets[3].path")
    assert caught.value.where == "assets[3].path"
    assert TRAPS[name] in caught.value.problem


@pytest.mark.parametrize("text", ["", "/etc/passwd", "a//b", "a/", "../x", "a/../../x", "./a"])
def test_asset_paths_stay_below_the_tree(text: str) -> None:
    with pytest.raises(ManifestError, match="is not a name"):
        asset_path(text)


@pytest.mark.parametrize(
    "first",
    [
        ".bucketsync",
        ".BucketSync",
        ".bucket\u017fync",
        ".bucket\u200csync",
        "\ufeff.bucketsync",
        ".bucketsync\u00ad",
        ".bucket\U000e0101sync",
    ],
)
def test_the_clients_own_folder_is_no_place_for_assets(first: str) -> None:
    for text in (first, f"{first}/state.db"):
        with pytest.raises(ManifestError, match="client's own folder") as caught:
            asset_path(text)
        assert caught.value.where == "path"


def test_only_the_top_folder_is_private() -> None:
    assert asset_path("docs/.bucketsync").parts == ("docs", ".bucketsync")
    assert asset_path(".bucketsync2/a").text == ".bucketsync2/a"


def test_limits_of_asset_paths() -> None:
    deepest = "/".join("a" * paths.MAX_DEPTH)
    longest = "/".join(["x" * 255] * 3 + ["y" * 253, "z"])
    assert len(longest) == paths.MAX_PATH_BYTES - 1
    assert asset_path(deepest).text == deepest
    assert asset_path(longest + "z").text == longest + "z"
    for text in (deepest + "/a", longest + "zz"):
        with pytest.raises(ManifestError, match="too long or too deep"):
            asset_path(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A/readme", "a/README"),
        ("stra\u00dfe", "STRASSE"),
        ("\u0130", "i\u0307"),
        ("a\u200db", "ab"),
        ("e\u200d\u0301", "\u00e9"),
        ("\u01c4", "\u01c6"),
    ],
)
def test_folded_paths_collide_where_file_systems_do(one: str, other: str) -> None:
    assert asset_path(one).folded == paths.SafePath(other).folded
    assert asset_path(one) != paths.SafePath(other)


def test_a_path_shows_itself() -> None:
    assert str(asset_path("a/b")) == "a/b"


@pytest.mark.parametrize("text", ["danbooru2021", "512px", "a", "A.b-c_d", "x" * 64])
def test_names(text: str) -> None:
    assert paths.check_name(text, "release", "release") == text


@pytest.mark.parametrize(
    "text", ["", ".a", "-a", "_a", "a/b", "a b", "é", "x" * 65, "nul", "con.1", "a.", "a\n", "٣"]
)
def test_other_text_is_no_name(text: str) -> None:
    with pytest.raises(ManifestError, match="is not a release name") as caught:
        paths.check_name(text, "descriptor.release", "release")
    assert caught.value.where == "descriptor.release"
    assert "letters, digits" in caught.value.hint


@pytest.mark.parametrize("text", ["metadata", "Metadata"])
def test_the_metadata_folder_is_no_variant(text: str) -> None:
    with pytest.raises(ManifestError, match="folder of the metadata") as caught:
        paths.check_variant(text)
    assert caught.value.where == "variant"


def test_variants_are_names() -> None:
    assert paths.check_variant("512px") == "512px"
    with pytest.raises(ManifestError, match="is not a variant name"):
        paths.check_variant("..", "layers[0]")


@pytest.mark.parametrize("text", ["jpg", "JPG", "7z", "x" * 16])
def test_extensions(text: str) -> None:
    assert paths.check_extension(text) == text


@pytest.mark.parametrize("text", ["", ".jpg", "j/g", "tar.gz", "x" * 17, "jpé", "jpg\n", "٣"])
def test_other_text_is_no_extension(text: str) -> None:
    with pytest.raises(ManifestError, match="is not a file extension") as caught:
        paths.check_extension(text)
    assert caught.value.where == "extension"


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("1.png", (1, "png")),
        ("1999.JPG", (1999, "JPG")),
        (f"{MAX_ID}.gif", (MAX_ID, "gif")),
        (f"{MAX_ID + 1}.gif", None),
        ("0.png", None),
        ("01.png", None),
        ("1", None),
        ("1.", None),
        (".png", None),
        ("1.tar.gz", None),
        ("-1.png", None),
        ("1.png\n", None),
        ("٣.png", None),
    ],
)
def test_entry_names(name: str, parsed: tuple[int, str] | None) -> None:
    assert paths.parse_entry_name(name) == parsed
    among = ["7.webp", name, "31.png"]
    expected = None if parsed is None else ([7, parsed[0], 31], ["webp", parsed[1], "png"])
    assert paths.parse_entry_names(among) == expected


@pytest.mark.parametrize("names", [["1.2.3", "4"], ["4", "1.2.3"], ["1.png.2", "jpg"], [""], []])
def test_dots_in_other_places_make_no_entry_names(names: list[str]) -> None:
    assert paths.parse_entry_names(names) is None


@pytest.mark.parametrize(("buckets", "digits"), [(1, 1), (10, 1), (1000, 4), (100_000, 5), (1, 9)])
def test_layouts(buckets: int, digits: int) -> None:
    layout = Layout(buckets=buckets, digits=digits)
    last = layout.bucket_name(buckets - 1)
    assert len(last) == digits
    assert layout.parse_bucket(last) == buckets - 1


@pytest.mark.parametrize(
    ("buckets", "digits", "where"),
    [
        (0, 4, "buckets"),
        (100_001, 6, "buckets"),
        (11, 1, "digits"),
        (1000, 2, "digits"),
        (1000, 10, "digits"),
        (1, 0, "digits"),
    ],
)
def test_impossible_layouts(buckets: int, digits: int, where: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Layout(buckets=buckets, digits=digits)
    assert caught.value.where == where


@pytest.mark.parametrize(
    "name", ["", "999", "00999", "1000", "0a99", "-001", "\u0660\u0660\u0660\u0661", "0 1 "]
)
def test_folders_that_are_no_bucket(name: str) -> None:
    assert Layout(buckets=1000, digits=4).parse_bucket(name) is None


def test_entry_paths_are_built_from_checked_values() -> None:
    layout = Layout()
    assert layout.bucket_of(1999) == 999
    assert layout.entry_path("original", 1999, "png").text == "original/0999/1999.png"
    assert layout.entry_path("512px", MAX_ID, "jpg").text == "512px/0295/4294967295.jpg"


@pytest.mark.parametrize(
    ("variant", "post_id", "extension", "where"),
    [
        ("..", 1, "png", "variant"),
        ("metadata", 1, "png", "variant"),
        ("original", 0, "png", "id"),
        ("original", -1, "png", "id"),
        ("original", MAX_ID + 1, "png", "id"),
        ("original", 1, "../x", "extension"),
    ],
)
def test_entry_paths_refuse_unchecked_values(
    variant: str, post_id: int, extension: str, where: str
) -> None:
    with pytest.raises(ManifestError) as caught:
        Layout().entry_path(variant, post_id, extension)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("path", "parsed"),
    [
        ("original/0999/1999.png", ("original", 1999, "png")),
        ("original/0998/1999.png", None),
        ("original/999/1999.png", None),
        ("original/0999/1999", None),
        ("original/0999/x/1999.png", None),
        ("original/0999/1999.png/x", None),
        ("0999/1999.png", None),
    ],
)
def test_paths_of_entries_are_recognised(path: str, parsed: tuple[str, int, str] | None) -> None:
    assert Layout().parse_entry(path) == parsed


@pytest.mark.parametrize(
    ("path", "claimed"),
    [
        ("original", True),
        ("original/0001", True),
        ("original/0001/1.png", True),
        ("original/0001/1.png/notes.txt", True),
        ("original/readme", False),
        ("original/1", False),
        ("original/1000", False),
        ("original/0001/2.png", False),
        ("original/0001/notes.txt", False),
        ("original/extra/1.png", False),
    ],
)
def test_places_that_entries_claim(path: str, *, claimed: bool) -> None:
    assert Layout().claims(path.split("/")) is claimed
