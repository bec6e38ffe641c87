"""Any bytes give a value or a located ManifestError: nothing else, whoever made them.

Digests are made to match whatever was drawn, so that the bytes get past the first gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgpack
from hypothesis import example, given
from hypothesis import strategies as st

from manifests import codec, manifest
from manifests.columns import Entries
from manifests.errors import ManifestError
from manifests.manifest import Header, Removed
from manifests.model import MAX_FILE_BYTES, Descriptor
from manifests.notices import Notices
from manifests.paths import MAX_ID
from tests.support.forgery import BUCKETS, Forged, Forgery, Frame, by_bucket, compress

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=5)
    | st.binary(max_size=40),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
REF = {
    "digest": bytes(32),
    "size": 900,
    "header_digest": bytes(32),
    "header_size": 90,
    "entries": 9,
    "bytes": 99,
    "removed": 0,
}
DESCRIPTOR = {
    "format": 1,
    "dataset": "skies",
    "release": "y2",
    "base": "y1",
    "created": 2,
    "buckets": 10,
    "digits": 2,
    "layers": [
        {"name": "y1", "date": 1, "manifests": {"a": REF}},
        {"name": "y2", "date": 2, "manifests": {"a": REF, "b": REF}},
    ],
    "variants": {"a": {"files": 18, "bytes": 99}, "b": {"files": 9, "bytes": 99}},
    "assets": [
        {"path": "README.md", "size": 1, "digest": bytes(32)},
        {"path": "docs/x", "size": 1, "digest": bytes(32)},
    ],
}
NOTICES = {
    "format": 1,
    "absences": [
        {"layer": "y1", "variant": "a", "reason": "", "count": 1, "ids": b"\1\0\0\0"},
        {"layer": "y2", "variant": "a", "reason": "", "count": 1, "ids": b"\1\0\0\0"},
    ],
}


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:  # noqa: ANN401
    """The path of everything inside a document."""
    members = len(value) if isinstance(value, list) else 0
    keys = value if isinstance(value, dict) else range(members)
    for key in keys:
        yield (*path, key)
        yield from places(value[key], (*path, key))


def place_of_error(decode: Callable[[bytes], object], data: bytes) -> str:
    """Where a decoder finds fault; empty if it does not."""
    try:
        decode(data)
    except ManifestError as error:
        return error.where
    return ""


def spoiled(document: dict[str, Any], path: tuple[str | int, ...], value: object) -> bytes:
    """The document with one value exchanged, as canonical bytes."""
    copy = msgpack.unpackb(codec.encode(document))
    at = copy
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return codec.encode(copy)


@given(data=st.binary(max_size=200))
@example(data=codec.encode(DESCRIPTOR))
@example(data=codec.encode(NOTICES))
def test_any_bytes_as_a_document(data: bytes) -> None:
    with suppress(ManifestError):
        assert Descriptor.decode(data).encode() == data
    with suppress(ManifestError):
        assert Notices.decode(data).encode() == data


@given(path=st.sampled_from(list(places(DESCRIPTOR))), value=VALUES)
def test_any_value_in_a_descriptor(path: tuple[str | int, ...], value: object) -> None:
    place = place_of_error(Descriptor.decode, spoiled(DESCRIPTOR, path, value))
    assert place.startswith(f"descriptor.{path[0]}") or place in {
        "",
        "descriptor.layers",
        "descriptor.variants",
        "descriptor.variants.a.files",
        "descriptor.variants.b.files",
        "descriptor.digits",
    }


@given(path=st.sampled_from(list(places(NOTICES))), value=VALUES)
def test_any_value_in_notices(path: tuple[str | int, ...], value: object) -> None:
    place = place_of_error(Notices.decode, spoiled(NOTICES, path, value))
    assert not place or place.startswith(f"notices.{path[0]}")


def check(entries: Entries, header: Header) -> None:
    """What callers rely on, whatever the bytes were."""
    ids = entries.ids.tolist()
    assert all(1 <= post_id <= MAX_ID for post_id in ids)
    assert ids == by_bucket(set(ids), header.buckets).tolist()
    assert all(code < len(entries.extensions) for code in entries.exts.tolist())
    assert all(size <= MAX_FILE_BYTES for size in entries.sizes.tolist())
    assert entries.file_bytes == sum(header.row_bytes.tolist())
    assert len(entries.chunks) == entries.chunk_starts()[-1]


def check_removed(removed: Removed, header: Header) -> None:
    """The same of the ids that go."""
    ids = removed.ids.tolist()
    assert len(ids) == header.removed_count
    assert ids == by_bucket(set(ids), header.buckets).tolist()
    assert all(code < len(removed.reasons) for code in removed.codes.tolist())


def read_all(forged: Forged) -> bool:
    """Read all that lets itself be read; whether that was everything."""
    try:
        header = manifest.decode_header(forged.header, forged.ref)
    except ManifestError:
        return False
    assert header.size_bytes == forged.ref.size_bytes
    read = 0
    with suppress(ManifestError):
        check(manifest.decode_rows(header, range(len(header)), forged.frames, 0), header)
        read += 1
    with suppress(ManifestError):
        check_removed(manifest.decode_removed(header, forged.tail), header)
        read += 1
    return read == len((check, check_removed))


@given(data=st.binary(max_size=100))
def test_any_bytes_as_a_header(data: bytes) -> None:
    forgery = Forgery()
    read_all(forgery.describe(data))
    read_all(forgery.seal(data, len(data)))
    read_all(forgery.seal(compress(data), len(data)))


@given(key=st.sampled_from(sorted(Forgery().document())), value=VALUES)
def test_any_value_in_a_header(key: str, value: object) -> None:
    read_all(Forgery(fields={key: value}).make())


@given(
    keys=st.sets(st.sampled_from(["bucket", "first", "count", "bytes", "length"]), min_size=1),
    data=st.data(),
)
def test_any_rows(keys: set[str], data: st.DataObject) -> None:
    frames = [Frame(bucket=1), Frame(bucket=2)]
    document = Forgery(frames=frames).document()
    honest = {key: len(document[key]) for key in sorted(keys)}
    fields = {key: data.draw(st.binary(min_size=n, max_size=n)) for key, n in honest.items()}
    read_all(Forgery(frames=frames, fields=fields).make())


@given(raw=st.binary(max_size=200), count=st.integers(1, 4), file_bytes=st.integers(0, 2**40))
def test_any_bytes_inside_a_frame(raw: bytes, count: int, file_bytes: int) -> None:
    read_all(Forgery(frames=[Frame(raw=raw, count=count, file_bytes=file_bytes)]).make())


@given(data=st.binary(max_size=200), count=st.integers(1, 4))
def test_any_bytes_as_a_frame(data: bytes, count: int) -> None:
    read_all(Forgery(frames=[Frame(data=data, count=count)]).make())


SMALL = st.integers(0, 3)


@given(
    frames=st.lists(
        st.builds(
            Frame,
            bucket=SMALL,
            first=SMALL,
            steps=st.lists(SMALL, min_size=3, max_size=3),
            sizes=st.lists(st.sampled_from([0, 1, 2**22, 2**22 + 1]), min_size=3, max_size=3),
            exts=st.lists(st.integers(0, 1), min_size=3, max_size=3),
            chunks=st.sampled_from([b"", bytes(64), bytes(32)]),
        ),
        max_size=3,
    )
)
@example(frames=[Frame(steps=(0, 1, 2), sizes=(1, 2, 3)), Frame(first=9), Frame(bucket=1)])
def test_frames_that_are_nearly_right(frames: list[Frame]) -> None:
    """So near that some are read; then ids are unique and sorted all the same."""
    read_all(Forgery(frames=frames).make())


@given(raw=st.binary(max_size=60), count=SMALL, packed=st.booleans())
@example(raw=b"", count=0, packed=False)
def test_any_bytes_as_removed_ids(raw: bytes, count: int, *, packed: bool) -> None:
    tail = compress(raw) if packed else raw
    done = read_all(Forgery(frames=[], removed=count, tail=tail).make())
    assert not done or (count == 0 and not tail) or (packed and len(raw) == 5 * count)


def test_the_honest_ones_are_read() -> None:
    assert read_all(Forgery().make())
    assert read_all(Forgery(removed=1, tail=compress(b"\1\0\0\0\0")).make())
    assert Descriptor.decode(codec.encode(DESCRIPTOR)).layout.buckets == BUCKETS
    assert len(Notices.decode(codec.encode(NOTICES)).absences) == 2
