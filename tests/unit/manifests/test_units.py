"""Sizes, rates, durations and percentages, read and written."""

from __future__ import annotations

import pytest

from manifests import units
from manifests.errors import ConfigError, ExitCode


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        ("300k", 300_000),
        ("300KB", 300_000),
        ("1.5G", 1_500_000_000),
        (" 2 MB ", 2_000_000),
        ("3T", 3 * 10**12),
        ("1Ki", 1024),
        ("4MiB", 4 * 2**20),
        ("1GiB", 2**30),
        ("2tib", 2 * 2**40),
    ],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["2MB/s", "2M", " 2M/s "])
def test_rates(text: str) -> None:
    assert units.parse_rate(text) == 2_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7200),
        ("0.5h", 1800),
        ("30d", 30 * 86400),
        ("2w", 14 * 86400),
        ("5y", 5 * 365 * 86400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "fraction"), [("0", 0.0), ("5%", 0.05), ("5", 0.05), (" 12.5 % ", 0.125), ("100%", 1)]
)
def test_percentages(text: str, fraction: float) -> None:
    assert units.parse_percent(text) == fraction


@pytest.mark.parametrize(
    "text", ["", "B", "x", "-1", "1e3", "1.G", "5 parsec", "4 M iB", "9" * 400]
)
def test_bad_sizes_are_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size") as caught:
        units.parse_size(text)
    assert "4MiB" in caught.value.hint
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("text", ["", "1M1", "3 years", "2mo", "-2h"])
def test_bad_durations_are_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a duration") as caught:
        units.parse_duration(text)
    assert "15m" in caught.value.hint


@pytest.mark.parametrize("text", ["", "%", "-1%", "5 %%", "5s"])
def test_bad_percentages_are_a_usage_error(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a percentage"):
        units.parse_percent(text)


def test_more_than_everything_is_a_usage_error() -> None:
    with pytest.raises(ConfigError, match=r"'100\.5%' is more than 100%"):
        units.parse_percent("100.5%")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (12.4, "12 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (999_999, "1 MB"),
        (-1500, "-1.5 kB"),
        (186_400_000, "186 MB"),
        (2_097_000_000, "2.1 GB"),
        (999_999_999, "1 GB"),
        (4.5e12, "4.50 TB"),
        (1_234.5e12, "1,234.50 TB"),
    ],
)
def test_sizes_are_written_for_people(size_bytes: float, text: str) -> None:
    assert units.format_size(size_bytes) == text


def test_counts_have_thousands() -> None:
    assert units.format_count(4_878_068) == "4,878,068"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.424, "0.42 s"),
        (9.99, "9.99 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86_399, "23 h 59 min"),
        (86_400, "1 d 0 h"),
        (4 * 86_400 + 3 * 3600, "4 d 3 h"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text
