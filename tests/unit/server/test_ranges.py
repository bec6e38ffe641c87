"""What the standard says about conditions and ranges, as tables."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from server.hosting.ranges import (
    MAX_RANGES,
    ByteRange,
    RangeRefusedError,
    Reply,
    Representation,
    parse_ranges,
    plan_reply,
)

SHOWN = Representation(
    size_bytes=10,
    etag="abc",
    modified=1_640_995_200,
    content_type="image/png",
    cache_control="no-cache",
)
DATE = "Sat, 01 Jan 2022 00:00:00 GMT"
EARLIER = "Fri, 31 Dec 2021 23:59:59 GMT"
LATER = "Sat, 01 Jan 2022 00:00:01 GMT"


def reply(method: str = "GET", **headers: str) -> Reply:
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    return plan_reply(method, named, SHOWN, "BOUNDARY")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-9", [(0, 10)]),
        ("bytes=0-10", [(0, 10)]),
        ("bytes=9-", [(9, 10)]),
        ("bytes=-1", [(9, 10)]),
        ("bytes=-10", [(0, 10)]),
        ("bytes=-11", [(0, 10)]),
        ("bytes=3-3,-2", [(3, 4), (8, 10)]),
        ("bytes=8-9,0-1", [(8, 10), (0, 2)]),
        ("bytes=0-1,10-20", [(0, 2)]),
        ("bytes=, ,0-1 ,\t2-3,", [(0, 2), (2, 4)]),
        ("BYTES=1-2", [(1, 3)]),
        ("bytes=0-5,3-7", [(0, 6), (3, 8)]),
        ("bytes=0-18446744073709551615", [(0, 10)]),
        ("bytes=00000000000000000000001-2", [(1, 3)]),
    ],
)
def test_ranges_are_cut_to_what_is_there(header: str, expected: list[tuple[int, int]]) -> None:
    assert parse_ranges(header, 10) == tuple(ByteRange(*pair) for pair in expected)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=10-",
        "bytes=10-20",
        "bytes=-0",
        "bytes=",
        "bytes=,",
        "bytes=5-4",
        "bytes=0-1,5-4",
        "bytes=a-b",
        "bytes=1",
        "bytes=-",
        "bytes=--1",
        "bytes= 0-1 -",
        "bytes=0-1;2-3",
        "bytes=+0-1",
        "bytes=\u0661-2",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-9,0-9,0-9",
        "bytes=" + ",".join(f"{start}-{start}" for start in range(MAX_RANGES + 1)),
    ],
)
def test_sets_that_name_nothing_or_too_much_are_refused(header: str) -> None:
    with pytest.raises(RangeRefusedError):
        parse_ranges(header, 10)


def test_as_many_ranges_as_allowed_are_served() -> None:
    header = "bytes=" + ",".join(f"{start}-{start}" for start in range(MAX_RANGES))
    assert len(parse_ranges(header, MAX_RANGES) or ()) == MAX_RANGES


@pytest.mark.parametrize("header", ["items=0-1", "bytes", "", "bytes 0-1"])
def test_other_units_are_ignored(header: str) -> None:
    assert parse_ranges(header, 10) is None
    assert reply(range=header).status == HTTPStatus.OK


def test_nothing_of_an_empty_representation_can_be_asked_for() -> None:
    with pytest.raises(RangeRefusedError):
        parse_ranges("bytes=-1", 0)


def test_a_whole_answer_has_length_and_validators() -> None:
    assert reply() == Reply(
        status=HTTPStatus.OK,
        headers={
            "ETag": '"abc"',
            "Cache-Control": "no-cache",
            "Accept-Ranges": "bytes",
            "Last-Modified": DATE,
            "Content-Type": "image/png",
            "Content-Length": "10",
        },
        body=(ByteRange(0, 10),),
        body_bytes=10,
    )


def test_a_single_range_is_no_multipart() -> None:
    found = reply(range="bytes=2-4,99-")
    assert found.status == HTTPStatus.PARTIAL_CONTENT
    assert found.headers["Content-Range"] == "bytes 2-4/10"
    assert found.headers["Content-Length"] == "3"
    assert found.headers["Content-Type"] == "image/png"
    assert found.body == (ByteRange(2, 5),)


def test_several_ranges_are_framed_to_the_byte() -> None:
    found = reply(range="bytes=0-1,-1")
    expected = [
        b"--BOUNDARY\r\nContent-Type: image/png\r\nContent-Range: bytes 0-1/10\r\n\r\n",
        ByteRange(0, 2),
        b"\r\n--BOUNDARY\r\nContent-Type: image/png\r\nContent-Range: bytes 9-9/10\r\n\r\n",
        ByteRange(9, 10),
        b"\r\n--BOUNDARY--\r\n",
    ]
    assert list(found.body) == expected
    literal = sum(len(item) for item in expected if isinstance(item, bytes))
    assert found.headers["Content-Length"] == str(literal + 3) == str(found.body_bytes)
    assert found.headers["Content-Type"] == "multipart/byteranges; boundary=BOUNDARY"
    assert "Content-Range" not in found.headers


def test_an_unsatisfiable_range_says_how_long_the_whole_is() -> None:
    found = reply(range="bytes=10-")
    assert found.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    assert found.headers["Content-Range"] == "bytes */10"
    assert found.headers["Content-Length"] == "0"
    assert found.body == ()


def test_ranges_are_defined_for_get_alone() -> None:
    assert reply("HEAD", range="bytes=0-1") == reply()
    assert reply("HEAD", range="bytes=10-") == reply()


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        ('"abc"', True),
        (' "abc" ', True),
        ('"abd"', False),
        ('W/"abc"', False),
        ('"abc", "abd"', False),
        ("*", False),
        ("abc", False),
        (DATE, True),
        (EARLIER, False),
        (LATER, False),
        ("Saturday, 01-Jan-22 00:00:00 GMT", True),
        ("Sat Jan  1 00:00:00 2022", True),
        ("no date", False),
        ("", False),
    ],
)
def test_if_range_must_name_what_is_served_now(if_range: str, applies: bool) -> None:  # noqa: FBT001
    status = HTTPStatus.PARTIAL_CONTENT if applies else HTTPStatus.OK
    assert reply(range="bytes=0-1", if_range=if_range).status == status


def test_a_date_that_cannot_be_relied_on_matches_no_if_range() -> None:
    shown = Representation(
        size_bytes=10, etag="abc", modified=None, content_type="a/b", cache_control="no-cache"
    )
    headers = {"Range": "bytes=0-1", "If-Range": DATE, "If-Modified-Since": LATER}
    found = plan_reply("GET", headers, shown, "BOUNDARY")
    assert found.status == HTTPStatus.OK
    assert "Last-Modified" not in found.headers


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"if_none_match": '"abc"'}, 304),
        ({"if_none_match": 'W/"abc"'}, 304),
        ({"if_none_match": '"x", "abc"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": "abc"}, 200),
        ({"if_none_match": '"x"', "if_modified_since": LATER}, 200),
        ({"if_modified_since": DATE}, 304),
        ({"if_modified_since": LATER}, 304),
        ({"if_modified_since": EARLIER}, 200),
        ({"if_modified_since": "no date"}, 200),
        ({"if_match": '"abc"'}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": 'W/"abc"'}, 412),
        ({"if_match": '"x"'}, 412),
        ({"if_match": '"abc"', "if_unmodified_since": EARLIER}, 200),
        ({"if_unmodified_since": EARLIER}, 412),
        ({"if_unmodified_since": DATE}, 200),
        ({"if_unmodified_since": "no date"}, 200),
        ({"if_match": '"x"', "if_none_match": '"abc"'}, 412),
        ({"if_none_match": '"abc"', "range": "bytes=99-"}, 304),
        ({"if_modified_since": "Sat, 01 Jan 99999999999 00:00:00 GMT"}, 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_come_before_ranges(method: str, headers: dict[str, str], status: int) -> None:
    found = reply(method, **headers)
    assert found.status == status
    assert ("Content-Length" in found.headers) == (status != HTTPStatus.NOT_MODIFIED)
    assert bool(found.body) == (status == HTTPStatus.OK)
    assert found.headers["ETag"] == '"abc"'
