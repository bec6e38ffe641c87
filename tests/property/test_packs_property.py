"""Range arithmetic, against the bytes themselves."""

from __future__ import annotations

from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from manifests.packs import runs

SIZES = st.lists(st.sampled_from([0, 1, 2, 3, 7, 20]), max_size=12)


def make_files(sizes: list[int]) -> list[bytes]:
    """Files of which no two bytes that could be confused are equal."""
    stream = iter(range(256))
    return [bytes(next(stream) for _ in range(size)) for size in sizes]


def starts_of(files: list[bytes]) -> list[int]:
    return list(accumulate(map(len, files), initial=0))


@given(
    sizes=SIZES,
    data=st.data(),
    gap_bytes=st.integers(0, 8),
    max_bytes=st.integers(1, 60),
)
def test_runs_bring_every_wanted_byte_once(
    sizes: list[int], data: st.DataObject, gap_bytes: int, max_bytes: int
) -> None:
    files = make_files(sizes)
    pack, starts = b"".join(files), starts_of(files)
    wanted = sorted(data.draw(st.sets(st.sampled_from(range(len(files)))))) if files else []
    offsets = [starts[row] for row in wanted]
    lengths = [len(files[row]) for row in wanted]
    found = runs(offsets, lengths, gap_bytes=gap_bytes, max_bytes=max_bytes)
    got = []
    for run in found:
        body = pack[run.start : run.stop]
        assert len(body) == run.stop - run.start
        for row in range(run.first, run.last):
            begin = offsets[row] - run.start
            got.append(body[begin : begin + lengths[row]])
        end = offsets[run.last - 1] + lengths[run.last - 1]
        assert end - run.start <= max_bytes or run.last == run.first + 1
    assert got == [files[row] for row in wanted]
    assert [run.first for run in found[1:]] == [run.last for run in found[:-1]]
    for one, two in pairwise(found):
        # They adjoin, or there is a gap before the second one's first file.
        end = offsets[one.last - 1] + lengths[one.last - 1]
        assert one.stop == (two.start if two.start - end <= gap_bytes else end)


@given(sizes=SIZES, data=st.data(), gap_bytes=st.integers(0, 8))
def test_runs_are_joined_exactly_where_gaps_are_small(
    sizes: list[int], data: st.DataObject, gap_bytes: int
) -> None:
    starts = starts_of(make_files(sizes))
    wanted = sorted(data.draw(st.sets(st.sampled_from(range(len(sizes)))))) if sizes else []
    offsets = [starts[row] for row in wanted]
    lengths = [sizes[row] for row in wanted]
    found = runs(offsets, lengths, gap_bytes=gap_bytes, max_bytes=10**6)
    for one, two in pairwise(found):
        assert two.start - one.stop > gap_bytes
    for run in found:
        for row in range(run.first, run.last - 1):
            assert offsets[row + 1] - (offsets[row] + lengths[row]) <= gap_bytes
