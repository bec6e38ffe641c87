from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from manifests.errors import ConfigError
from server.cli import main
from server.sample.canvas import COLOURS, WHITE, mix
from server.sample.drawing import draw
from server.sample.files import Task, write_post
from server.sample.series import Release, make_series
from server.sample.years import SampleSettings, Year, plan_years

SETTINGS = SampleSettings(releases=3, posts=40, seed=5)
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".gif": "GIF"}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> list[Release]:
    return list(make_series(tmp_path_factory.mktemp("sample") / "trees", SETTINGS))


@pytest.fixture(scope="module")
def years() -> list[Year]:
    return plan_years(SETTINGS)


def rows(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.rglob(pattern)):
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def old_rows(release: Release) -> list[dict[str, Any]]:
    return list(rows(release.tree / "metadata" / release.name, f"{release.name}*.json"))


def new_rows(release: Release, table: str = "posts") -> list[dict[str, Any]]:
    return list(rows(release.tree / "metadata", f"{table}0*.json"))


def contents(tree: Path) -> dict[str, tuple[bytes, float]]:
    return {
        path.relative_to(tree).as_posix(): (path.read_bytes(), path.stat().st_mtime)
        for path in tree.rglob("*")
        if path.is_file()
    }


def original(tree: Path, row: dict[str, Any]) -> Path:
    number = int(row["id"])
    return tree / "original" / f"{number % 1000:04d}" / f"{number}.{row['file_ext']}"


def nearest_colour(pixel: tuple[int, ...]) -> str:
    def distance(name: str) -> int:
        pale = mix(COLOURS[name], WHITE, 0.3)
        return sum((a - b) ** 2 for a, b in zip(pixel, pale, strict=True))

    return min(COLOURS, key=distance)


class TestYears:
    def test_a_thousand_posts_change_as_a_real_dataset_does(self) -> None:
        first, second, third = plan_years(SampleSettings(posts=1000))
        assert len(first.posts) == len(first.fresh) == 1000
        for before, year in ((first, second), (second, third)):
            size = len(before.posts)
            assert 0.24 <= len(year.fresh) / size <= 0.26
            assert 0.005 <= len(year.changed) / size <= 0.01
            assert 0.004 <= len(year.removed) / size <= 0.006
            old = {post.id: post for post in before.posts}
            renamed = [p for p in year.posts if p.id in old and p.extension != old[p.id].extension]
            assert [post.extension for post in renamed] == ["png", "png"]
            assert {post.id for post in renamed} <= year.changed

    def test_ids_rise_with_gaps_and_never_come_back(self, years: list[Year]) -> None:
        seen: set[int] = set()
        for year in years:
            ids = [post.id for post in year.posts]
            assert ids == sorted(set(ids))
            assert not year.fresh & seen
            assert not year.removed & set(ids)
            seen |= set(ids)
        assert max(seen) > len(seen) + 1

    def test_a_longer_series_begins_like_a_shorter_one(self, years: list[Year]) -> None:
        longer = plan_years(SampleSettings(releases=5, posts=40, seed=5))
        assert longer[:3] == years
        assert plan_years(SampleSettings(releases=3, posts=40, seed=6)) != years

    @pytest.mark.parametrize("posts", [1, 2, 3, 5])
    def test_few_posts_never_run_out(self, posts: int) -> None:
        for year in plan_years(SampleSettings(releases=6, posts=posts)):
            assert year.posts

    @pytest.mark.parametrize(
        ("releases", "posts", "buckets"), [(0, 1, 1), (51, 1, 1), (1, 0, 1), (1, 1, 0)]
    )
    def test_impossible_settings_are_refused(
        self, releases: int, posts: int, buckets: int
    ) -> None:
        with pytest.raises(ConfigError, match="expected"):
            SampleSettings(releases=releases, posts=posts, buckets=buckets)


class TestDrawing:
    def test_the_seed_alone_decides(self) -> None:
        first, again, other = draw("a"), draw("a"), draw("b")
        assert first.frames[0].tobytes() == again.frames[0].tobytes()
        assert first.tags == again.tags
        assert first.frames[0].tobytes() != other.frames[0].tobytes()

    def test_pictures_look_as_their_tags_say(self) -> None:
        drawings = [draw(f"look/{number}") for number in range(120)]
        sky: dict[str, list[float]] = {"day": [], "night": []}
        for drawing in drawings:
            picture = drawing.frames[0]
            for name in {"day", "night"} & drawing.tags if "comic" not in drawing.tags else ():
                upper = picture.crop((0, 0, picture.width, picture.height // 4))
                sky[name].append(ImageStat.Stat(upper.convert("L")).mean[0])
            if "greyscale" in drawing.tags:
                assert not [tag for tag in drawing.tags if tag.split("_")[0] in COLOURS]
                assert max(ImageStat.Stat(picture.convert("HSV")).mean[1:2]) == 0
        assert len(sky["day"]) > 5
        assert len(sky["night"]) > 5
        assert max(sky["night"]) < min(sky["day"])

    def test_a_coloured_background_has_its_colour(self) -> None:
        checked = 0
        for number in range(150):
            drawing = draw(f"back/{number}")
            named = [c for c in COLOURS if f"{c}_background" in drawing.tags]
            if named and "gradient_background" in drawing.tags and "comic" not in drawing.tags:
                corner = drawing.frames[0].getpixel((2, drawing.frames[0].height // 2))
                assert isinstance(corner, tuple)
                assert nearest_colour(corner) == named[0]
                checked += 1
        assert checked > 5

    def test_a_border_is_seen_and_tagged(self) -> None:
        plain, edited = draw("a"), draw("a", border="red")
        assert edited.frames[0].size == plain.frames[0].size
        assert edited.frames[0].getpixel((1, 1)) == COLOURS["red"]
        assert edited.tags == plain.tags | {"border", "red_border"}

    def test_an_animation_blinks(self) -> None:
        for number in range(12):
            drawing = draw(f"blink/{number}", animated=True)
            first, second = drawing.frames
            assert first.size == second.size
            assert first.tobytes() != second.tobytes()
            assert "animated" in drawing.tags
            assert "closed_eyes" not in drawing.tags


class TestTrees:
    def test_the_same_settings_give_the_same_bytes(
        self, releases: list[Release], tmp_path: Path
    ) -> None:
        again = list(make_series(tmp_path / "again", SETTINGS))
        for one, other in zip(releases, again, strict=True):
            assert contents(one.tree) == contents(other.tree)
            assert (one.files, one.size_bytes) == (other.files, other.size_bytes)

    def test_drawing_in_processes_gives_the_same_bytes(self, tmp_path: Path) -> None:
        settings = SampleSettings(releases=1, posts=60)
        (release,) = make_series(tmp_path / "many", settings)
        for post in plan_years(settings)[0].posts[::20]:
            alone = tmp_path / "alone"
            write_post(Task(tree=alone, layout=settings.layout, seed=settings.seed, post=post))
        drawn = contents(release.tree)
        assert contents(alone).items() <= drawn.items()

    def test_a_release_holds_its_posts_and_nothing_else(
        self, releases: list[Release], years: list[Year]
    ) -> None:
        for release, year in zip(releases, years, strict=True):
            found = {path.name for path in (release.tree / "original").rglob("*.*")}
            assert found == {f"{post.id}.{post.extension}" for post in year.posts}
            assert release.posts == len(year.posts)
            assert {path.name for path in release.tree.iterdir()} == {
                "512px", "README.txt", "lists", "metadata", "original",
            }  # fmt: skip
            sizes = [len(data) for data, _ in contents(release.tree).values()]
            assert (release.files, release.size_bytes) == (len(sizes), sum(sizes))

    def test_unchanged_files_are_independent_copies_and_others_differ(
        self, releases: list[Release], years: list[Year]
    ) -> None:
        for before, release, year in zip(releases, releases[1:], years[1:], strict=False):
            old, new = contents(before.tree / "original"), contents(release.tree / "original")
            same = {path for path in old.keys() & new.keys() if old[path] == new[path]}
            unchanged = {p.id for p in year.posts} - year.fresh - year.changed
            assert {int(Path(path).stem) for path in same} == unchanged
            assert release.changed == len(year.changed) > 0
            for path in same:
                inodes = [(r.tree / "original" / path).stat().st_ino for r in (before, release)]
                assert inodes[0] != inodes[1]

    def test_assets_change_every_year(self, releases: list[Release]) -> None:
        for name in ("README.txt", "lists/pools.txt"):
            assert len({(release.tree / name).read_bytes() for release in releases}) == 3

    def test_previews_are_of_still_pictures_and_square(self, releases: list[Release]) -> None:
        newest = releases[-1]
        with_preview = set()
        for path in (newest.tree / "512px").rglob("*.jpg"):
            with Image.open(path) as picture:
                assert (picture.format, picture.size) == ("JPEG", (512, 512))
            with_preview.add(path.stem)
        for row in new_rows(newest):
            still = not {"comic", "animated"} & set(row["tag_string"].split())
            assert (row["id"] in with_preview) == still

    def test_buckets_are_wide_enough_for_their_number(self, tmp_path: Path) -> None:
        settings = SampleSettings(releases=1, posts=3, buckets=20_000)
        (release,) = make_series(tmp_path / "wide", settings)
        folders = {path.name for path in (release.tree / "original").iterdir()}
        assert all(len(name) == 5 for name in folders)


class TestMetadata:
    def test_both_generations_tell_the_truth_about_the_files(
        self, releases: list[Release]
    ) -> None:
        for release, found in ((releases[0], old_rows(releases[0])),
                               (releases[1], old_rows(releases[1])),
                               (releases[2], new_rows(releases[2]))):  # fmt: skip
            assert len(found) == release.posts
            for row in found:
                path = original(release.tree, row)
                data = path.read_bytes()
                assert row["md5"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
                assert row["file_size"] == str(len(data))
                with Image.open(path) as picture:
                    assert picture.format == FORMATS[path.suffix]
                    size = (row["image_width"], row["image_height"])
                    assert size == (str(picture.width), str(picture.height))

    def test_only_the_newest_year_is_of_the_new_generation(self, releases: list[Release]) -> None:
        assert [bool(new_rows(release)) for release in releases] == [False, False, True]
        assert [bool(old_rows(release)) for release in releases] == [True, True, False]

    def test_of_four_years_the_newest_two_are(self) -> None:
        four = SampleSettings(releases=4)
        assert [four.has_old_metadata(year) for year in range(2019, 2023)] == [
            True, True, False, False,
        ]  # fmt: skip
        assert not SampleSettings(releases=1).has_old_metadata(2019)

    def test_old_rows_are_typed_as_in_real_dumps(self, releases: list[Release]) -> None:
        found = old_rows(releases[0])
        for row in found:
            kinds = {name: type(value) for name, value in row.items()}
            assert {name for name, kind in kinds.items() if kind is list} == {
                "tags", "pools", "favs",
            }  # fmt: skip
            assert set(kinds.values()) == {str, bool, list}
            half = len(row["pools"]) // 2
            assert all(number.isdigit() for number in row["pools"][:half])
            assert set(row["pools"][half:]) <= {"series", "collection"}
            assert row["last_noted_at"] == "1970-01-01 00:00:00 UTC"
            assert {"id", "name", "category"} == set(row["tags"][0])
        assert any(row["pools"] for row in found)
        assert {"0"} < {row["pixiv_id"] for row in found}

    def test_new_rows_are_typed_as_bigquery_does(self, releases: list[Release]) -> None:
        found = new_rows(releases[2])
        for row in found:
            assert {type(value) for value in row.values()} == {str, bool}
            tags = row["tag_string"].split()
            assert row["tag_count"] == str(len(tags))
            kinds = ("general", "artist", "copyright", "character", "meta")
            by_kind = {kind: row[f"tag_string_{kind}"].split() for kind in kinds}
            assert sorted(chain.from_iterable(by_kind.values())) == sorted(tags)
            for kind, names in by_kind.items():
                assert row[f"tag_count_{kind}"] == str(len(names))
        assert any("pixiv_id" not in row for row in found)
        assert {row["rating"] for row in found} == {"s", "q"}

    def test_tables_agree_with_the_posts(self, releases: list[Release]) -> None:
        newest = releases[2]
        tags = {int(row["id"]): set(row["tag_string"].split()) for row in new_rows(newest)}
        counts = {row["name"]: int(row["post_count"]) for row in new_rows(newest, "tags")}
        for name, count in counts.items():
            assert count == sum(name in held for held in tags.values())
        for row in new_rows(newest, "tag_implications"):
            narrow, wide = row["antecedent_name"], row["consequent_name"]
            assert all(wide in held for held in tags.values() if narrow in held)
        for row in new_rows(newest, "tag_aliases"):
            assert counts[row["antecedent_name"]] == 0
        for row in new_rows(newest, "pools"):
            assert len(row["post_ids"]) == int(row["post_count"])
            assert {int(post_id) for post_id in row["post_ids"]} <= tags.keys()

    def test_a_tag_keeps_its_id_over_the_years(self, releases: list[Release]) -> None:
        first, second = (
            {tag["name"]: tag["id"] for row in old_rows(release) for tag in row["tags"]}
            for release in releases[:2]
        )
        last = {row["name"]: row["id"] for row in new_rows(releases[2], "tags")}
        assert all(last.get(name, number) == number for name, number in (first | second).items())
        assert len(set(last.values())) == len(last)


class TestBlemishes:
    def test_each_fault_is_what_it_is_called(self, tmp_path: Path) -> None:
        settings = SampleSettings(releases=1, posts=40, blemishes=True)
        (release,) = make_series(tmp_path / "spoiled", settings)
        listed = {(fault.kind, release.tree / fault.path) for fault in release.blemishes}
        by_kind: dict[str, list[Path]] = {}
        for kind, path in sorted(listed):
            by_kind.setdefault(kind, []).append(path)
        posts = {row["id"] for row in new_rows(release)}
        assert not any(path.exists() for path in by_kind["post without a file"])
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in by_kind["PNG named .jpg"])
        assert [path.stat().st_size for path in by_kind["empty file"]] == [0]
        assert by_kind["file without a post"][0].stem not in posts
        assert (
            by_kind["wrong bucket"][0].parent.name != f"{int(by_kind['wrong bucket'][0].stem):04d}"
        )
        assert by_kind["names that differ in case"][0].with_suffix(".jpg").exists()
        for path in by_kind["truncated JPEG"]:
            with pytest.raises(OSError, match="truncated"), Image.open(path) as picture:
                picture.load()
        sizes = {row["id"]: row["image_width"] for row in new_rows(release)}
        for path in by_kind["other dimensions"]:
            with Image.open(path) as picture:
                assert str(picture.width) != sizes[path.stem]

    def test_without_the_flag_there_are_none(self, releases: list[Release]) -> None:
        assert not any(release.blemishes for release in releases)


class TestVerb:
    def test_json_ends_with_the_summary(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["sample", str(tmp_path / "s"), "--releases", "2", "--posts", "4", "--json"]
        assert main(command) == 0
        *events, summary = map(json.loads, capsys.readouterr().out.splitlines())
        assert [event["event"] for event in events] == ["release", "release"]
        assert summary["event"] == "summary"
        assert (summary["releases"], summary["posts"]) == (2, events[-1]["posts"])
        assert summary["files"] == sum(event["files"] for event in events)
        assert summary["bytes"] == sum(event["bytes"] for event in events)
        assert summary["seconds"] > 0

    def test_a_used_folder_is_refused_and_kept(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
        assert main(["sample", str(tmp_path), "--posts", "4"]) == 2
        assert "not an empty folder" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
