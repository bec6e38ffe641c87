"""Posts: a block of lines of JSON, as any Danbooru export wrote them, to columns.

A line costs its post only if it is no JSON, too long, or has no usable id.  Any other field that
cannot be read is null, and a fault beside the batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from manifests.columns import I64
from manifests.metadata.columns import COLUMNS, Column, PostBatch, Texts
from manifests.metadata.faults import BadRow, RowFault, shown
from manifests.metadata.fields import (
    MAX_NUMBER,
    dates,
    digests,
    durations,
    extensions,
    fast_numbers,
    flags,
    number,
    numbers,
    ratings,
    texts,
)
from manifests.metadata.lines import LineRows, read_lines
from manifests.metadata.posttags import count_categories, read_tags, shrink_tags
from manifests.paths import MAX_ID

_U32 = 2**32 - 1
_I32 = 2**31 - 1
# Bounds of the columns that are plain numbers.
_RANGES = {
    "score": (-_I32, _I32),
    "up_score": (-_I32, _I32),
    "down_score": (-_I32, _I32),
    "image_width": (0, _U32),
    "image_height": (0, _U32),
    "file_size": (0, MAX_NUMBER),
    "parent_id": (0, _U32),
    "pixiv_id": (0, MAX_NUMBER),
    "uploader_id": (0, _U32),
    "approver_id": (0, _U32),
}
_DATES = (
    "created_at",
    "updated_at",
    "last_noted_at",
    "last_commented_at",
    "last_comment_bumped_at",
)
# What newer records of the API say of the file, and may leave out of the post itself.
_ASSET_FIELDS = ("md5", "file_ext", "file_size", "image_width", "image_height", "duration")
_SERIES = {"series": True, "collection": False}


def parse_block(block: bytes, file: str, first_line: int) -> tuple[PostBatch, list[BadRow]]:
    """Posts of whole lines, and the faults of these lines, in order.

    ``file`` and ``first_line`` (counted from 1) name places in faults.  Trusts nothing: any bytes
    give a batch and faults.  The caller bounds the size of the block; the columns need less.
    """
    rows = read_lines(block, file, first_line, shrink_tags)
    ids = _ids(rows)
    _fill_from_assets(rows)
    codes, known_extensions = extensions(rows)
    tags = read_tags(rows)
    columns: dict[str, Column] = {
        "rating": ratings(rows),
        "flags": flags(rows),
        "fav_count": _favourites(rows),
        "file_ext": codes,
        "md5": digests(rows),
        "duration_ms": durations(rows),
        **dict(count_categories(rows, tags)),
        **{name: numbers(rows, name, low, high) for name, (low, high) in _RANGES.items()},
        **{name: dates(rows, name) for name in _DATES},
    }
    pool_posts, pool_ids, pool_series = _pools(rows)
    batch = PostBatch(
        ids=ids.astype(np.uint32),
        columns={name: columns[name].astype(spec.dtype) for name, spec in COLUMNS.items()},
        extensions=known_extensions,
        sources=Texts.of(texts(rows, "source")),
        tag_names=tags.names,
        tag_categories=tags.categories,
        tag_counts=tags.counts,
        tag_codes=tags.codes,
        pool_posts=np.array(pool_posts, np.uint32),
        pool_ids=np.array(pool_ids, np.uint32),
        pool_series=np.array(pool_series, np.bool_),
        line_starts=rows.starts,
        line_lengths=rows.lengths,
    )
    return batch, rows.in_order()


def _ids(rows: LineRows) -> I64:
    """The ids, after the rows without one have been dropped."""
    values = rows.values("id")
    ids = fast_numbers(values, null=0)
    if ids is not None and len(ids) and ids.min() >= 1 and ids.max() <= MAX_ID:
        return ids
    gone: dict[int, tuple[RowFault, str]] = {}
    for place, value in enumerate(values):
        if value is None:
            gone[place] = RowFault.NO_ID, "id: the row has no id (a hidden post)"
        elif not _is_id(value):
            problem = f"id: expected a number from 1 to {MAX_ID}, got {shown(value)}"
            gone[place] = RowFault.FIELD, problem
    rows.drop(gone)
    return numbers(rows, "id", 1, MAX_ID)


def _is_id(value: object) -> bool:
    try:
        return number(value, 1, MAX_ID) > 0
    except ValueError:
        return False


def _fill_from_assets(rows: LineRows) -> None:
    for row, asset in zip(rows.rows, rows.values("media_asset"), strict=True):
        if type(asset) is dict:
            for name in _ASSET_FIELDS:
                if row.get(name) is None:
                    row[name] = asset.get(name)


def _favourites(rows: LineRows) -> I64:
    """How many: `fav_count`, or the length of the list of who they are."""
    stated = numbers(rows, "fav_count", 0, _U32, null=-1)
    for place in np.flatnonzero(stated < 0):
        favs = rows.rows[place].get("favs")
        stated[place] = len(favs) if type(favs) is list else 0
        if favs is not None and type(favs) is not list:
            rows.blame(int(place), "favs", f"expected a list, got {shown(favs)}")
    return stated


def _pools(rows: LineRows) -> tuple[list[int], list[int], list[bool]]:
    """Pairs of post and pool: the rows, the pools, and whether each is a series."""
    posts, pools, series = list[int](), list[int](), list[bool]()
    for place, value in enumerate(rows.values("pools")):
        if not value:
            continue
        try:
            mine = dict(_halves(value))
        except (ValueError, TypeError, KeyError):
            rows.blame(place, "pools", f"expected ids and their categories, got {shown(value)}")
            continue
        posts += [place] * len(mine)
        pools += mine
        series += mine.values()
    return posts, pools, series


def _halves(value: object) -> Iterator[tuple[int, bool]]:
    """The first half of the list are pools, the second, as long, their categories."""
    if type(value) is not list:
        raise ValueError("no list")
    half = len(value) // 2
    for pool, category in zip(value[:half], value[half:], strict=True):
        yield number(pool, 1, _U32), _SERIES[category]
