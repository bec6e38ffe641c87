"""Notices: which entries no host has any more."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest

from manifests import codec, notices
from manifests.columns import U32
from manifests.errors import ManifestError
from manifests.notices import Absence, Notices


def ids(*numbers: int) -> U32:
    return np.array(numbers, np.uint32)


def absence(layer: str, variant: str, reason: str, *numbers: int) -> Absence:
    return Absence(layer=layer, variant=variant, ids=ids(*numbers), reason=reason)


OVERWRITTEN = "the publisher overwrote them"
LOST = Notices(
    absences=(
        absence("y2021", "original", OVERWRITTEN, 3, 5),
        absence("y2020", "original", OVERWRITTEN, 1, 2**32 - 1),
        absence("y2020", "original", "lost disk", 1, 4),
        absence("y2020", "512px", OVERWRITTEN, 9),
    )
)


def document() -> dict[str, Any]:
    value: dict[str, Any] = msgpack.unpackb(LOST.encode())
    return value


def test_round_trip_in_order() -> None:
    read = Notices.decode(LOST.encode())
    assert [(*a.order, a.ids.tolist()) for a in read.absences] == [
        ("y2020", "512px", OVERWRITTEN, [9]),
        ("y2020", "original", "lost disk", [1, 4]),
        ("y2020", "original", OVERWRITTEN, [1, 2**32 - 1]),
        ("y2021", "original", OVERWRITTEN, [3, 5]),
    ]
    assert read.encode() == LOST.encode()
    assert document()["absences"][3] == {
        "layer": "y2021",
        "variant": "original",
        "reason": OVERWRITTEN,
        "count": 2,
        "ids": b"\x03\0\0\0\x05\0\0\0",
    }


def test_no_notices() -> None:
    assert Notices.decode(Notices().encode()).absences == ()
    assert Notices().absent_ids("y2020", "original").tolist() == []


def test_absent_ids_of_all_reasons_each_once() -> None:
    assert LOST.absent_ids("y2020", "original").tolist() == [1, 4, 2**32 - 1]
    assert LOST.absent_ids("y2021", "original").tolist() == [3, 5]
    assert LOST.absent_ids("y2021", "512px").tolist() == []


@pytest.mark.parametrize(
    ("index", "change", "where", "problem"),
    [
        (1, {"layer": "a/b"}, "[1].layer", "is not a layer name"),
        (1, {"variant": "metadata"}, "[1].variant", "folder of the metadata"),
        (1, {"variant": ".."}, "[1].variant", "is not a variant name"),
        (1, {"reason": "x" * 1025}, "[1].reason", "longer than 1024"),
        (1, {"reason": None}, "[1].reason", "expected text"),
        (1, {"count": 3}, "[1].ids", "expected 12 bytes, got 8"),
        (1, {"count": 2**32}, "[1].count", "expected 0 to 4294967295"),
        (1, {"ids": bytes(8)}, "[1].ids", "positive, unique and ascending"),
        (1, {"ids": bytes(4) + b"\x01\0\0\0"}, "[1].ids", "positive, unique and ascending"),
        (1, {"ids": b"\x02\0\0\0\x01\0\0\0"}, "[1].ids", "positive, unique and ascending"),
        (1, {"ids": b"\x02\0\0\0\x02\0\0\0"}, "[1].ids", "positive, unique and ascending"),
        (1, {"layer": "y2022"}, "[2]", "not after the one before"),
        (2, {"reason": "lost disk"}, "[2]", "not after the one before"),
        (0, {"variant": "thumbs"}, "[1]", "not after the one before"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_place(
    index: int, change: dict[str, Any], where: str, problem: str
) -> None:
    value = document()
    value["absences"][index].update(change)
    with pytest.raises(ManifestError) as caught:
        Notices.decode(codec.encode(value))
    assert caught.value.where == f"notices.absences{where}"
    assert problem in caught.value.problem


def test_an_absence_may_be_empty() -> None:
    empty = Notices(absences=(absence("y2020", "original", "none"),))
    assert Notices.decode(empty.encode()).absences[0].ids.tolist() == []


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ManifestError, match="more than the limit of 67108864"):
        Notices.decode(bytes(notices.MAX_NOTICES_BYTES + 1))
    monkeypatch.setattr(notices, "_MAX_ABSENCES", 3)
    with pytest.raises(ManifestError, match=r"notices\.absences: more than 3 items"):
        Notices.decode(LOST.encode())
