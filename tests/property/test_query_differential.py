"""Queries find what a slow and plain evaluator finds, from rows of every export, through the CLI.

Of posts that are in two files the later file has the say.  What an export does not hold is null.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.client import bucketsync
from tests.support.naive_queries import Chain, Dataset, Factors, Pool, Post, Query, Word, words

Value = TypeVar("Value")
ZONES = ("UTC", "America/New_York", "Asia/Tokyo", "Australia/Lord_Howe")
# Both changes of the clocks in New York, midnights there and in Tokyo, leap day, new year.
DAYS = ["2019-12-31", "2020-02-29", "2020-03-08", "2020-11-01", "2020-12-30", "2020-12-31"]
CLOCKS = ["00:00:00", "03:59:59", "04:00:00", "04:59:59", "05:00:00", "15:00:00", "23:59:59"]
NOW = "2021-01-01T12:00:00+00:00"
POSTS = 36
NAMES = ["cat", "black_cat", "hat", "dog_(pet)", ":)", "re:zero", "\\(^o^)/", "o_o", "初音", "x/y"]
CATEGORIES = dict(zip(NAMES, [0, 0, 0, 4, 0, 3, 5, 0, 1, 5], strict=True))
ALIASES = {"kitty": "cat", "puppy": "dog_(pet)", "hat": "black_cat"}
POOLS = ("Four_seasons", "Best_of_2018", "a*b", "100%_(x)")
SOURCES = [
    "",
    "none",
    "None_of_it",
    "https://a.org/X_1%",
    "HTTP://B.org/é",
    'say "hi" \\*',
    "a*b c",
]
EXTENSIONS = ["jpg", "png", "mp4"]
# About 1 kb, 1 mb, 0.5 megapixels and their borders of 5%.
SIZES = [972, 973, 1024, 1075, 1076, 2048, 996_147, 996_148, 1_048_576, 1_101_004, 1_101_005]
SHAPES = [(1000, 665), (1000, 666), (735, 1000), (1000, 475), (1000, 525), (16, 9), (1600, 900)]
SHAPES += [(333, 250), (1000, 995), (1000, 1005), (1995, 300), (2000, 350), (1, 8)]
DURATIONS = [None, 500, 475, 525, 57_000, 60_000, 63_000, 63_001, 90_000]


# --------------------------------------------------------------------------- posts


def _seconds(day: str, clock: str) -> int:
    return int(datetime.fromisoformat(f"{day}T{clock}+00:00").timestamp())


def _post(draw: random.Random, post: int) -> Post:
    def maybe(value: Value) -> Value | None:
        return value if draw.random() < 0.7 else None

    def moment() -> int:
        return _seconds(draw.choice(DAYS), draw.choice(CLOCKS))

    width, height = draw.choice(SHAPES)
    sized = draw.random() < 0.85
    up, down = draw.randrange(6), -draw.randrange(4)
    tags = draw.sample(NAMES, draw.randrange(5))
    statuses = [s for s in ("pending", "flagged", "deleted", "banned") if draw.random() < 0.2]
    return Post(
        id=post,
        tags={name: CATEGORIES[name] for name in tags},
        statuses=frozenset(statuses),
        parent=draw.choice([None, None, draw.randrange(1, POSTS + 4)]),
        has_children=draw.random() < 0.4,
        rating=maybe(draw.choice("gsqe")),
        source=draw.choice(SOURCES),
        ext=draw.choice(EXTENSIONS),
        md5=maybe(f"{post % 7:032x}" if post % 7 else f"{post:032X}".lower()),
        embedded=draw.random() < 0.3,
        duration_ms=draw.choice(DURATIONS),
        numbers={
            "score": up + down,
            "up_score": up,
            "down_score": down,
            "fav_count": draw.randrange(5),
            "image_width": width if sized else None,
            "image_height": height if sized else None,
            "file_size": maybe(draw.choice(SIZES)),
            "pixiv_id": maybe(draw.choice([1, 42, 43, 2**40])),
            "uploader_id": maybe(draw.randrange(1, 4)),
            "approver_id": maybe(draw.randrange(1, 4)),
            "created_at": maybe(moment()),
            "updated_at": maybe(moment()),
            "last_noted_at": maybe(moment()),
            "last_commented_at": maybe(moment()),
            "last_comment_bumped_at": maybe(moment()),
        },
    )


def _shown(name: str, value: int | None, form: str) -> str | int | None:
    """A number or date in one of three forms: ``old``, ``table`` or ``api``."""
    if not name.endswith("_at"):
        return value if form == "api" else "0" if value is None else str(value)
    if value is None:
        return None if form == "api" else "1970-01-01 00:00:00 UTC"
    if form == "api":
        there = datetime.fromtimestamp(value, ZoneInfo("America/New_York"))
        return there.isoformat(timespec="milliseconds")
    return f"{datetime.fromtimestamp(value, ZoneInfo('UTC')):%Y-%m-%d %H:%M:%S}.89786 UTC"


def _row(post: Post, form: str, pools: tuple[Pool, ...]) -> dict[str, Any]:
    stated = {"parent_id": post.parent, **post.numbers}
    row: dict[str, Any] = {
        "id": post.id if form == "api" else str(post.id),
        **{name: _shown(name, value, form) for name, value in stated.items()},
        "rating": post.rating,
        "source": post.source,
        "file_ext": post.ext,
        "md5": post.md5,
        "has_children": post.has_children,
        **{f"is_{name}": name in post.statuses for name in ("pending", "flagged", "banned")},
        "is_deleted": "deleted" in post.statuses,
    }
    if form == "old":
        tags = [{"id": "1", "name": n, "category": str(c)} for n, c in post.tags.items()]
        mine = [pool for pool in pools if post.id in pool.members]
        halves = [*(str(pool.id) for pool in mine), *(pool.category for pool in mine)]
        favs = [
            str(user) for user in range(row.pop("fav_count") and int(stated["fav_count"] or 0))
        ]
        return {**row, "tags": tags + tags[:1], "pools": halves, "favs": favs}
    row["tag_string"] = " ".join(post.tags)
    row["bit_flags"] = int(post.embedded) if form == "api" else str(int(post.embedded))
    for category, field in {0: "general", 1: "artist", 3: "copyright", 4: "character"}.items():
        row[f"tag_string_{field}"] = " ".join(n for n, c in post.tags.items() if c == category)
        row[f"tag_count_{field}"] = str(post.count(category))
    row["tag_count_meta"] = str(post.count(5))
    if form == "api":
        duration_s = None if post.duration_ms is None else post.duration_ms / 1000
        return row | {"media_asset": {"id": 1, "duration": duration_s}}
    nulls = {name for name, value in {**stated, **row}.items() if value is None}
    return {name: value for name, value in row.items() if name not in nulls}


def _as_read(post: Post, form: str) -> Post:
    """What an export tells of a post."""
    if form == "api":
        return post
    return replace(post, duration_ms=None, embedded=post.embedded and form == "table")


@cache
def dataset(seed: int, zone: str) -> tuple[Dataset, dict[str, bytes]]:
    """Posts and tables, and the files that say so."""
    draw = random.Random(seed)  # noqa: S311
    ids = range(1, POSTS + 1)
    pools = tuple(
        Pool(
            id=number,
            name=name,
            category=draw.choice(["series", "collection"]),
            members=tuple(draw.sample(ids, draw.randrange(6))),
        )
        for number, name in enumerate(POOLS, 1)
    )
    files: dict[str, bytes] = {}
    known: dict[int, Post] = {}
    for name, form in {
        "2017000000000001": "old",
        "posts0.json": "table",
        "posts1.json": "api",
    }.items():
        posts = [_post(draw, post) for post in draw.sample(ids, POSTS // 2)]
        known.update({post.id: _as_read(post, form) for post in posts})
        files[name] = _lines([_row(post, form, pools) for post in posts])
    files["pools000000000000.json"] = _lines(
        {
            "id": str(pool.id),
            "name": pool.name,
            "category": pool.category,
            "post_ids": [str(post) for post in pool.members],
        }
        for pool in pools
    )
    files["tag_aliases.json"] = _lines(
        {"antecedent_name": old, "consequent_name": new, "status": "active"}
        for old, new in ALIASES.items()
    )
    found = Dataset(
        posts=tuple(known.values()),
        pools=pools,
        aliases=ALIASES,
        now=datetime.fromisoformat(NOW),
        zone=ZoneInfo(zone),
    )
    return found, files


def _lines(rows: Any) -> bytes:  # noqa: ANN401 (an iterable of rows)
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


# --------------------------------------------------------------------------- queries

INTEGERS = st.integers(-3, 8).map(str) | st.sampled_from(["+5", "0x2", "1_000", "2.0", "x", ""])
IDS = st.integers(0, POSTS + 3).map(str) | st.just("0x1f")
FLOATS = st.sampled_from(
    [".5", "0.5", "0.57", "0.7", "1", "1e-1", "475e-3", "-1", "1.", "x", "0.665"]
)
RATIOS = st.sampled_from(["16:9", "16/9", "1.78", "4:3", "1.33", "1:1", "1", "0:1", "1:0", "-1:2"])
FILESIZES = st.sampled_from(
    ["1kb", "1k", "1024", "1024b", "1mb", "1M", ".5kb", "2.kb", "1gb", "1100000", "973B", "-1"]
)
DATES = st.sampled_from(
    [*DAYS, "8-3-2020", "1/11/2020", "2020.12.30", "20201231", "2020-02-30", "2020-12/30", "x"]
)
AGES = st.sampled_from(
    (
        *("1d", "2 days", "36h", "1d12h", "2d", "1w", "9mo", "10months", "366d", "1y"),
        *("1yr1d", "1d1w", "1:30", "60", "1x", "0"),
    )
)
LENGTHS = st.sampled_from(
    (
        *("0.5", "500", "1min", "60", "1:00", "0:60", "0:57.000", "1m3s", "90s"),
        *("1.5mi", "00:01:30", "3s1m", "1:75:00", "x"),
    )
)


def conditions(one: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Every form that a value about numbers may have."""
    prefixed = st.tuples(st.sampled_from(["<", ">", "<=", ">=", ".."]), one).map("".join)
    spans = st.tuples(one, st.sampled_from(["..", "..."]), one).map("".join)
    null = st.sampled_from(["any", "none", "ANY"])
    alone = one | prefixed | spans | st.builds("{}..".format, one) | null
    separators = st.sampled_from([",", " ", ", "])
    several = st.tuples(separators, st.lists(alone, min_size=2, max_size=3))
    listed = st.tuples(separators, st.lists(one, min_size=2, max_size=3))
    return alone | (several | listed).map(lambda parts: parts[0].join(parts[1]))


STATUSES = (
    *("pending", "flagged", "deleted", "banned", "active", "modqueue", "unmoderated"),
    *("any", "all", "Deleted", "gone"),
)
TIES = st.sampled_from([*STATUSES, "none", "any", "1", "2", "0", "-1", "4294967297"])
PEOPLE = st.sampled_from(["#1", "#2", "#0", "3", "any", "none", "#99999999999"])
POOLED = ["1", "2", "9", "four_seasons", "Four Seasons", "*_*", "a\\*b", "*%*", "any", "none"]
MD5S = [f"{1:032x}", f"{2:032X}", f"{3:032x},{5:032x}", "x", "any", "none", f"1,{1:032x}"]
VALUES: dict[str, st.SearchStrategy[str]] = {
    **dict.fromkeys(("score", "upvotes", "downvotes", "favcount"), conditions(INTEGERS)),
    **dict.fromkeys(("tagcount", "gentags", "copytags", "metatags"), conditions(INTEGERS)),
    **dict.fromkeys(("arttags", "chartags", "pool_count"), conditions(INTEGERS)),
    **dict.fromkeys(("child_count", "deleted_child_count"), conditions(INTEGERS)),
    **dict.fromkeys(("active_child_count", "series_pool_count"), conditions(INTEGERS)),
    "collection_pool_count": conditions(INTEGERS),
    **dict.fromkeys(("width", "height"), conditions(st.sampled_from(["1000", "0", "16", "1e3"]))),
    **dict.fromkeys(
        ("pixiv", "pixiv_id"), conditions(st.sampled_from(["42", "0", "1", "9" * 25]))
    ),
    "id": conditions(IDS),
    "mpixels": conditions(FLOATS),
    "ratio": conditions(RATIOS),
    "filesize": conditions(FILESIZES),
    "date": conditions(DATES),
    "age": conditions(AGES),
    "duration": conditions(LENGTHS),
    "md5": st.sampled_from(MD5S),
    "rating": st.sampled_from(["g", "Safe", "q,e", "general explicit", "x", "", "questionable,"]),
    "filetype": st.sampled_from(["jpg", "PNG,mp4", "jpg png", "gif", ""]),
    "source": st.sampled_from(
        [
            "",
            "none",
            "None",
            "NONE_OF",
            "http",
            "*.org/",
            "*é",
            'say "',
            "*\\*",
            "a\\*b",
            "*_1%",
            "_",
        ]
    ),
    "status": st.sampled_from(STATUSES),
    "parent": TIES,
    "child": st.sampled_from([*STATUSES, "none", "1"]),
    "is": st.sampled_from([*STATUSES, "parent", "child", "sfw", "nsfw", "safe", "general", "mp4"]),
    "has": st.sampled_from(["parent", "child", "children", "source", "pools", "x"]),
    "embedded": st.sampled_from(["true", "false", "x"]),
    "unaliased": st.sampled_from(["hat", "kitty", "CAT"]),
    "user": PEOPLE,
    "approver": PEOPLE,
    "pool": st.sampled_from([*POOLED, "series", "collection"]),
}
SPELLINGS = {"child_count": "children", "pool_count": "pools", "id": "ID"}
WORDS = st.sampled_from([*NAMES, "CAT", "kitty", "puppy", "nobody"]).map(Word)
WILDCARDS = st.sampled_from(["*cat", "*", "*(*", "\\(*", "\\\\(*", "x*y", "初*", "b*k*t"]).map(
    Word
)
METATAGS = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.builds(Word, VALUES[name], st.just(name), st.booleans())
)
LEAVES: st.SearchStrategy[Query] = st.one_of(WORDS, WILDCARDS, METATAGS, METATAGS, METATAGS)
SIGNS = st.sampled_from(["", "", "-", "~"])


def _nested(inner: st.SearchStrategy[Query]) -> st.SearchStrategy[Query]:
    factors = st.lists(st.tuples(SIGNS, inner), min_size=1, max_size=3).map(tuple).map(Factors)
    parts = st.lists(factors, min_size=2, max_size=3).map(tuple)
    return factors | st.builds(Chain, st.sampled_from(["and", "or"]), parts)


QUERIES = _nested(st.recursive(LEAVES, _nested, max_leaves=6))
ORDERS = (
    *("id", "id_desc", "score", "favcount", "upvotes", "downvotes", "created_at", "change"),
    *("mpixels", "portrait", "landscape", "filesize", "tagcount", "gentags", "arttags"),
    *("copytags", "chartags", "metatags", "md5", "duration", "comment", "comment_bumped"),
    *("note", "rank", "none", "child_count", "pool_count", "score_asc", "score_desc"),
    *("filesize_asc", "created_at_asc", "md5_asc", "SCORE_ASC", "duration_asc"),
)


def written(query: Query, *, nested: bool = True) -> str:
    """The text of a query."""
    match query:
        case Word(text, "", _):
            return text
        case Word(text, metatag, quoted):
            return f"{SPELLINGS.get(metatag, metatag)}:{_value(text, quoted=quoted)}"
        case Factors(parts):
            inside = " ".join(sign + written(part) for sign, part in parts)
        case Chain(operator, parts):
            inside = f" {operator} ".join(written(part, nested=False) for part in parts)
    return f"( {inside} )" if nested else inside


def _value(text: str, *, quoted: bool) -> str:
    if quoted and "\\" not in text:
        return '"' + text.replace('"', '\\"') + '"'
    return re.sub(r"(\s)", r"\\\1", text) if text[:1] not in {'"', "'"} else text


def _asked(query: Query) -> st.SearchStrategy[Query]:
    """A query with or without an order and a limit."""
    orders = st.sampled_from(ORDERS).map(lambda name: Word(name, "order"))
    pools = st.sampled_from(POOLED).map(lambda name: Word(name, "ordpool"))
    limits = st.integers(0, 9).map(lambda count: Word(str(count), "limit"))
    extra = st.lists(orders | pools, max_size=1).flatmap(
        lambda order: st.lists(limits, max_size=1).map(lambda limit: [*order, *limit])
    )
    whole = query if isinstance(query, Factors) else Factors((("", query),))
    return extra.map(lambda more: Factors((*whole.parts, *(("", word) for word in more))))


@settings(max_examples=150)
@given(
    query=QUERIES.flatmap(_asked),
    seed=st.integers(0, 3),
    zone=st.sampled_from(ZONES),
)
def test_a_query_finds_what_a_plain_reading_of_it_finds(
    query: Factors, seed: int, zone: str
) -> None:
    data, _ = dataset(seed, zone)
    text = written(query, nested=False)
    # Read literally, without quotes, where these cannot be written.
    assert _found(seed, zone, text) == data.search(_as_written(query)), text


def _as_written(query: Any) -> Any:  # noqa: ANN401 (the same kind of query)
    match query:
        case Word(text, metatag, quoted):
            return Word(text, metatag, quoted and "\\" not in text)
        case Factors(parts):
            return Factors(tuple((sign, _as_written(part)) for sign, part in parts))
        case Chain(operator, parts):
            return Chain(operator, tuple(map(_as_written, parts)))


def _found(seed: int, zone: str, text: str) -> list[int]:
    _, files = dataset(seed, zone)
    with TemporaryDirectory() as folder:
        for name, lines in files.items():
            Path(folder, name).write_bytes(lines)
        run = bucketsync("search", "--metadata", folder, "--now", NOW, "--tz", zone, "--", text)
    assert (run.code, run["rows_faulty"]) == (0, 0), run.text
    found: list[int] = run["ids"]
    return found


@given(listed=st.lists(st.integers(1, POSTS + 5), min_size=1, max_size=6), seed=st.integers(0, 3))
@settings(max_examples=30)
def test_a_list_of_ids_is_an_order(listed: list[int], seed: int) -> None:
    data, _ = dataset(seed, "UTC")
    ids = Word(",".join(map(str, listed)), "id")
    query = Factors((("", ids), ("", Word("custom", "order")), ("-", Word("cat"))))
    assert len(list(words(query))) == 3
    assert _found(seed, "UTC", written(query, nested=False)) == data.search(query)
