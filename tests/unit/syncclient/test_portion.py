"""When what came is handed to the disk."""

from __future__ import annotations

import pytest

from syncclient.portion import Portion

MIB = 2**20


@pytest.mark.parametrize(
    ("items", "now_s", "enough"),
    [
        ([], 100.0, False),
        ([(1, 8 * MIB - 1, 5.0)], 5.0, False),
        ([(1, 8 * MIB, 5.0)], 5.0, True),
        ([(1, 4 * MIB, 5.0), (1, 4 * MIB, 5.0)], 5.0, True),
        ([(127, 0, 5.0)], 5.0, False),
        ([(100, 0, 5.0), (28, 0, 5.0)], 5.0, True),
        # It is the first that waits.
        ([(1, 1, 5.0), (1, 1, 5.0625)], 5.0625, False),
        ([(1, 1, 5.0), (1, 1, 5.0625)], 5.125, True),
    ],
)
def test_enough_is_many_bytes_or_files_or_some_time(
    items: list[tuple[int, int, float]], now_s: float, *, enough: bool
) -> None:
    portion = Portion[int]()
    for number, item in enumerate(items):
        portion.add(number, *item)
    assert portion.is_enough(now_s) == enough


def test_what_was_taken_counts_no_more() -> None:
    portion = Portion[str]()
    portion.add("first", 128, 8 * MIB, 1.0)
    assert portion.take() == ["first"]
    assert not portion.is_enough(9.0)
    portion.add("second", 1, 1, 9.0)
    assert not portion.is_enough(9.0)
    assert portion.take() == ["second"]
    assert portion.take() == []
