"""Ranges against a model: the bytes themselves, sliced as the standard says."""

from __future__ import annotations

from http import HTTPStatus

from hypothesis import assume, example, given
from hypothesis import strategies as st

from server.hosting.ranges import (
    MAX_OVERLAPS,
    ByteRange,
    RangeRefusedError,
    Reply,
    Representation,
    parse_ranges,
    plan_reply,
)
from tests.support.byteranges import parts_of

BOUNDARY = "0123456789abcdef0123456789abcdef"
contents = st.binary(min_size=1, max_size=64)
# Around the end of small contents, where off-by-one errors live.
numbers = st.integers(0, 70)
specs = st.one_of(
    st.tuples(numbers, numbers)
    .filter(lambda pair: pair[0] <= pair[1])
    .map(lambda p: f"{p[0]}-{p[1]}"),
    numbers.map(lambda first: f"{first}-"),
    numbers.map(lambda count: f"-{count}"),
)


def shown(content: bytes) -> Representation:
    return Representation(
        size_bytes=len(content), etag="e", modified=0, content_type="a/b", cache_control="c"
    )


def answer(content: bytes, header: str) -> tuple[Reply, bytes]:
    """The planned answer, and its body made from the content."""
    found = plan_reply("GET", {"Range": header}, shown(content), BOUNDARY)
    return found, b"".join(
        item if isinstance(item, bytes) else content[item.start : item.stop] for item in found.body
    )


def model(size_bytes: int, spec: str) -> list[int]:
    """The places that one range means, as Python counts them."""
    first, last = spec.split("-")
    places = list(range(size_bytes))
    if not first:
        return places[-int(last) :] if int(last) else []
    return places[int(first) : int(last) + 1 if last else None]


def overlaps(wanted: list[list[int]]) -> int:
    """How many ranges share a byte with one that begins before them (or with them)."""
    ordered = sorted(wanted)
    return sum(
        any(set(ordered[place]) & set(other) for other in ordered[:place])
        for place in range(len(ordered))
    )


@given(contents, st.lists(specs, min_size=1, max_size=6))
@example(b"x", ["0-0", "-1"])
@example(b"0123456789", ["9-9", "0-0", "10-10"])
def test_what_is_sent_is_what_the_ranges_mean(content: bytes, wanted: list[str]) -> None:
    expected = [places for spec in wanted if (places := model(len(content), spec))]
    found, body = answer(content, "bytes=" + ",".join(wanted))
    if found.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        assert not expected or overlaps(expected) > MAX_OVERLAPS
        assert found.headers["Content-Range"] == f"bytes */{len(content)}"
        return
    assert found.status == HTTPStatus.PARTIAL_CONTENT
    assert int(found.headers["Content-Length"]) == len(body) == found.body_bytes
    assert parts_of(found.headers, body) == [
        (places[0], len(content), bytes(content[place] for place in places)) for places in expected
    ]


spans = st.tuples(numbers, st.integers(1, 20)).map(lambda pair: (pair[0], sum(pair)))


@given(st.lists(spans, min_size=1, max_size=8))
def test_only_sets_that_overlap_more_than_once_are_refused(wanted: list[tuple[int, int]]) -> None:
    header = "bytes=" + ",".join(f"{start}-{stop - 1}" for start, stop in wanted)
    try:
        found = parse_ranges(header, 100)
    except RangeRefusedError:
        assert overlaps([list(range(*pair)) for pair in wanted]) > MAX_OVERLAPS
        return
    assert overlaps([list(range(*pair)) for pair in wanted]) <= MAX_OVERLAPS
    assert found == tuple(ByteRange(*pair) for pair in wanted)


@given(st.lists(spans, min_size=1, max_size=8))
def test_no_answer_is_longer_than_twice_the_representation(wanted: list[tuple[int, int]]) -> None:
    header = "bytes=" + ",".join(f"{start}-{stop - 1}" for start, stop in wanted)
    try:
        found = parse_ranges(header, 100) or ()
    except RangeRefusedError:
        assume(False)  # noqa: FBT003
    assert sum(item.size_bytes for item in found) <= 2 * 100


@given(st.text(max_size=40), st.integers(0, 100))
@example("=", 1)
@example("bytes=0-\n", 1)
def test_any_text_is_ranges_nothing_or_refused(text: str, size_bytes: int) -> None:
    for header in (text, f"bytes={text}"):
        try:
            found = parse_ranges(header, size_bytes)
        except RangeRefusedError:
            continue
        assert found is None or all(0 <= r.start < r.stop <= size_bytes for r in found)
