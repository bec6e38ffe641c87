"""Forged headers: all digests match, and what the header says is wrong."""

from __future__ import annotations

import os
import struct

import pytest

from manifests import codec, manifest
from manifests.columns import CHUNK_BYTES
from manifests.errors import ExitCode, ManifestError
from manifests.manifest import FRAME_CHUNKS, FRAME_ENTRIES
from manifests.model import MAX_FILE_BYTES
from manifests.paths import MAX_ID
from tests.support.forgery import (
    HOSTILE_FRAMES,
    Forgery,
    Frame,
    compress,
    lies_about_its_size,
    peak_bytes_of_refusal,
)

MIB = 2**20


HEADER = codec.encode(Forgery().document())


def refused_header(forgery: Forgery) -> ManifestError:
    forged = forgery.make()
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.exit_code is ExitCode.REFUSED
    return caught.value


def test_an_honest_forgery_is_read() -> None:
    forged = Forgery(frames=[Frame(steps=[0, 2], sizes=[5, 6]), Frame(bucket=3, first=0)]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    entries = manifest.decode_rows(header, [0, 1], forged.frames, 0)
    assert entries.names() == ["10.jpg", "30.jpg", "3.jpg"]
    assert entries.sizes.tolist() == [5, 6, 100]
    assert entries.digests.tobytes() == b"d" * 96


U64_TWICE = struct.pack("<2Q", 2**64 - 1, 101)
TWO = (Frame(first=1), Frame(first=5))


@pytest.mark.parametrize(
    ("forgery", "where", "problem"),
    [
        (Forgery(fields={"format": 2}), "m.format", "expected 1"),
        (Forgery(fields={"buckets": 0}), "m.buckets", "expected at least 1"),
        (Forgery(fields={"buckets": 100_001}), "m.buckets", "expected 0 to 100000"),
        (Forgery(fields={"extensions": ["a/b"]}), "m.extensions[0]", "not a file extension"),
        (Forgery(fields={"extensions": ["a", "a"]}), "m.extensions", "stands twice"),
        (
            Forgery(fields={"extensions": list(map(str, range(256)))}),
            "m.extensions",
            "more than 255",
        ),
        (Forgery(fields={"reasons": ["x"] * 256}), "m.reasons", "more than 255 items"),
        (Forgery(fields={"reasons": ["x" * 1025]}), "m.reasons[0]", "at most 1024 characters"),
        (Forgery(fields={"rows": 2}), "m.bucket", "expected 8 bytes, got 4"),
        (Forgery(fields={"rows": 0}), "m.bucket", "expected 0 bytes, got 4"),
        (Forgery(fields={"rows": 2**32}), "m.rows", "expected 0 to 4294967295"),
        (Forgery(fields={"first": b""}), "m.first", "expected 4 bytes"),
        (Forgery(fields={"count": b""}), "m.count", "expected 2 bytes"),
        (Forgery(fields={"bytes": b""}), "m.bytes", "expected 8 bytes"),
        (Forgery(fields={"length": b""}), "m.length", "expected 4 bytes"),
        (Forgery(fields={"digest": b""}), "m.digest", "expected 32 bytes"),
        (Forgery(fields={"removed_digest": b""}), "m.removed_digest", "expected 32 bytes"),
        (Forgery(fields={"removed": 2**26 + 1}), "m.removed", "expected 0 to 67108864"),
        (Forgery(fields={"removed_length": 2**32}), "m.removed_length", "expected 0 to 42949"),
        (Forgery(frames=[Frame(bucket=10)]), "m.rows[0].bucket", "no such bucket"),
        (Forgery(frames=[Frame(), Frame(bucket=10)]), "m.rows[1].bucket", "no such bucket"),
        (Forgery(frames=[Frame(first=MAX_ID // 10 + 1)]), "m.rows[0].first", "than any id"),
        (Forgery(frames=[Frame(first=5), Frame(first=5)]), "m.rows[1].first", "not after"),
        (Forgery(frames=[Frame(first=5), Frame(first=4)]), "m.rows[1].first", "not after"),
        (Forgery(frames=[Frame(bucket=2), Frame(bucket=1)]), "m.rows[1].first", "not after"),
        (Forgery(frames=[*TWO, Frame(first=0)]), "m.rows[2].first", "not after"),
        (Forgery(frames=[Frame(count=0)]), "m.rows[0].count", "expected 1 to 128"),
        (Forgery(frames=[Frame(), Frame(first=5, count=129)]), "m.rows[1].count", "1 to 128"),
        (Forgery(frames=[Frame(file_bytes=2**40)]), "m.rows[0].bytes", "more than that many"),
        (
            Forgery(
                frames=[Frame(count=2, file_bytes=(FRAME_CHUNKS + 2) * CHUNK_BYTES + 1)],
            ),
            "m.rows[0].bytes",
            "more than that many",
        ),
        (
            Forgery(frames=[Frame(data=bytes(42 + 32 + 1024 + 1))]),
            "m.rows[0].length",
            "longer than such a frame can be",
        ),
        (
            Forgery(removed=1, tail=bytes(5 + 1024 + 1)),
            "m.removed_length",
            "longer than such a list can be",
        ),
        (Forgery(ref={"entries": 2}), "m.count", "adds up to 1, the descriptor says 2"),
        (Forgery(ref={"file_bytes": 99}), "m.bytes", "adds up to 100, the descriptor says 99"),
        (Forgery(ref={"removed": 1}), "m.removed", "adds up to 0, the descriptor says 1"),
        (Forgery(tail=b"x", fields={"removed_length": 0}), "m.length", "adds up to"),
        (Forgery(frames=TWO, fields={"bytes": U64_TWICE}), "m.rows[0].bytes", "more than"),
    ],
)
def test_a_forged_header_is_refused_with_its_place(
    forgery: Forgery, where: str, problem: str
) -> None:
    error = refused_header(forgery)
    assert error.where == where
    assert problem in error.problem


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(file_bytes=MAX_FILE_BYTES)],
        [Frame(count=2, file_bytes=(FRAME_CHUNKS + 2) * CHUNK_BYTES)],
        [Frame(count=FRAME_ENTRIES)],
        [Frame(bucket=9, first=MAX_ID // 10)],
        [Frame(data=bytes(42 + 32 + 1024))],
        [Frame(bucket=1, first=9), Frame(bucket=2, first=0)],
    ],
)
def test_headers_at_their_limits_are_read(frames: list[Frame]) -> None:
    forged = Forgery(frames=frames).make()
    header = manifest.decode_header(forged.header, forged.ref)
    assert len(header) == len(frames)


def test_sums_of_many_rows_do_not_wrap_around() -> None:
    frames = [Frame(first=200 * row, count=128, file_bytes=10**10) for row in range(600)]
    forged = Forgery(frames=frames).make()
    assert (forged.ref.entries, forged.ref.file_bytes) == (76_800, 6 * 10**12)
    assert len(manifest.decode_header(forged.header, forged.ref)) == 600


def test_a_reference_must_agree_with_itself() -> None:
    """The digest is that of the header, but its length is another."""
    length = len(Forgery().make().header)
    for stated in (length - 1, length + 1):
        forged = Forgery(ref={"header_bytes": stated}).make()
        with pytest.raises(ManifestError, match=r"^m\.header: not the bytes that the descriptor"):
            manifest.decode_header(forged.header, forged.ref, "m")


@pytest.mark.parametrize(
    ("entries", "stated", "limit"),
    [
        (2**32 - 1, 2**29 + 1, 2**29),
        (1, 2 * MIB + 55, 2 * MIB + 54),
        (1, len(HEADER), len(HEADER) - 1),
    ],
)
def test_the_limits_of_a_header(entries: int, stated: int, limit: int) -> None:
    """512 MiB, what the entries may need, and what the prefix says."""
    raw_bytes = limit if stated == len(HEADER) else stated
    forgery = Forgery(ref={"entries": entries})
    forged = forgery.seal(lies_about_its_size(HEADER, stated), raw_bytes)
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.problem == f"states {stated} bytes, at most {limit} are possible"


def test_a_header_must_be_the_one_that_the_descriptor_names() -> None:
    forged = Forgery().make()
    for data in (b"", forged.header[:-1], forged.header + b"\0", b"\0" + forged.header[1:]):
        with pytest.raises(ManifestError, match=r"^m\.header: not the bytes that the descriptor"):
            manifest.decode_header(data, forged.ref, "m")


@pytest.mark.parametrize(
    ("data", "where", "problem"),
    [
        (b"", "m.header", "too short"),
        (b"bsyncmf1" + bytes(7), "m.header", "too short"),
        (b"bsyncmf2" + bytes(8), "m.magic", "expected b'bsyncmf1', got b'bsyncmf2'"),
        (b"bsyncmf1" + bytes(8) + b"x", "m.header", "states 0 bytes, not those that follow"),
        (struct.pack("<8sII", b"bsyncmf1", 5, 1) + b"hello", "m.header", "not a zstd frame"),
        (struct.pack("<8sII", b"bsyncmf1", 0, 1), "m.header", "not a zstd frame"),
    ],
)
def test_a_prefix_that_makes_no_sense(data: bytes, where: str, problem: str) -> None:
    forged = Forgery().describe(data)
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.where == where
    assert problem in caught.value.problem


@pytest.mark.parametrize("what", HOSTILE_FRAMES)
def test_a_header_is_one_frame_of_the_stated_size(what: str) -> None:
    forged = Forgery().seal(HOSTILE_FRAMES[what](HEADER), len(HEADER))
    with pytest.raises(ManifestError) as caught:
        manifest.decode_header(forged.header, forged.ref, "m")
    assert caught.value.where == "m.header"


def test_a_frame_that_states_its_true_size_by_hand_is_read() -> None:
    forged = Forgery().seal(lies_about_its_size(HEADER, len(HEADER)), len(HEADER))
    assert len(manifest.decode_header(forged.header, forged.ref)) == 1


def test_a_header_must_be_canonical() -> None:
    raw = b"\x81\xa6format\xcc\x01"
    forged = Forgery().seal(compress(raw), len(raw))
    with pytest.raises(ManifestError, match=r"^m: not a canonical msgpack map"):
        manifest.decode_header(forged.header, forged.ref, "m")


def test_a_bomb_in_a_header_does_not_go_off() -> None:
    forged = Forgery().seal(compress(bytes(200 * MIB)), 200 * MIB)
    assert peak_bytes_of_refusal(lambda: manifest.decode_header(forged.header, forged.ref)) < MIB


def test_a_bomb_in_a_header_costs_what_its_entries_could() -> None:
    """A million entries may have a header of 54 MB, and no more."""
    raw = os.urandom(10) + bytes(200 * MIB)
    forged = Forgery(ref={"entries": 1_000_000}).seal(compress(raw), len(raw))
    assert peak_bytes_of_refusal(lambda: manifest.decode_header(forged.header, forged.ref)) < MIB
