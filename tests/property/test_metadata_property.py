"""Whatever the bytes of metadata are, they are rows or faults; numbers are numbers in any form."""

from __future__ import annotations

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from manifests.metadata.columns import CATEGORIES, COLUMNS, PostBatch
from manifests.metadata.rows import parse_block
from manifests.metadata.tables import parse_pools, parse_relations, parse_tags
from manifests.paths import MAX_ID

FIELDS = st.sampled_from(
    [
        *COLUMNS,
        *(f"tag_{what}_{name}" for what in ("string", "count") for name in CATEGORIES.values()),
        *("is_deleted", "bit_flags", "media_asset", "duration", "favs", "pools", "source"),
        *("tags", "tag_string", "tag_categories", "name", "category", "post_ids", "status"),
        *("antecedent_name", "consequent_name", "post_count"),
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.integers(0, 2**40).map(str)
    | st.datetimes().map(str)
    | st.sampled_from(["series", "active", "a b", "0", "-", "1_0", "2021-02-30", "nan"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS | st.text(), inner),
    max_leaves=5,
)
ROWS = st.dictionaries(FIELDS, VALUES, max_size=8)
IDS = st.integers(1, MAX_ID) | st.integers(1, MAX_ID).map(str)


def check(batch: PostBatch) -> None:
    """Columns are as long and as typed as PostBatch says, and indices are within bounds."""
    posts = len(batch)
    for name, spec in COLUMNS.items():
        assert len(batch.columns[name]) == posts
        assert batch.columns[name].dtype == np.dtype(spec.dtype)
    assert len(batch.sources) == len(batch.tag_counts) == len(batch.line_starts) == posts
    assert batch.tag_counts.sum() == len(batch.tag_codes)
    assert not len(batch.tag_codes) or batch.tag_codes.max() < len(batch.tag_names)
    assert len(batch.tag_categories) == len(batch.tag_names) == len(set(batch.tag_names))
    assert not posts or batch.columns["file_ext"].max() < len(batch.extensions)
    assert len(batch.pool_posts) == len(batch.pool_ids) == len(batch.pool_series)
    assert not len(batch.pool_posts) or batch.pool_posts.max() < posts
    owners = np.repeat(np.arange(posts), batch.tag_counts)
    pairs = list(zip(owners.tolist(), batch.tag_codes.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


@given(st.binary(max_size=300))
def test_any_bytes_give_rows_or_faults(block: bytes) -> None:
    batch, faults = parse_block(block, "x", 1)
    check(batch)
    assert len(batch) + len(faults) >= sum(
        not line.isspace() for line in block.split(b"\n") if line
    )
    for parse in (parse_tags, parse_relations, parse_pools):
        parse(block, "x", 1)


@given(st.lists(st.tuples(IDS, ROWS), max_size=4))
def test_any_objects_with_an_id_are_posts(rows: list[tuple[int | str, dict[str, object]]]) -> None:
    block = b"\n".join(orjson.dumps({"id": post, **row}) for post, row in rows)
    batch, _ = parse_block(block, "x", 1)
    assert batch.ids.tolist() == [int(post) for post, _ in rows]
    check(batch)
    parse_pools(block, "x", 1)


@given(st.lists(ROWS, max_size=4))
def test_any_objects_are_rows_of_tables(rows: list[dict[str, object]]) -> None:
    block = b"\n".join(map(orjson.dumps, rows))
    for parse in (parse_tags, parse_relations, parse_pools):
        parse(block, "x", 1)


@given(st.lists(st.tuples(IDS, ROWS), max_size=4))
def test_posts_are_the_same_alone_and_together(
    rows: list[tuple[int | str, dict[str, object]]],
) -> None:
    """The way for a whole column and the way for one value agree."""
    lines = [orjson.dumps({"id": post, **row}) for post, row in rows]
    together, faults = parse_block(b"\n".join(lines), "x", 1)
    alone = [parse_block(line, "x", 1 + place) for place, line in enumerate(lines)]
    assert [fault for _, own in alone for fault in own] == faults
    for name in set(COLUMNS) - {"file_ext"} - {f"tags_{name}" for name in CATEGORIES.values()}:
        parts = [batch.columns[name][0].tolist() for batch, _ in alone]
        assert together.columns[name].tolist() == parts


@given(
    post_id=st.integers(1, MAX_ID),
    size=st.integers(0, 2**63 - 1),
    width=st.integers(0, 2**32 - 1),
    score=st.integers(-(2**31) + 1, 2**31 - 1),
)
def test_numbers_as_strings_and_as_numbers_are_the_same(
    post_id: int, size: int, width: int, score: int
) -> None:
    fields = {"id": post_id, "file_size": size, "image_width": width, "score": score}
    texts = {name: str(value) for name, value in fields.items()}
    for rows in ([fields], [texts], [fields, texts]):
        batch, faults = parse_block(b"\n".join(map(orjson.dumps, rows)), "x", 1)
        assert faults == []
        assert set(batch.ids.tolist()) == {post_id}
        for name in ("file_size", "image_width", "score"):
            assert set(batch.columns[name].tolist()) == {fields[name]}
