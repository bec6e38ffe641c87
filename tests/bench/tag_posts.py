"""Synthetic metadata as a booru exports it: posts, tags, aliases, implications, pools.

Which tags a post has follows Zipf's law and is independent of everything else; numbers, dates,
sources and the lengths of names are like those of real exports, so that what is made of them
compresses as real ones do.  A row of 2021 has 1.8 KB.  The same arguments give the same bytes.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from manifests.columns import I64, U8
from manifests.metadata.columns import CATEGORIES
from server.publishing.crew import available_cpus

# Grows when other bytes come out for the same arguments.
_VERSION = 1
_SHARD_POSTS = 50_000
_BLOCK_POSTS = 5_000
# One id in so many is of no post.
_GAP = 33
# The tags that most posts have, most frequent first, and what they are.
HEAD: Final[Mapping[str, int]] = {
    **dict.fromkeys(("1girl", "solo", "long_hair"), 0),
    "highres": 5,
    **dict.fromkeys(("breasts", "blush", "short_hair", "smile", "open_mouth", "blue_eyes"), 0),
    "touhou": 3,
    **dict.fromkeys(("looking_at_viewer", "blonde_hair", "brown_hair", "skirt", "hat"), 0),
    "absurdres": 5,
    **dict.fromkeys(("thighhighs", "black_hair", "gloves", "dress", "red_eyes", "ribbon"), 0),
    "comic": 5,
}
# Shares of general, artist, copyright, character, meta among frequent tags and among others.
_CODES = np.array(list(CATEGORIES), np.uint8)
_FREQUENT = 1000
_SHARES_OF_FREQUENT = (0.86, 0.01, 0.06, 0.04, 0.03)
_SHARES_OF_OTHERS = (0.14, 0.42, 0.10, 0.335, 0.005)
_CONSONANTS, _VOWELS = "bcdfghjklmnprstv", "aeiou"
_EXTENSIONS = np.array(["jpg", "png", "gif", "mp4", "zip"])
_FIRST_DAY_S = 1_117_000_000
_POST_S = 100

Names = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is made: ``generation`` is 2021 (strings of names) or 2017 (objects, "0" for null)."""

    posts: int
    tags: int
    tags_per_post: float = 32.0
    seed: int = 3
    generation: int = 2021


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocabulary:
    """The tags: names in order, the category of each, their places from most to least frequent."""

    names: Names
    categories: U8
    by_rank: I64

    def at_rank(self, rank: int) -> str:
        """The name of a tag by how frequent it is, from 0."""
        return str(self.names[self.by_rank[rank]])


# ----------------------------------------------------------------------------------- vocabulary


@cache
def vocabulary(shape: Shape) -> Vocabulary:
    """The tags of all posts."""
    rng = np.random.default_rng(shape.seed)
    ranked = [*HEAD, *_made_names(shape.tags - len(HEAD), rng)][: shape.tags]
    categories = np.concatenate(
        [
            np.fromiter(HEAD.values(), np.uint8),
            rng.choice(_CODES, _FREQUENT, p=_SHARES_OF_FREQUENT),
            rng.choice(_CODES, shape.tags, p=_SHARES_OF_OTHERS),
        ]
    )[: shape.tags]
    order = sorted(range(shape.tags), key=ranked.__getitem__)
    names = np.empty(shape.tags, np.object_)
    names[:] = [ranked[rank] for rank in order]
    by_rank = np.empty(shape.tags, np.int64)
    by_rank[order] = np.arange(shape.tags)
    return Vocabulary(names=names, categories=categories[order], by_rank=by_rank)


def _made_names(count: int, rng: np.random.Generator) -> list[str]:
    """Two words each, all different, of 9 to 16 letters."""
    syllables = [a + b for a in _CONSONANTS for b in _VOWELS]
    words = [one + other for one in syllables for other in (*syllables, "rika", "sune")]
    pairs = rng.choice(len(words) ** 2, count, replace=False)
    named = (f"{words[pair // len(words)]}_{words[pair % len(words)]}" for pair in pairs.tolist())
    return [f"{name}_({number})" if number % 9 == 0 else name for number, name in enumerate(named)]


def _draws(shape: Shape) -> tuple[float, npt.NDArray[np.float64]]:
    """How often to draw, to have so many different tags a post, and the distribution's sums."""
    weights = 1 / np.arange(1, shape.tags + 1)
    weights /= weights.sum()
    low, high = shape.tags_per_post, 8 * shape.tags_per_post
    for _ in range(30):
        draws = (low + high) / 2
        too_few = -np.expm1(-draws * weights).sum() < shape.tags_per_post
        low, high = (draws, high) if too_few else (low, draws)
    return (low + high) / 2, np.cumsum(weights)


# ----------------------------------------------------------------------------------- columns


class _Posts:
    """Columns of some posts, as texts where rows have them so."""

    def __init__(self, ids: I64, shape: Shape, rng: np.random.Generator) -> None:
        self.ids = ids.tolist()
        count = len(ids)
        created = _FIRST_DAY_S + ids * _POST_S + rng.integers(0, _POST_S, count)
        self.created = _dates(created, rng)
        self.updated = _dates(created + rng.geometric(1e-7, count), rng)
        self.uploaders = (rng.zipf(1.3, count) % 600_000 + 1).tolist()
        self.approvers = _sparse(rng.zipf(1.5, count) % 500_000 + 1, 0.5, rng)
        self.parents = _sparse(np.maximum(ids - rng.integers(1, 1000, count), 1), 0.08, rng)
        self.children = _words(rng.random(count) < 0.08)
        self.deleted = _words(rng.random(count) < 0.06)
        self.md5s = [text.hex() for text in np.frombuffer(rng.bytes(16 * count), "V16").tolist()]
        up, down = rng.geometric(0.1, count) - 1, -(rng.geometric(0.9, count) - 1)
        self.up_scores, self.down_scores = up.tolist(), down.tolist()
        self.scores = (up + down).tolist()
        self.favourites = rng.geometric(0.05, count).tolist()
        self.ratings = rng.choice(list("sqe"), count, p=[0.72, 0.17, 0.11]).tolist()
        self.widths, self.heights = _side(count, rng).tolist(), _side(count, rng).tolist()
        self.sizes = np.exp(rng.normal(13, 1, count)).astype(int).tolist()
        shares = [0.72, 0.27, 0.006, 0.003, 0.001]
        self.extensions = rng.choice(_EXTENSIONS, count, p=shares).tolist()
        works = rng.integers(1_000_000, 95_000_000, count)
        self.works = _sparse(works, 0.52, rng)
        self.sources = list(map(_source, self.works, works.tolist(), self.created))
        self.tags = _Tags(count, shape, rng)


class _Tags:
    """The tags of some posts: names in order, and the places of each post's among them."""

    def __init__(self, posts: int, shape: Shape, rng: np.random.Generator) -> None:
        known = vocabulary(shape)
        draws, sums = _draws(shape)
        counts = rng.poisson(draws, posts)
        ranks = np.searchsorted(sums, rng.random(int(counts.sum())) * sums[-1])
        rows = np.repeat(np.arange(posts), counts)
        keys = np.unique(rows << 32 | known.by_rank[ranks])
        rows, self.codes = keys >> 32, keys & 0xFFFFFFFF
        self.starts = np.searchsorted(rows, np.arange(posts + 1)).tolist()
        places = np.searchsorted(_CODES, known.categories[self.codes])
        order = np.argsort(rows * len(_CODES) + places, kind="stable")
        self._groups = np.bincount(rows * len(_CODES) + places, minlength=posts * len(_CODES))
        self._by_category = known.names[self.codes[order]].tolist()
        self.names = known.names[self.codes].tolist()

    def joined(self) -> list[str]:
        """All tags of each post."""
        return [" ".join(self.names[start:stop]) for start, stop in pairwise(self.starts)]

    def joined_by_category(self) -> Iterator[tuple[str, ...]]:
        """Those of each category, in the order of CATEGORIES."""
        ends = [0, *np.cumsum(self._groups).tolist()]
        texts = [" ".join(self._by_category[start:stop]) for start, stop in pairwise(ends)]
        return zip(*[iter(texts)] * len(_CODES), strict=True)

    def counts(self) -> list[tuple[int, ...]]:
        """How many those are."""
        return [tuple(row) for row in self._groups.reshape(-1, len(_CODES)).tolist()]


def _dates(seconds: I64, rng: np.random.Generator) -> list[str]:
    micros = rng.integers(0, 10**6, len(seconds)).tolist()
    texts = np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()
    return [
        f"{text[:10]} {text[11:]}.{part} UTC" for text, part in zip(texts, micros, strict=True)
    ]


def _sparse(values: I64, share: float, rng: np.random.Generator) -> list[int]:
    """A share of the values; 0 for the others."""
    return list(np.where(rng.random(len(values)) < share, values, 0).tolist())


def _words(flags: npt.NDArray[np.bool_]) -> list[str]:
    return list(np.where(flags, "true", "false").tolist())


def _side(count: int, rng: np.random.Generator) -> I64:
    usual = rng.choice([800, 1000, 1200, 700, 1448, 2048], count)
    return usual + rng.integers(0, 400, count) * (rng.random(count) < 0.5)


def _source(work: int, number: int, date: str) -> str:
    """Half are of one gallery, a fifth of a site of short messages, some of others, some empty."""
    if work:
        path = date[:19].translate(str.maketrans("- :", "///"))
        return f"https://i.pximg.net/img-original/img/{path}/{work}_p{number % 4}.jpg"
    if number % 10 < 4:
        return f"https://twitter.com/user{number % 9973}/status/{10**18 + number * 7919}"
    return f"http://blog-{number % 4999}.example.net/{number}.jpg" if number % 10 < 7 else ""


# ----------------------------------------------------------------------------------- rows

_ROW_2021 = (
    '{"id":"%d","created_at":"%s","uploader_id":"%d","score":"%d","source":"%s","md5":"%s",'
    '"rating":"%s","image_width":"%d","image_height":"%d","tag_string":"%s","fav_count":"%d",'
    '"file_ext":"%s","has_children":%s,"tag_count_general":"%d","tag_count_artist":"%d",'
    '"tag_count_copyright":"%d","tag_count_character":"%d","tag_count_meta":"%d","tag_count":"%d",'
    '"file_size":"%d","up_score":"%d","down_score":"%d","is_pending":false,"is_flagged":false,'
    '"is_deleted":%s,"updated_at":"%s","is_banned":false,"has_active_children":%s,'
    '"bit_flags":"0","has_large":true,"has_visible_children":%s,"tag_string_general":"%s",'
    '"tag_string_artist":"%s","tag_string_copyright":"%s","tag_string_character":"%s",'
    '"tag_string_meta":"%s","file_url":"https://cdn.example.net/original/%s.%s",'
    '"large_file_url":"https://cdn.example.net/sample/sample-%s.jpg",'
    '"preview_file_url":"https://cdn.example.net/preview/%s.jpg"%s}\n'
)
_ROW_2017 = (
    '{"id":"%d","created_at":"%s","uploader_id":"%d","score":"%d","source":"%s","md5":"%s",'
    '"last_commented_at":"1970-01-01 00:00:00 UTC","rating":"%s","image_width":"%d",'
    '"image_height":"%d","is_note_locked":false,"file_ext":"%s",'
    '"last_noted_at":"1970-01-01 00:00:00 UTC","is_rating_locked":false,"parent_id":"%d",'
    '"has_children":%s,"approver_id":"%d","file_size":"%d","is_status_locked":false,'
    '"up_score":"%d","down_score":"%d","is_pending":false,"is_flagged":false,"is_deleted":%s,'
    '"updated_at":"%s","is_banned":false,"pixiv_id":"%d","tags":[%s],"pools":[],"favs":[%s]}\n'
)


def _rows_2021(posts: _Posts, _: Shape) -> Iterator[str]:
    """Keys whose value is null are left out."""
    optional = [
        "".join(
            f',"{name}":"{value}"' for name, value in zip(_OPTIONAL, values, strict=True) if value
        )
        for values in zip(posts.parents, posts.approvers, posts.works, strict=True)
    ]
    columns: tuple[Sequence[Any], ...] = (
        *(posts.ids, posts.created, posts.uploaders, posts.scores, posts.sources, posts.md5s),
        *(posts.ratings, posts.widths, posts.heights, posts.tags.joined(), posts.favourites),
        *(posts.extensions, posts.children),
    )
    rest = (
        *(posts.sizes, posts.up_scores, posts.down_scores, posts.deleted, posts.updated),
        *(posts.children, posts.children),
    )
    files = (posts.md5s, posts.extensions, posts.md5s, posts.md5s, optional)
    grouped = zip(
        zip(*columns, strict=True),
        posts.tags.counts(),
        zip(*rest, strict=True),
        posts.tags.joined_by_category(),
        zip(*files, strict=True),
        strict=True,
    )
    for row, counts, more, texts, urls in grouped:
        yield _ROW_2021 % (*row, *counts, sum(counts), *more, *texts, *urls)


_OPTIONAL = ("parent_id", "approver_id", "pixiv_id")


def _rows_2017(posts: _Posts, shape: Shape) -> Iterator[str]:
    """Tags are objects, favourites lists of users."""
    categories = vocabulary(shape).categories[posts.tags.codes].tolist()
    told = [
        f'{{"id":"{code + 1}","name":"{name}","category":"{category}"}}'
        for code, name, category in zip(
            posts.tags.codes.tolist(), posts.tags.names, categories, strict=True
        )
    ]
    tags = [",".join(told[start:stop]) for start, stop in pairwise(posts.tags.starts)]
    favourites = [
        ",".join(f'"{user * 7919 % 600_000}"' for user in range(count))
        for count in posts.favourites
    ]
    columns: tuple[Sequence[Any], ...] = (
        *(posts.ids, posts.created, posts.uploaders, posts.scores, posts.sources, posts.md5s),
        *(posts.ratings, posts.widths, posts.heights, posts.extensions, posts.parents),
        *(posts.children, posts.approvers, posts.sizes, posts.up_scores, posts.down_scores),
        *(posts.deleted, posts.updated, posts.works, tags, favourites),
    )
    for row in zip(*columns, strict=True):
        yield _ROW_2017 % row


_ROWS: Final[Mapping[int, Callable[[_Posts, Shape], Iterator[str]]]] = {
    2021: _rows_2021,
    2017: _rows_2017,
}


# ----------------------------------------------------------------------------------- files


def make(folder: Path, shape: Shape) -> bool:
    """Write the files of a shape into a folder of their own; False if they are there already."""
    stamp, told = folder / "made", json.dumps({**asdict(shape), "version": _VERSION})
    if stamp.exists() and stamp.read_text(encoding="utf-8") == told:
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    starts = range(0, shape.posts, _SHARD_POSTS)
    jobs = min(available_cpus(), len(starts))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn) as executor:
        tasks = [executor.submit(_write_shard, folder, shape, start) for start in starts]
        _write_tables(folder, shape)
        for task in tasks:
            task.result()
    stamp.write_text(told, encoding="utf-8")
    return True


def shards(folder: Path) -> list[Path]:
    """The files of posts."""
    return sorted(folder.glob("posts*.json"))


def _write_shard(folder: Path, shape: Shape, start: int) -> None:
    rng = np.random.default_rng([shape.seed, start])
    path = folder / f"posts{start // _SHARD_POSTS:012}.json"
    stop = min(start + _SHARD_POSTS, shape.posts)
    with path.open("w", encoding="utf-8") as file:
        for first in range(start, stop, _BLOCK_POSTS):
            places = np.arange(first, min(first + _BLOCK_POSTS, stop))
            ids = places + 1 + places // (_GAP - 1)
            file.writelines(_ROWS[shape.generation](_Posts(ids, shape, rng), shape))


def _write_tables(folder: Path, shape: Shape) -> None:
    """A tag's row for each tag, an alias for a fiftieth of them, an implication for a tenth."""
    rng = np.random.default_rng([shape.seed, 1])
    known = vocabulary(shape)
    frequent = known.names[known.by_rank[: max(shape.tags // 10, 1)]].tolist()
    pairs = zip(rng.permutation(frequent).tolist(), frequent, strict=True)
    top = shape.posts * _GAP // (_GAP - 1)
    tables: dict[str, Iterator[Mapping[str, Any]]] = {
        "tags": (
            {"id": str(number), "name": name, "category": str(category), "post_count": "0"}
            for number, (name, category) in enumerate(
                zip(known.names.tolist(), known.categories.tolist(), strict=True), 1
            )
        ),
        "tag_aliases": (
            {"antecedent_name": f"{name}_(old)", "consequent_name": name, "status": "active"}
            for name in frequent[:: max(1, len(frequent) * 50 // shape.tags)]
        ),
        "tag_implications": (
            {"antecedent_name": one, "consequent_name": other, "status": "active"}
            for one, other in pairs
            if one != other
        ),
        "pools": (
            {
                "id": str(number),
                "name": f"pool_{number}",
                "category": "series",
                "post_ids": list(map(str, rng.integers(1, top, 12).tolist())),
            }
            for number in range(1, shape.posts // 250 + 1)
        ),
    }
    for name, rows in tables.items():
        lines = chain.from_iterable((orjson.dumps(row), b"\n") for row in rows)
        (folder / f"{name}{0:012}.json").write_bytes(b"".join(lines))
