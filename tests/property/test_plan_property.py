"""Plans against a slow reading of the rules, file by file, for buckets of any kind."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tests.support.buckets import Plan, S, There, plan_of, to_record, to_view

BYTES = st.sampled_from([b"", b"a", b"b", b"c", b"aa", b"bb"])
TIMES = st.sampled_from([0, 10 * S, 20 * S])


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Everything that can be said of one bucket."""

    wanted: dict[str, bytes]
    past: list[dict[str, bytes]]
    absent: set[str]
    there: dict[str, There]
    remembered: dict[str, There]

    def plan(self) -> Plan:
        return plan_of(
            to_view(self.wanted, self.past, self.absent), self.there, to_record(self.remembered)
        )

    def known(self, name: str) -> bytes | None:
        """The bytes that are believed of a file without a look at it."""
        now, then = self.there[name], self.remembered.get(name)
        if then is None or (len(then.data), then.mtime_ns) != (len(now.data), now.mtime_ns):
            return None
        return then.data

    def ours(self, name: str) -> bool:
        """Rule 4: our record holds, or the bytes are those of any layer at that path."""
        history = [self.wanted, *self.past]
        return self.known(name) is not None or any(
            layer.get(name) == self.there[name].data for layer in history
        )

    def right(self, name: str) -> bool:
        known = self.known(name) if name in self.there else None
        found = known if known is not None else getattr(self.there.get(name), "data", None)
        return name in self.wanted and found == self.wanted[name]


@st.composite
def layers(draw: st.DrawFn) -> dict[str, bytes]:
    """A layer, where an id has one name."""
    ids = draw(st.sets(st.integers(1, 6), max_size=6))
    return {f"{n}.{draw(st.sampled_from(['jpg', 'png', 'gif']))}": draw(BYTES) for n in ids}


@st.composite
def folders(draw: st.DrawFn) -> dict[str, There]:
    """Files on disk, where an id may have several names."""
    names = st.builds("{}.{}".format, st.integers(1, 7), st.sampled_from(["jpg", "png"]))
    found = draw(st.dictionaries(names, st.tuples(BYTES, TIMES), max_size=8))
    return {name: There(data=data, mtime_ns=mtime) for name, (data, mtime) in found.items()}


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    wanted = draw(layers())
    return Bucket(
        wanted=wanted,
        past=draw(st.lists(layers(), max_size=2)),
        absent=draw(st.sets(st.sampled_from(sorted(wanted)))) if wanted else set(),
        there=draw(folders()),
        remembered=draw(folders()),
    )


@given(buckets())
def test_every_file_has_its_place_in_the_plan(bucket: Bucket) -> None:
    plan, wanted, there = bucket.plan(), bucket.wanted.keys(), bucket.there.keys()
    right = {name for name in wanted if bucket.right(name)}
    lost = bucket.absent - right
    needed = wanted - right - lost
    assert plan.keep == right
    assert plan.unavailable == lost
    assert plan.add == needed - there
    assert plan.change == {name for name in needed & there if bucket.ours(name)}
    assert plan.foreign == {name for name in needed & there if not bucket.ours(name)}
    assert plan.remove == {name for name in there - wanted if bucket.ours(name)}
    assert plan.extra == {name for name in there - wanted if not bucket.ours(name)}


@given(buckets())
def test_only_what_must_be_read_is_read(bucket: Bucket) -> None:
    sizes = {
        (name, len(data))
        for layer in [bucket.wanted, *bucket.past]
        for name, data in layer.items()
    }
    assert bucket.plan().read == {
        name
        for name, there in bucket.there.items()
        if bucket.known(name) is None and (name, len(there.data)) in sizes
    }


@given(buckets())
def test_only_our_own_files_may_be_replaced(bucket: Bucket) -> None:
    plan = bucket.plan()
    names = plan.raw.view.wanted.names()
    for row, replaces in zip(plan.raw.fetch.tolist(), plan.raw.replaces, strict=True):
        name = names[row]
        if name in plan.change:
            assert replaces is not None
            assert replaces.mtime_ns == bucket.there[name].mtime_ns
        elif name in plan.add | plan.foreign:
            assert replaces is None
