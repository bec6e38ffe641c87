"""One decoder for rows of both generations of metadata, and of the site's API."""

from __future__ import annotations

import orjson
import pytest

from manifests.errors import ManifestError
from manifests.rows import PostRow, RowError, RowFault, parse_row

# A row of 2017: numbers are strings, null is "0" or 1970, a tag stands there twice.
OLD = {
    "id": "261945",
    "created_at": "2008-06-08 03:37:17.89786 UTC",
    "score": "0",
    "source": "",
    "md5": "f39cb2d71a80cf27cd9b7c932c4784e9",
    "last_commented_at": "1970-01-01 00:00:00 UTC",
    "rating": "s",
    "image_width": "848",
    "image_height": "480",
    "is_note_locked": False,
    "file_ext": "png",
    "parent_id": "0",
    "has_children": False,
    "file_size": "526267",
    "is_deleted": True,
    "is_banned": False,
    "pixiv_id": "0",
    "tags": [{"id": "1", "name": "solo", "category": "0"}] * 2,
    "pools": ["10152", "series"],
    "favs": ["12"],
}
# A row of a table export of 2021: what is null is left out.
EXPORT = {
    "rating": "q",
    "id": "4000001",
    "file_size": "1024",
    "image_height": "20",
    "image_width": "10",
    "file_ext": "jpg",
    "md5": "0123456789abcdef0123456789abcdef",
    "is_banned": False,
    "is_deleted": False,
    "tag_string": "1girl solo",
}
# The same post as the API writes it: numbers are numbers, nulls are there.
API = EXPORT | {
    "id": 4000001,
    "file_size": 1024,
    "image_height": 20,
    "image_width": 10,
    "parent_id": None,
    "pixiv_id": None,
    "created_at": "2025-09-15T19:27:31.639-04:00",
    "media_asset": {"id": 1, "md5": "else", "variants": []},
}


def parse(row: object) -> PostRow:
    return parse_row(orjson.dumps(row))


def refused(row: object) -> RowError:
    with pytest.raises(RowError) as caught:
        parse(row)
    return caught.value


def test_a_row_of_the_old_format() -> None:
    assert parse(OLD) == PostRow(
        id=261945,
        md5="f39cb2d71a80cf27cd9b7c932c4784e9",
        file_ext="png",
        file_size=526267,
        image_width=848,
        image_height=480,
        rating="s",
        is_deleted=True,
        is_banned=False,
    )


def test_an_export_and_the_api_say_the_same() -> None:
    assert parse(EXPORT) == parse(API)
    assert parse(API).file_size == 1024


@pytest.mark.parametrize("missing", sorted(set(EXPORT) - {"id", "tag_string"}))
def test_a_missing_key_is_a_null(missing: str) -> None:
    left_out = {key: value for key, value in EXPORT.items() if key != missing}
    assert parse(left_out) == parse(EXPORT | {missing: None})
    assert not getattr(parse(left_out), missing)


@pytest.mark.parametrize("row", [{"file_ext": "jpg", "is_banned": True}, OLD | {"id": None}])
def test_a_hidden_post_has_an_outcome_of_its_own(row: object) -> None:
    assert refused(row).fault is RowFault.NO_ID


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[1]", b'"id"', b"null", b"7", b"\xff\xfe", b'{"id":1}x', b"[" * 5000]
)
def test_what_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(RowError) as caught:
        parse_row(line)
    assert caught.value.fault is RowFault.JSON


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "0"),
        ("id", -1),
        ("id", True),
        ("id", 1.5),
        ("id", "1.5"),
        ("id", " 7"),
        ("id", "٣"),
        ("id", 2**32),
        ("id", "9" * 5000),
        ("id", [1]),
        ("file_size", -5),
        ("file_size", "12 kB"),
        ("file_size", 2**63),
        ("image_width", 2**32),
        ("image_height", {}),
        ("file_ext", "tar.gz"),
        ("file_ext", "../x"),
        ("file_ext", 5),
        ("md5", "F" * 32),
        ("md5", "abc"),
        ("rating", "a" * 17),
        ("is_deleted", 1),
        ("is_deleted", "yes"),
        ("is_banned", []),
    ],
)
def test_a_bad_field_is_named(field: str, value: object) -> None:
    error = refused(OLD | {field: value})
    assert (error.fault, error.where) == (RowFault.FIELD, field)
    assert isinstance(error, ManifestError)
    assert len(str(error)) < 200


def test_booleans_as_words() -> None:
    row = parse(OLD | {"is_deleted": "false", "is_banned": "true"})
    assert (row.is_deleted, row.is_banned) == (False, True)
