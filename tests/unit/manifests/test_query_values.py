"""Values of metatags about numbers: what each means, and which rows of a column meet it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from manifests.query.masks import mask, ratio_hundredths
from manifests.query.metatags import Kind
from manifests.query.values import NOTHING, Condition, Span, read_condition, read_words

NOW = datetime(2025, 1, 15, 17, 0, 0, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")


def read(kind: Kind, text: str, tz: ZoneInfo | timezone = UTC) -> Condition:
    return read_condition(kind, text, now=NOW, tz=tz)


def span(
    low: float | None, high: float | None, *, low_in: bool = True, high_in: bool = True
) -> Condition:
    return Condition(spans=(Span(low, high, low_in, high_in),))


def unix(*day: int, tz: ZoneInfo | timezone = UTC) -> float:
    return datetime(*day, tzinfo=tz).timestamp()  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("5", Condition(points=(5,))),
        ("-5", Condition(points=(-5,))),
        ("5..9", span(5, 9)),
        ("9..5", span(5, 9)),
        ("9...5", span(5, 9, high_in=False)),
        ("<5", span(None, 5, high_in=False)),
        ("<=5", span(None, 5)),
        ("..5", span(None, 5)),
        (">5", span(5, None, low_in=False)),
        (">=5", span(5, None)),
        ("5..", span(5, None)),
        ("any", Condition(any=True)),
        ("none", Condition(null=True)),
        ("1,5", Condition(points=(1, 5))),
        ("1 5, 7,", Condition(points=(1, 5, 7))),
        ("1,5..7,>100", Condition((1,), (Span(5, 7), Span(100, includes_low=False)))),
        ("none,>5", Condition(spans=(Span(5, includes_low=False),), null=True)),
    ],
)
def test_forms(text: str, condition: Condition) -> None:
    assert read(Kind.INTEGER, text) == condition


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "5.0",
        "5x",
        "ANY",
        "5...",
        "..",
        ">",
        "><5",
        "1,x",
        "1..x",
        ",1",
        "1,any",
        "\u0665",
    ],
)
def test_what_cannot_be_read_is_nothing(text: str) -> None:
    assert read(Kind.INTEGER, text) == NOTHING


@pytest.mark.parametrize(
    ("text", "number"),
    [("+5", 5), ("0x10", 16), ("1_000", 1000), ("010", 8), ("0b11", 3), ("0", 0), ("-0x1f", -31)],
)
def test_integers(text: str, number: int) -> None:
    assert read(Kind.INTEGER, text) == Condition(points=(number,))


@pytest.mark.parametrize("text", ["08", "1__0", "_1", "9" * 5000, "0x", "1e3"])
def test_no_integers(text: str) -> None:
    assert read(Kind.INTEGER, text) == NOTHING


@pytest.mark.parametrize("text", [".1675", "+0.1675", "1675e-4", "0.16_75"])
def test_floats_are_about(text: str) -> None:
    (found,) = read(Kind.FLOAT, text).spans
    assert (found.low, found.high) == pytest.approx((0.159125, 0.175875))


@pytest.mark.parametrize("text", ["1.", "nan", "inf", "1e999", "0x1", "", "."])
def test_no_floats(text: str) -> None:
    assert read(Kind.FLOAT, text) == NOTHING


@pytest.mark.parametrize(
    ("text", "hundredths"),
    [("1.49", 149), (".149e1", 149), ("149:100", 149), ("4/3", 133), ("1.125", 113), ("2/3", 67)],
)
def test_ratios(text: str, hundredths: int) -> None:
    assert read(Kind.RATIO, text) == Condition(points=(hundredths,))


@pytest.mark.parametrize("text", ["1:0", "1/0", "-149/-100", "1:2:3", "1:2/3", ":", "1e308"])
def test_no_ratios(text: str) -> None:
    assert read(Kind.RATIO, text) == NOTHING


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("1048576", Condition(points=(1048576,))),
        ("1048576B", Condition(points=(1048576,))),
        ("1kb,2kb", Condition(points=(1024, 2048))),
        (">1.5m", span(1.5 * 2**20, None, low_in=False)),
        ("1k..2K", span(1024, 2048)),
        ("1gb", NOTHING),
        ("9" * 400, NOTHING),
    ],
)
def test_sizes(text: str, condition: Condition) -> None:
    assert read(Kind.FILESIZE, text) == condition


@pytest.mark.parametrize("text", ["1mb", "1M", "1024k", "1.mb"])
def test_sizes_with_a_suffix_are_about(text: str) -> None:
    (found,) = read(Kind.FILESIZE, text).spans
    assert (found.low, found.high) == pytest.approx((996147.2, 1101004.8))


DAYS = [
    "2017-05-15",
    "2017/5/15",
    "2017.05.15",
    "15-5-2017",
    "15/05/2017",
    "15.5.2017",
    "20170515",
]


@pytest.mark.parametrize("text", DAYS)
def test_a_date_is_a_day_where_the_user_is(text: str) -> None:
    start, end = unix(2017, 5, 15, tz=NEW_YORK), unix(2017, 5, 16, tz=NEW_YORK)
    assert read(Kind.DATE, text, NEW_YORK) == span(start, end, high_in=False)


def test_days_are_as_long_as_the_clocks_say() -> None:
    (short,) = read(Kind.DATE, "2025-03-09", NEW_YORK).spans
    assert (short.low, short.high) == (1741496400, 1741496400 + 23 * 3600)


@pytest.mark.parametrize(
    ("text", "first", "after"),
    [
        ("2017-05", (2017, 5, 1), (2017, 6, 1)),
        ("2016.12", (2016, 12, 1), (2017, 1, 1)),
        ("2016", (2016, 1, 1), (2017, 1, 1)),
        ("2017", (2017, 1, 1), (2018, 1, 1)),
    ],
)
def test_a_part_of_a_date_is_all_of_it(
    text: str, first: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert read(Kind.DATE, text) == span(unix(*first), unix(*after), high_in=False)


def test_dates_are_compared_by_their_first_moment() -> None:
    day, later = unix(2017, 5, 15), unix(2017, 5, 20)
    assert read(Kind.DATE, ">2017-05-15") == span(day, None, low_in=False)
    assert read(Kind.DATE, "2017-05-20..15-5-2017") == span(day, later)
    assert read(Kind.DATE, "2017-05-15,2017-05-20") == Condition(points=(day, later))


@pytest.mark.parametrize(
    "text",
    [
        "2021-13-01",
        "2021-01-32",
        "01-32-2021",
        "2017-05/15",
        "0000-01-01",
        "9999-12-31",
        "9999",
        "5",
    ],
)
def test_no_dates(text: str) -> None:
    assert read(Kind.DATE, text) == NOTHING


def test_ages_count_backwards_from_now() -> None:
    now = NOW.timestamp()
    assert read(Kind.AGE, "<1w") == span(now - 7 * 86400, None, low_in=False)
    assert read(Kind.AGE, ">=1h30m") == span(None, now - 5400)
    assert read(Kind.AGE, "1min..0s") == span(now - 60, now)
    assert read(Kind.AGE, "1d...2d") == span(now - 2 * 86400, now - 86400, low_in=False)
    assert read(Kind.AGE, "60,90s") == Condition(points=(now - 60, now - 90))
    assert read(Kind.AGE, "none") == Condition(null=True)


def test_an_age_alone_is_the_day_that_has_it() -> None:
    # 17:00 UTC is noon in New York; a week before, the day began at 5:00 UTC.
    start = unix(2025, 1, 8, 5)
    assert read(Kind.AGE, "1w", NEW_YORK) == span(start, start + 86400, high_in=False)
    far_east = timezone(timedelta(hours=14))
    assert read(Kind.AGE, "0s", far_east) == span(
        unix(2025, 1, 15, 10), unix(2025, 1, 16, 10), high_in=False
    )


@pytest.mark.parametrize("text", ["1:30", "foo", "-1d", "99999y", "9" * 400 + "y"])
def test_no_ages(text: str) -> None:
    assert read(Kind.AGE, text) == NOTHING


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2mo", 2 * 2629800), ("1yr2wk", 31557600 + 1209600), ("1.5 hours 2sec", 5402), ("1MIN", 60)],
)
def test_units(text: str, seconds: float) -> None:
    found = read(Kind.DURATION, f">{text.replace(' ', '')}")
    assert found == span(seconds, None, low_in=False)


@pytest.mark.parametrize("text", ["", ">", "1:2:3:4", "1:", ":5", ">1:60:00"])
def test_no_durations(text: str) -> None:
    assert read(Kind.DURATION, text) == NOTHING
    assert read(Kind.AGE, text) == NOTHING


def test_words() -> None:
    assert read_words("PNG, jpg,") == ("png", "jpg")


def test_kinds_without_numbers_have_no_conditions() -> None:
    assert read(Kind.TEXT, "5") == NOTHING


COLUMN = np.array([0, 40, 42, 50, 2**32 - 1], np.uint32)
NULL = COLUMN == 0


@pytest.mark.parametrize(
    ("text", "met", "others"),
    [
        ("42", [42], [0, 40, 50, 2**32 - 1]),
        ("40,42,99999999999999999999", [40, 42], [0, 50, 2**32 - 1]),
        (">=42", [42, 50, 2**32 - 1], [40]),
        ("<42", [40], [42, 50, 2**32 - 1]),
        (">40,<50", [40, 42, 50, 2**32 - 1], []),
        ("41...50", [42], [40, 50, 2**32 - 1]),
        ("42,>50", [42, 2**32 - 1], [40, 50]),
        ("any", [40, 42, 50, 2**32 - 1], [0]),
        ("none", [0], [40, 42, 50, 2**32 - 1]),
        ("none,>42", [0, 50, 2**32 - 1], [40, 42]),
        ("any,>42", [40, 42, 50, 2**32 - 1], []),
        ("x", [], [0, 40, 42, 50, 2**32 - 1]),
    ],
)
def test_rows_that_meet_a_condition_or_its_negation(
    text: str, met: list[int], others: list[int]
) -> None:
    condition = read(Kind.INTEGER, text)
    assert COLUMN[mask(condition, COLUMN, NULL)].tolist() == met
    assert COLUMN[mask(condition, COLUMN, NULL, negated=True)].tolist() == others


def test_a_column_without_nulls() -> None:
    condition = read(Kind.INTEGER, "<42")
    assert COLUMN[mask(condition, COLUMN, negated=True)].tolist() == [42, 50, 2**32 - 1]


def test_large_numbers_are_compared_exactly() -> None:
    column = np.array([2**53, 2**53 + 1], np.uint64)
    assert mask(read(Kind.INTEGER, f"{2**53 + 1}"), column).tolist() == [False, True]
    assert mask(read(Kind.INTEGER, f">{2**53}"), column).tolist() == [False, True]
    assert mask(read(Kind.INTEGER, "<-1"), column).tolist() == [False, False]


def test_floats_are_compared() -> None:
    column = np.array([0.4, 0.5, 0.6])
    assert mask(read(Kind.FLOAT, "0.5,0.6"), column).tolist() == [False, True, True]
    assert mask(read(Kind.FLOAT, ">0.4"), column).tolist() == [False, True, True]


def test_a_size_of_no_whole_bytes_is_no_files_size() -> None:
    column = np.array([1, 2], np.uint64)
    assert not mask(read(Kind.FILESIZE, "1.5"), column).any()


def test_digests() -> None:
    first, second = bytes(range(16)), bytes(range(16, 32))
    found = read(Kind.MD5, f"{first.hex().upper()},{second.hex()}")
    assert set(found.points) == {first, second}
    assert read(Kind.MD5, f">{first.hex()}") == read(Kind.MD5, first.hex()[1:]) == NOTHING


def test_ratios_of_columns_are_rounded_half_up() -> None:
    width, height = np.array([1490, 9, 2, 7], np.uint32), np.array([1000, 8, 3, 0], np.uint32)
    assert ratio_hundredths(width, height).tolist() == [149, 113, 67, 0]
