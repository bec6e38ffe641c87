"""The questions of the benchmark of tags, and two linear scans that answer them from the lines.

A question is told three times: in the query language, in SQL for DuckDB, and as a condition on a
row for a loop in Python.  Of the correct ways to test for a tag, the one that was fastest in each
is taken: a search in the text of all tags, not a list of them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from tests.bench.tag_posts import Shape, vocabulary

_READ_BYTES: Final = 2 * 2**20
# Id, all tags between spaces, rating, score.
_Row = tuple[int, str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Five words: tags to have, of which to have one, to lack, and conditions on columns."""

    name: str
    every: tuple[str, ...]
    some: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    prefix: str = ""
    rating: str = ""
    least_score: int | None = None
    best: int = 0

    @property
    def text(self) -> str:
        """In the query language."""
        words = [*self.every, *(f"~{tag}" for tag in self.some), *(f"-{tag}" for tag in self.none)]
        words += [f"{self.prefix}*"] if self.prefix else []
        words += [f"rating:{self.rating}"] if self.rating else []
        words += [f"score:>={self.least_score}"] if self.least_score is not None else []
        words += ["order:score", f"limit:{self.best}"] if self.best else []
        return " ".join(words)

    def where(self, tag: Callable[[str], str], prefix: Callable[[str], str]) -> str:
        """As a condition of SQL; ``tag`` and ``prefix`` tell how tags are tested for."""
        terms = [*map(tag, self.every), *(f"NOT {tag(name)}" for name in self.none)]
        terms += [f"({' OR '.join(map(tag, self.some))})"] if self.some else []
        terms += [prefix(self.prefix)] if self.prefix else []
        terms += [f"rating = '{self.rating}'"] if self.rating else []
        terms += [f"score >= {self.least_score}"] if self.least_score is not None else []
        return " AND ".join(terms)

    def condition(self) -> Callable[[_Row], bool]:
        """As a condition on a row."""
        every, some, none = (
            [f" {tag} " for tag in tags] for tags in (self.every, self.some, self.none)
        )
        prefix, rating = f" {self.prefix}", self.rating
        least = -(2**31) if self.least_score is None else self.least_score

        def holds(row: _Row) -> bool:
            _, tags, its_rating, score = row
            return (
                all(tag in tags for tag in every)
                and not any(tag in tags for tag in none)
                and (not some or any(tag in tags for tag in some))
                and (len(prefix) == 1 or prefix in tags)
                and (not rating or rating == its_rating)
                and score >= least
            )

        return holds


def questions(shape: Shape) -> tuple[Question, ...]:
    """Five words each, from tags that most posts have to tags of a few."""
    known = vocabulary(shape)
    rare = tuple(known.at_rank(shape.tags // part) for part in (25, 10, 5))
    some_word = known.at_rank(shape.tags // 3).partition("_")[0]
    fiftieth, hundredth, thousandth = (
        known.at_rank(min(rank, shape.tags - 1)) for rank in (50, 100, 1000)
    )
    return (
        Question(name="common", every=("1girl", "solo", "long_hair", "blush", "smile")),
        Question(name="minus", every=("1girl", "solo", "smile"), none=("comic",), rating="s"),
        Question(
            name="mixed",
            every=("1girl", hundredth, thousandth),
            none=(fiftieth,),
            least_score=5,
        ),
        Question(name="rare", every=("1girl",), some=rare, rating="s"),
        Question(name="ordered", every=("1girl", "solo"), none=("comic",), best=20),
        Question(
            name="wildcard",
            every=("1girl", "solo"),
            none=("comic",),
            prefix=f"{some_word}_",
            rating="s",
        ),
    )


class Scanned(NamedTuple):
    """What a scan found, in the order of the query, and how long it took by itself."""

    ids: list[int]
    seconds: float


# ----------------------------------------------------------------------------------- Python


def scan_with_python(
    files: Sequence[Path], asked: Sequence[Question], generation: int
) -> list[Scanned]:
    """One pass over the lines; each question is charged with the reading and its own test."""
    conditions = [question.condition() for question in asked]
    found: list[list[_Row]] = [[] for _ in asked]
    own_s, reading_s = [0.0] * len(asked), 0.0
    started = time.perf_counter()
    for rows in _blocks(files, generation):
        now = time.perf_counter()
        reading_s += now - started
        for place, condition in enumerate(conditions):
            found[place] += filter(condition, rows)
            started, now = now, time.perf_counter()
            own_s[place] += now - started
        started = now
    results = zip(asked, found, own_s, strict=True)
    return [Scanned(_arranged(question, rows), reading_s + own) for question, rows, own in results]


def _blocks(files: Sequence[Path], generation: int) -> Iterator[list[_Row]]:
    row_of = _row_2021 if generation == 2021 else _row_2017
    for path in files:
        with path.open("rb") as file:
            while lines := file.readlines(_READ_BYTES):
                yield [row_of(orjson.loads(line)) for line in lines]


def _row_2021(post: Mapping[str, Any]) -> _Row:
    return int(post["id"]), f" {post['tag_string']} ", post["rating"], int(post["score"])


def _row_2017(post: Mapping[str, Any]) -> _Row:
    names = " ".join([tag["name"] for tag in post["tags"]])
    return int(post["id"]), f" {names} ", post["rating"], int(post["score"])


def _arranged(question: Question, rows: list[_Row]) -> list[int]:
    if question.best:
        best = sorted(((row[3], row[0]) for row in rows), reverse=True)[: question.best]
        return [post_id for _, post_id in best]
    return sorted((row[0] for row in rows), reverse=True)


# ----------------------------------------------------------------------------------- DuckDB


def scan_with_duckdb(
    files: Sequence[Path], asked: Sequence[Question], generation: int
) -> list[Scanned] | None:
    """One query each over the lines, reading the fields it needs; None without DuckDB."""
    try:
        duckdb = importlib.import_module("duckdb")
    except ImportError:
        return None
    results = []
    with duckdb.connect() as connection:
        for question in asked:
            query = _sql(files, question, generation)
            started = time.perf_counter()
            rows = connection.execute(query).fetchnumpy()["id"]
            results.append(Scanned(rows.tolist(), time.perf_counter() - started))
    return results


def _sql(files: Sequence[Path], question: Question, generation: int) -> str:
    """The text of all tags is searched: of 2017 it is the JSON of them, as it stands."""
    names = ", ".join(f"'{path}'" for path in files)
    columns = {"id": "UINTEGER", "tag_string" if generation == 2021 else "tags": "VARCHAR"}
    if question.rating:
        columns["rating"] = "VARCHAR"
    if question.best or question.least_score is not None:
        columns["score"] = "INTEGER"
    listed = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    where = question.where(*(_TESTS_2021 if generation == 2021 else _TESTS_2017))
    order = f"score DESC, id DESC LIMIT {question.best}" if question.best else "id DESC"
    source = f"read_json([{names}], format='newline_delimited', columns={{{listed}}})"
    return f"SELECT id FROM {source} WHERE {where} ORDER BY {order}"  # noqa: S608 (own words)


_TESTS_2021 = (
    lambda tag: f"contains(' ' || tag_string || ' ', ' {tag} ')",
    lambda prefix: f"contains(' ' || tag_string, ' {prefix}')",
)
_TESTS_2017 = (
    lambda tag: f"""contains(tags, '"name":"{tag}",')""",
    lambda prefix: f"""contains(tags, '"name":"{prefix}')""",
)
