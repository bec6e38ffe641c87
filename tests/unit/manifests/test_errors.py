"""Errors of a task group: the first of ours in place of the group, others as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import StoreError, TransferError, first_of_group
from tests.support.imports import PACKAGES, imports_by_file

ROOT = Path(__file__).parents[3]


def test_the_first_of_ours_is_raised_bare() -> None:
    first = TransferError("first")
    group = ExceptionGroup("", [ExceptionGroup("", [first]), StoreError("second")])
    with pytest.raises(TransferError) as caught, first_of_group():
        raise group
    assert caught.value is first


def test_a_group_with_others_stays_whole() -> None:
    group = ExceptionGroup("", [TransferError("ours"), ValueError("not ours")])
    with pytest.raises(ExceptionGroup) as caught, first_of_group():
        raise group
    assert caught.value is group


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_relies_on_what_python_3_11_2_does_otherwise(package: str) -> None:
    """It wraps in a group again what is raised in ``except*``; later versions do not."""
    for file in imports_by_file(package):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        assert not any(line.lstrip().startswith("except*") for line in lines), file
