"""Whatever a line of metadata holds, it is a row or an error that says why."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from manifests.paths import MAX_ID
from manifests.rows import PostRow, RowError, parse_row

FIELDS = st.sampled_from(
    ["id", "md5", "file_ext", "file_size", "image_width", "rating", "is_deleted", "tags", "x"]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.integers(0, 2**40).map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def outcome(line: bytes) -> PostRow | None:
    try:
        return parse_row(line)
    except RowError:
        return None


@given(st.binary(max_size=300))
def test_any_bytes_give_a_row_or_an_error(line: bytes) -> None:
    outcome(line)


@given(st.dictionaries(FIELDS, VALUES))
def test_any_object_gives_a_row_or_an_error(row: dict[str, object]) -> None:
    post = outcome(orjson.dumps(row))
    if post is not None:
        assert 1 <= post.id <= MAX_ID
        assert 0 <= post.image_width < 2**32
        assert 0 <= post.file_size < 2**63


@given(
    post_id=st.integers(1, MAX_ID),
    size=st.integers(0, 2**63 - 1),
    width=st.integers(0, 2**32 - 1),
    deleted=st.booleans(),
)
def test_numbers_as_strings_and_as_numbers_are_the_same(
    post_id: int, size: int, width: int, *, deleted: bool
) -> None:
    numbers = {"id": post_id, "file_size": size, "image_width": width}
    new = orjson.dumps({**numbers, "is_deleted": deleted})
    old = orjson.dumps({**{k: str(v) for k, v in numbers.items()}, "is_deleted": deleted})
    assert parse_row(new) == parse_row(old)
    assert parse_row(new).file_size == size
