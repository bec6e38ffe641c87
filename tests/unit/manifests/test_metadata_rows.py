"""Rows of both generations of metadata, and of the site's API, become the same columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest

from manifests.metadata import lines
from manifests.metadata.columns import COLUMNS, RATINGS, UNKNOWN_CATEGORY, Flag, PostBatch
from manifests.metadata.faults import BadRow, RowFault
from manifests.metadata.rows import parse_block

# A row of 2017: numbers are strings, null is "0" or 1970, a tag stands there twice, pools are
# ids and then categories.
OLD: dict[str, Any] = {
    "id": "261945",
    "created_at": "2008-06-08 03:37:17.89786 UTC",
    "uploader_id": "65792",
    "score": "-3",
    "source": "",
    "md5": "f39cb2d71a80cf27cd9b7c932c4784e9",
    "last_commented_at": "1970-01-01 00:00:00 UTC",
    "rating": "s",
    "image_width": "848",
    "image_height": "480",
    "is_note_locked": False,
    "file_ext": "png",
    "last_noted_at": "1970-01-01 00:00:00 UTC",
    "parent_id": "0",
    "has_children": False,
    "approver_id": "0",
    "file_size": "526267",
    "up_score": "1",
    "down_score": "-4",
    "is_pending": False,
    "is_deleted": True,
    "updated_at": "2014-12-24 02:56:54 UTC",
    "is_banned": False,
    "pixiv_id": "0",
    "tags": [
        {"id": "1", "name": "solo", "category": "0"},
        {"id": "2", "name": "macross", "category": "3"},
        {"id": "1", "name": "solo", "category": "0"},
        {"id": "3", "name": "screencap", "category": "5"},
    ],
    "pools": ["10152", "4162", "series", "collection"],
    "favs": ["12", "15"],
}
# A row of a table export of 2021: what is null is left out.
EXPORT: dict[str, Any] = {
    "rating": "q",
    "id": "4000001",
    "created_at": "2020-07-07 23:27:31.639 UTC",
    "score": "5",
    "up_score": "6",
    "down_score": "-1",
    "fav_count": "2",
    "file_size": "1024",
    "image_height": "20",
    "image_width": "10",
    "file_ext": "jpg",
    "md5": "0123456789abcdef0123456789abcdef",
    "is_banned": False,
    "is_deleted": False,
    "bit_flags": "1",
    "source": "https://example.org/é",
    "uploader_id": "7",
    "tag_string": "1girl solo someone",
    "tag_string_general": "1girl solo",
    "tag_string_artist": "someone",
    "tag_count_general": "2",
    "tag_count_artist": "1",
}
# The same post as the API writes it: numbers are numbers, nulls are there.
API: dict[str, Any] = EXPORT | {
    "id": 4000001,
    "created_at": "2020-07-07T19:27:31.639-04:00",
    "score": 5,
    "up_score": 6,
    "down_score": -1,
    "fav_count": 2,
    "file_size": 1024,
    "image_height": 20,
    "image_width": 10,
    "bit_flags": 1,
    "uploader_id": 7,
    "parent_id": None,
    "pixiv_id": None,
    "approver_id": None,
    "last_noted_at": None,
    "tag_count_general": 2,
    "tag_count_artist": 1,
    "tag_count_meta": 0,
    "tag_string_meta": "",
    "media_asset": {"id": 1, "md5": "else", "file_size": 5, "duration": None, "variants": []},
}


def parse(*rows: object) -> tuple[PostBatch, list[BadRow]]:
    return parse_block(b"".join(orjson.dumps(row) + b"\n" for row in rows), "posts.json", 11)


def good(*rows: object) -> PostBatch:
    batch, faults = parse(*rows)
    assert faults == []
    return batch


def told(batch: PostBatch, row: int = 0) -> dict[str, Any]:
    """The numbers of one post."""
    return {name: batch.columns[name][row].tolist() for name in COLUMNS if name != "md5"}


def tags(batch: PostBatch, row: int = 0) -> list[str]:
    ends = np.cumsum(batch.tag_counts)
    mine = batch.tag_codes[ends[row] - batch.tag_counts[row] : ends[row]]
    return [batch.tag_names[code] for code in mine]


def categories(batch: PostBatch) -> dict[str, int]:
    return dict(zip(batch.tag_names, batch.tag_categories.tolist(), strict=True))


def expected(**values: Any) -> dict[str, Any]:  # noqa: ANN401 (numbers, by column)
    return {name: 0 for name in COLUMNS if name != "md5"} | values


# --------------------------------------------------------------------------- the generations


def test_a_row_of_the_old_format() -> None:
    batch = good(OLD)
    assert batch.ids.tolist() == [261945]
    assert told(batch) == expected(
        rating=RATINGS.index("s"),
        flags=int(Flag.DELETED),
        score=-3,
        up_score=1,
        down_score=-4,
        fav_count=2,
        created_at=1212896237,
        updated_at=1419389814,
        image_width=848,
        image_height=480,
        file_size=526267,
        uploader_id=65792,
        tags_general=1,
        tags_copyright=1,
        tags_meta=1,
    )
    assert batch.extensions == ("png",)
    assert batch.columns["md5"][0].tobytes().hex() == OLD["md5"]
    assert tags(batch) == ["solo", "macross", "screencap"]
    assert categories(batch) == {"solo": 0, "macross": 3, "screencap": 5}
    assert batch.pool_posts.tolist() == [0, 0]
    assert batch.pool_ids.tolist() == [10152, 4162]
    assert batch.pool_series.tolist() == [True, False]


def test_an_export_and_the_api_say_the_same() -> None:
    batch = good(EXPORT, API)
    assert told(batch, 0) == told(batch, 1)
    assert batch.columns["created_at"].tolist() == [1594164451] * 2
    assert batch.columns["flags"].tolist() == [Flag.EMBEDDED] * 2
    assert batch.columns["fav_count"].tolist() == [2, 2]
    assert batch.sources.text(1) == "https://example.org/é"
    assert tags(batch, 0) == tags(batch, 1) == ["1girl", "solo", "someone"]
    assert categories(batch) == {"1girl": 0, "solo": 0, "someone": 1}
    assert batch.columns["md5"][0].tolist() == batch.columns["md5"][1].tolist()


def test_generations_may_be_mixed_in_one_block() -> None:
    batch = good(OLD, API, EXPORT)
    assert told(batch, 0) == told(good(OLD)) | {"file_ext": 0}
    assert told(batch, 2) == told(good(EXPORT)) | {"file_ext": 1}
    assert batch.extensions == ("png", "jpg")
    assert [tags(batch, row) for row in range(3)] == [
        tags(good(row)) for row in (OLD, API, EXPORT)
    ]


@pytest.mark.parametrize("missing", sorted(set(EXPORT) - {"id"}))
def test_a_missing_key_is_a_null(missing: str) -> None:
    left_out = {key: value for key, value in EXPORT.items() if key != missing}
    batch = good(left_out, EXPORT | {missing: None})
    assert told(batch, 0) == told(batch, 1)
    assert tags(batch, 0) == tags(batch, 1)
    if missing in COLUMNS and missing not in {"md5", "file_ext"}:
        assert batch.columns[missing].tolist() == [0, 0]


def test_null_extension_is_the_empty_one() -> None:
    batch = good({"id": 1}, {"id": 2, "file_ext": "gif"})
    assert [batch.extensions[code] for code in batch.columns["file_ext"]] == ["", "gif"]


def test_file_facts_may_stand_in_the_media_asset_alone() -> None:
    facts = {"md5": EXPORT["md5"], "file_ext": "mp4", "file_size": 9, "duration": 12.3456}
    batch = good({"id": 1, "media_asset": facts | {"image_width": 3, "image_height": 4}})
    assert told(batch) == expected(file_size=9, image_width=3, image_height=4, duration_ms=12346)
    assert batch.extensions == ("mp4",)
    assert batch.columns["md5"][0].tobytes().hex() == EXPORT["md5"]


# --------------------------------------------------------------------------- tags


@pytest.mark.parametrize(
    "row",
    [
        {"tag_string": "a b c", "tag_string_artist": "c"},
        {"tag_string_general": "a b", "tag_string_artist": "c", "tag_string_meta": ""},
        {"tag_string": " a  b c a ", "tag_string_artist": "c", "tag_string_meta": None},
        {"tags": ["a", "b", "c", "a"], "tag_categories": {"c": 1, "a": "0"}},
        {"tags": ["a", "b", {"name": "c", "category": 1}]},
        {
            "tags": [
                {"name": name, "category": code} for name, code in (("a", 0), ("b", 0), ("c", 1))
            ]
        },
    ],
)
def test_every_way_to_give_tags(row: Mapping[str, object]) -> None:
    batch = good({"id": 1, **row})
    assert tags(batch) == ["a", "b", "c"]
    assert categories(batch)["c"] == 1
    assert told(batch) == expected(tags_general=2, tags_artist=1)


def test_a_tag_without_a_category_counts_as_general() -> None:
    batch = good({"id": 1, "tag_string": "a b"})
    assert categories(batch) == {"a": UNKNOWN_CATEGORY, "b": UNKNOWN_CATEGORY}
    assert told(batch)["tags_general"] == 2


def test_stated_counts_are_believed_and_others_derived() -> None:
    stated = {"tag_string": "a b", "tag_count_general": "5", "tag_count_meta": None}
    batch = good({"id": 1, **stated, "tag_string_meta": "b"}, {"id": 2, "tag_string": "b"})
    assert batch.columns["tags_general"].tolist() == [5, 0]
    assert batch.columns["tags_meta"].tolist() == [1, 1]
    none = good({"id": 1, "tag_string": "a", "tag_count_general": "0"}, {"id": 2})
    assert none.columns["tags_general"].tolist() == [0, 0]


def test_names_of_a_plain_list_are_spelt_as_queries_spell_them() -> None:
    row = {"id": 1, "tags": ["Sky  Blue", "x"], "tag_categories": {"Sky Blue": 4}}
    batch = good(row)
    assert tags(batch) == ["sky_blue", "x"]
    assert categories(batch)["sky_blue"] == 4


@pytest.mark.parametrize("name", [r"\||/", r"\(^o^)/", "<o>_<o>", ":)", "ü"])
def test_odd_names_are_names(name: str) -> None:
    objects = [{"name": name, "category": "0"}]
    batch = good({"id": 1, "tag_string": name}, {"id": 2, "tags": objects})
    assert tags(batch, 0) == tags(batch, 1) == [name]


def test_tags_that_cannot_be_read_leave_the_others() -> None:
    bad: list[object] = [5, None, "", {"name": 1}, "a", {"name": "b", "category": "9"}, []]
    batch, faults = parse({"id": 1, "tags": bad}, {"id": 2, "tag_string": 7, "tags": ["c"]})
    assert [tags(batch, 0), tags(batch, 1)] == [["a", "b"], ["c"]]
    assert [(fault.line, fault.problem.split(":")[0]) for fault in faults] == [
        *[(11, "tags")] * 6,
        (12, "tag_string"),
    ]


# --------------------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2008-06-08 03:37:17.89786 UTC", 1212896237),
        ("2008-06-08 03:37:17 UTC", 1212896237),
        ("2008-06-08 03:37:17.1 UTC", 1212896237),
        ("2008-06-08 03:37:17", 1212896237),
        ("2008-06-08T03:37:17Z", 1212896237),
        ("2008-06-08T03:37:17.123456Z", 1212896237),
        ("2008-06-08 03:37:17+00", 1212896237),
        ("2008-06-07T23:37:17.639-04:00", 1212896237),
        ("2008-06-08T09:07:17+0530", 1212896237),
        ("2008-06-09T03:36:17+23:59", 1212896237),
        ("2008-06-08", 1212883200),
        ("2008-02-29", 1204243200),
        ("1969-12-31 23:59:59 UTC", -1),
        ("1970-01-01 00:00:00 UTC", 0),
    ],
)
def test_dates(text: str, seconds: int) -> None:
    assert good({"id": 1, "created_at": text}).columns["created_at"].tolist() == [seconds]
    mixed, faults = parse({"id": 1, "created_at": text}, {"id": 2, "created_at": "soon"})
    assert mixed.columns["created_at"].tolist() == [seconds, 0]
    assert [fault.line for fault in faults] == [12]


def test_a_date_of_two_lines_is_not_taken_for_two_dates() -> None:
    batch, faults = parse(
        {"id": 1, "created_at": "2021-01-01\n2021-01-02"}, {"id": 2, "created_at": "soon"}
    )
    assert batch.columns["created_at"].tolist() == [0, 0]
    assert [fault.line for fault in faults] == [11, 12]


# --------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("row", [{"file_ext": "jpg", "is_banned": True}, OLD | {"id": None}])
def test_a_hidden_post_has_an_outcome_of_its_own(row: object) -> None:
    batch, faults = parse(EXPORT, row, API)
    assert batch.ids.tolist() == [4000001] * 2
    assert [(fault.file, fault.line, fault.fault) for fault in faults] == [
        ("posts.json", 12, RowFault.NO_ID)
    ]


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'"id"', b"null", b"7", b"\xff\xfe", b'{"id":1}x', b"[" * 5000]
)
def test_what_is_no_object_is_skipped(line: bytes) -> None:
    batch, faults = parse_block(b'{"id":1}\n' + line + b'\n{"id":3}', "x", 1)
    assert batch.ids.tolist() == [1, 3]
    assert [(fault.line, fault.fault) for fault in faults] == [(2, RowFault.JSON)]
    assert len(faults[0].problem) < 200


@pytest.mark.parametrize(
    "value", ["0", 0, -1, True, 1.5, "1.5", " 7", "٣", 2**32, "9" * 5000, [1], "", "1_0", "5-"]
)
def test_a_row_without_a_usable_id_is_skipped(value: object) -> None:
    batch, faults = parse(EXPORT, EXPORT | {"id": value})
    assert len(batch) == 1
    assert [(fault.line, fault.fault) for fault in faults] == [(12, RowFault.FIELD)]
    assert faults[0].problem.startswith("id: expected a number from 1 to 4294967295, got ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("score", "many"),
        ("score", 2**31),
        ("fav_count", -1),
        ("file_size", -5),
        ("file_size", "12 kB"),
        ("file_size", 2**63),
        ("image_width", 2**32),
        ("image_width", 1.5),
        ("image_height", {}),
        ("image_height", True),
        ("parent_id", "1_0"),
        ("pixiv_id", "9" * 5000),
        ("file_ext", "tar.gz"),
        ("file_ext", "../x"),
        ("file_ext", 5),
        ("md5", "g" * 32),
        ("md5", "0" * 33),
        ("md5", 7),
        ("rating", "x"),
        ("rating", []),
        ("is_deleted", 1),
        ("is_deleted", "yes"),
        ("is_banned", []),
        ("bit_flags", "-"),
        ("source", 5),
        ("created_at", "2021-02-30 00:00:00 UTC"),
        ("created_at", "2021-02-03 25:00:00 UTC"),
        ("created_at", "2021-02-03T00:00:00+99:00"),
        ("created_at", "2021-02-03\n2021-02-03"),
        ("created_at", 5),
        ("duration", "long"),
        ("duration", -1),
        ("duration", True),
        ("created_at", "2021-02-03T00:00:00+00:60"),
        ("tags", "7"),
        ("pools", ["1", "2", "series"]),
        ("pools", ["1", "gallery"]),
        ("pools", [["1"], "series"]),
        ("pools", "1"),
        ("favs", "12"),
        ("tag_count_meta", "x"),
        ("tag_string", 5),
        ("tag_string_meta", {}),
    ],
)
def test_a_bad_field_is_null_and_named(field: str, value: object) -> None:
    row = {key: told for key, told in EXPORT.items() if key != "fav_count"} | {"fav_count": 0}
    row.pop("tag_string") if field == "tags" else None
    row.pop("fav_count") if field == "favs" else None
    value = 7 if field == "tags" else value
    batch, faults = parse(row, row | {field: value}, row)
    without = good({key: told for key, told in row.items() if key != field})
    assert batch.ids.tolist() == [4000001] * 3
    null = told(batch, 1) | {"file_ext": batch.extensions[batch.columns["file_ext"][1]]}
    assert null == told(without) | {"file_ext": without.extensions[0]}
    assert [(fault.line, fault.fault) for fault in faults] == [(12, RowFault.FIELD)]
    assert faults[0].problem.startswith(f"{field}: ")
    assert len(faults[0].problem) < 200


def test_limits_are_within_where_rows_are_read_one_by_one() -> None:
    batch, faults = parse(
        {"id": 1, "score": "2147483647", "duration": 0},
        {"id": 2, "score": 1 - 2**31, "duration": 4294967.295},
        {"id": 3, "score": "many", "duration": 4294967.296},
    )
    assert batch.columns["score"].tolist() == [2**31 - 1, 1 - 2**31, 0]
    assert batch.columns["duration_ms"].tolist() == [0, 2**32 - 1, 0]
    assert {fault.line for fault in faults} == {13}


@pytest.mark.parametrize(("text", "kept"), [("abc", "abc"), ("d3b07384", "d3b07384")])
def test_a_short_md5_is_kept_and_named(text: str, kept: str) -> None:
    batch, faults = parse(EXPORT, EXPORT | {"md5": text})
    assert batch.columns["md5"][1].tobytes().hex() == kept.ljust(32, "0")
    assert [fault.line for fault in faults] == [12]


def test_digests_of_odd_lengths_do_not_run_into_each_other() -> None:
    batch, faults = parse({"id": 1, "md5": "ab" * 15}, {"id": 2, "md5": "cd" * 17})
    kept = [digest.tobytes().hex() for digest in batch.columns["md5"]]
    assert kept == ["ab" * 15 + "00", "00" * 16]
    assert [fault.line for fault in faults] == [11, 12]


def test_booleans_and_ratings_as_words() -> None:
    batch = good(OLD | {"is_deleted": "false", "is_banned": "true", "rating": "explicit"})
    assert batch.columns["flags"].tolist() == [Flag.BANNED]
    assert batch.columns["rating"].tolist() == [RATINGS.index("e")]


def test_more_extensions_than_codes() -> None:
    batch, faults = parse(*({"id": n + 1, "file_ext": f"x{n}"} for n in range(300)))
    named = [batch.extensions[code] for code in batch.columns["file_ext"]]
    assert named == [f"x{n}" for n in range(255)] + [""] * 45
    assert len(faults) == 45


def test_a_line_that_is_too_long_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 20)
    batch, faults = parse({"id": 1}, {"id": 2, "source": "x" * 20}, {"id": 3})
    assert batch.ids.tolist() == [1, 3]
    assert [(fault.line, fault.fault) for fault in faults] == [(12, RowFault.TOO_LONG)]


def test_where_each_line_is() -> None:
    parts = [b'{"id":1}\r', b"", b"  ", b"?", b'{"id":2,"x":0}', b"{}", b'{"id":3}']
    block = b"\n".join(parts)
    batch, _ = parse_block(block, "x", 1)
    places = zip(batch.line_starts.tolist(), batch.line_lengths.tolist(), strict=True)
    assert [block[start : start + size] for start, size in places] == [
        parts[0],
        parts[4],
        parts[6],
    ]


def test_no_lines_are_no_posts() -> None:
    batch, faults = parse_block(b"", "x", 1)
    assert (len(batch), faults, batch.tag_names) == (0, [], ())
    assert {
        name: (column.dtype.str[1:], column.ndim) for name, column in batch.columns.items()
    } == {name: (spec.dtype, 1 + (spec.width > 1)) for name, spec in COLUMNS.items()}


def test_an_answer_of_the_api_as_it_is_names_the_remedy() -> None:
    batch, (fault,) = parse([{"id": 1}])
    assert len(batch) == 0
    assert "jq -c '.[]'" in fault.problem
