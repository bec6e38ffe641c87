"""The benchmark of tags answers its questions, and a scan of the same lines agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.tag_posts import Shape, make, shards
from tests.bench.tag_queries import answer, publish
from tests.bench.tag_scans import questions, scan_with_python


@pytest.mark.parametrize("generation", [2021, 2017])
def test_the_index_answers_as_a_scan_of_the_lines_does(tmp_path: Path, generation: int) -> None:
    shape = Shape(posts=2000, tags=200, generation=generation)
    metadata = tmp_path / "metadata"
    assert make(metadata, shape)
    assert not make(metadata, shape)
    built = publish(tmp_path, metadata)
    asked = questions(shape)
    answers = [answer(tmp_path / "repo", built.descriptor, one.text).ids for one in asked]
    assert answers == [
        found.ids for found in scan_with_python(shards(metadata), asked, generation)
    ]
    assert all(answers)
    assert 30 < built.instances / built.posts < 34
