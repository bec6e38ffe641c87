"""The record of served files: the rows of each bucket, and of no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from server.record import HARD, STAT_ROW, ServedRecord, write_served


@pytest.mark.parametrize("buckets", [[], [3], [0, 0, 2, 2, 2, 7], [5, 5], [2**32 - 1]])
def test_a_bucket_has_its_own_rows(tmp_path: Path, buckets: list[int]) -> None:
    rows = np.zeros(len(buckets), STAT_ROW)
    rows["bucket"], rows["id"] = buckets, range(len(buckets))
    write_served(tmp_path, "y1", links=HARD, tree=tmp_path, stats={"original": rows})
    record = ServedRecord(tmp_path)
    assert record.buckets("y1", "original") == sorted(set(buckets))
    for bucket in (*buckets, 1, 9):
        found = record.expected("y1", "original", bucket)
        assert found is not None
        assert found["id"].tolist() == [n for n, own in enumerate(buckets) if own == bucket]
