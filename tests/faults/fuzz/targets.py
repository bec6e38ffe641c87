"""What reads bytes of strangers, each as a function of bytes that may raise only what is ours.

A target makes lengths and digests right itself, as a publisher with bad intent would, so that a
fuzzer gets behind them.  Whatever else a target raises is a finding.
"""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import numpy as np
import orjson
import zstandard
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict, MultiDict

from manifests import codec, manifest
from manifests.digest import Digest
from manifests.errors import SyncError
from manifests.framed import FramedWriter, decode_framed
from manifests.framedref import FramedRef
from manifests.metadata.rowfile import KIND, SECTION, RowFrame, decode_rows, encode_frames
from manifests.metadata.rows import parse_block
from manifests.metadata.tables import parse_pools, parse_relations, parse_tags
from manifests.model import Descriptor
from manifests.notices import Notices
from manifests.query.parser import parse
from manifests.query.search import check
from manifests.tagindex.build import KIND as TAGS_KIND
from manifests.tagindex.index import FramesMissing, TagIndex
from manifests.tagindex.names import decode_names
from manifests.tagindex.pools import decode_pools
from manifests.tagindex.postings import decode_postings
from manifests.tagindex.values import decode_column, decode_md5s, decode_sources
from manifests.torrents.announce import Announcement, Neighbours, State
from manifests.torrents.bencode import decode as decode_bencode
from manifests.torrents.bencode import encode as encode_bencode
from manifests.torrents.metainfo import Outer, make_torrent
from manifests.torrents.reader import read_torrent
from server.hosting.parameters import SearchParameters
from server.hosting.ranges import Representation, plan_reply
from server.tracking.queries import read_announce, read_scrape
from server.tracking.swarms import RefusedError
from syncclient.config import load_tree_config, merge_transport
from syncclient.lockfile import read_lock
from syncclient.planfile import read_plan
from syncclient.selection import parse_ids
from syncclient.sources.floor import SpeedFloor
from syncclient.sources.host import HttpOptions, Traffic
from syncclient.sources.limits import TokenBucket
from syncclient.sources.ordinary import OrdinarySource
from syncclient.sources.pipeline import BulkError, read_answers
from tests.faults.fuzz.reshape import JSON_LINES, MSGPACK, TOML, Form
from tests.support.forgery import Forgery, Frame, compress
from tests.support.tagindexes import build
from tests.support.torrents import contents_of_files

# The first bytes of a manifest's input: entries, bytes, removed, size, as the descriptor says.
_STATED = struct.Struct("<IQIQ")


def read_descriptor(data: bytes) -> None:
    Descriptor.decode(data)


def read_notices(data: bytes) -> None:
    Notices.decode(data)


def read_manifest_header(data: bytes) -> None:
    """The header's map, as it is before compression."""
    if len(data) < _STATED.size:
        return
    entries, file_bytes, removed, size = _STATED.unpack_from(data)
    raw = data[_STATED.size :]
    ref = {"entries": entries, "file_bytes": file_bytes, "removed": removed, "size_bytes": size}
    forged = Forgery(ref=ref).seal(compress(raw), len(raw))
    manifest.decode_header(forged.header, forged.ref)


def read_manifest_prefix(data: bytes) -> None:
    """The header's bytes as they lie in the object."""
    forged = Forgery().describe(data)
    manifest.decode_header(forged.header, forged.ref)


def read_manifest_frame(data: bytes) -> None:
    """A frame before compression, and what its row says: first slot, entries, bytes of files."""
    if len(data) < 9:
        return
    first, count, file_bytes = struct.unpack_from("<IBI", data)
    frame = Frame(bucket=1, first=first, raw=data[9:], count=count, file_bytes=file_bytes)
    forged = Forgery(frames=[frame]).make()
    header = manifest.decode_header(forged.header, forged.ref)
    entries = manifest.decode_rows(header, [0], forged.frames, 0)
    assert len(entries) == count
    assert np.all(entries.ids[1:] > entries.ids[:-1])
    assert int(entries.sizes.sum()) == file_bytes
    assert all(name.split(".")[0].isdigit() for name in entries.names())


def read_manifest_removed(data: bytes) -> None:
    """The list of removed ids before compression; its first byte says how many."""
    if not data:
        return
    forged = Forgery(removed=data[0], tail=compress(data[1:])).make()
    header = manifest.decode_header(forged.header, forged.ref)
    removed = manifest.decode_removed(header, forged.tail)
    assert len(removed.ids) == data[0]


def framed_ref(header: bytes, size_bytes: int) -> FramedRef:
    return FramedRef(
        digest=Digest.of(b""),
        size_bytes=size_bytes,
        header_digest=Digest.of(header),
        header_bytes=len(header),
    )


def read_framed(data: bytes) -> None:
    """The header's map of a framed object, before compression."""
    header = compress(data)
    decode_framed(header, framed_ref(header, len(header) + 10_000), TAGS_KIND, "x")


def read_tag_index(data: bytes) -> None:
    """The header of a tag index, and what a query makes of it."""
    header = compress(data)
    framed = decode_framed(header, framed_ref(header, len(header) + 10_000), TAGS_KIND, "x")
    index = TagIndex(framed)
    asks: tuple[Callable[[], object], ...] = (
        lambda: index.find_tag("a"),
        lambda: index.ids,
        index.pools,
        index.implications,
    )
    for ask in asks:
        with suppress(FramesMissing):
            ask()


def read_tag_frames(data: bytes) -> None:
    """A frame of each kind; its first byte says how many values it should have."""
    if not data:
        return
    count, rest = data[0], data[1:]
    readers: tuple[Callable[[], object], ...] = (
        lambda: decode_postings(rest, count, 100, "x"),
        lambda: decode_names(rest, count, "x"),
        lambda: decode_pools(rest, "x"),
        lambda: decode_md5s(rest, "x"),
        lambda: decode_sources(rest, count, "x"),
        lambda: decode_column("created_at", rest, count, "x"),
        lambda: decode_column("id", rest, count, "x"),
    )
    for read in readers:
        with suppress(SyncError):
            read()


def read_row_frame(data: bytes) -> None:
    """A frame of rows of metadata; the first four bytes are its key."""
    if len(data) < 4:
        return
    key, frame = struct.unpack_from("<I", data)[0], data[4:]
    parts: list[bytes] = []
    writer = FramedWriter(KIND, parts.append)
    writer.add(SECTION, key, frame)
    size, _, header_bytes = writer.finish({})
    header = b"".join(parts)[-header_bytes:]
    rows = decode_rows(
        decode_framed(header, framed_ref(header, size), KIND, "x"), (SECTION, 0), frame
    )
    assert len(rows) == rows.text.count(b"\n")
    rows.pick(rows.keys[::2])


def read_metadata(data: bytes) -> None:
    """Lines of a publisher's JSON: any bytes give rows and faults."""
    for reader in (parse_block, parse_tags, parse_relations, parse_pools):
        reader(data, "x", 1)


def read_a_torrent(data: bytes) -> None:
    read_torrent(data)


def read_bencode(data: bytes) -> None:
    """Bencoding has one form, so what was read is written the same."""
    value = decode_bencode(data, "x", max_bytes=10**6, max_values=10**5)
    assert encode_bencode(value) == data


def read_announcement(data: bytes) -> None:
    Announcement.decode(data)


def read_neighbours(data: bytes) -> None:
    Neighbours.decode(data, 2)


def read_query(data: bytes) -> None:
    """A query as a command line hands it over."""
    check(parse(data.decode("utf-8", "surrogateescape")))


def read_ids(data: bytes) -> None:
    parse_ids(data.decode("utf-8", "replace"), "x")


def read_config(data: bytes) -> None:
    """A tree's config.toml, and what a run makes of it."""
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        private = Path(folder, ".bucketsync")
        private.mkdir()
        (private / "config.toml").write_bytes(data)
        config = load_tree_config(Path(folder))
        merge_transport(config.transport, {}, {})


def _from_file(read: Callable[[Path], object]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=_MEMORY) as file:
            file.write(data)
            file.flush()
            read(Path(file.name))

    return target


# Where a file costs no disk.
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (a folder of its own in it)


def answer_ranges(data: bytes) -> None:
    """Request headers as the server reads them: Range, If-Range and conditions, a line each."""
    names = ("Range", "If-Range", "If-None-Match", "If-Modified-Since", "If-Match")
    lines = data.decode("latin-1").split("\n")
    headers = CIMultiDict(pair for pair in zip(names, lines, strict=False) if pair[1])
    shown = Representation(
        size_bytes=1000,
        etag="a",
        modified=10**9,
        content_type="image/png",
        cache_control="no-cache",
    )
    reply = plan_reply("GET", headers, shown, "boundary")
    assert sum(
        len(part) if isinstance(part, bytes) else part.size_bytes for part in reply.body
    ) == int(reply.headers.get("Content-Length", "0"))


def answer_tracker(data: bytes) -> None:
    """The query string of an announce or a scrape."""
    query = data.decode("utf-8", "surrogateescape")
    for read in (read_announce, read_scrape):
        with suppress(RefusedError):
            read(query)


def answer_search(data: bytes) -> None:
    """The query string of a search."""
    pairs = parse_qsl(data.decode("latin-1"), keep_blank_values=True)
    SearchParameters.read(MultiDict(pairs))


@dataclass
class _Answer:
    """As much of aiohttp's answer as the source looks at."""

    status: int
    headers: CIMultiDict[str]
    content: aiohttp.StreamReader
    reason: str = ""

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() and text.isascii() else None


_SPANS = [(0, 4), (10, 20), (20, 21)]


class _Told(OrdinarySource):
    """A source whose every answer is the fuzzer's: status, headers, an empty line, the body."""

    answer: bytes = b""

    @asynccontextmanager
    async def _request(self, *_request: object) -> AsyncIterator[Any]:
        head, _, body = self.answer.partition(b"\n\n")
        status, *lines = head.decode("latin-1").split("\n")
        pairs = [line.partition(":") for line in lines]
        loop = asyncio.get_running_loop()
        content = aiohttp.StreamReader(BaseProtocol(loop), 2**16, loop=loop)
        content.feed_data(body)
        content.feed_eof()
        yield _Answer(
            status=int(status) if status in {"200", "400", "416"} else 206,
            headers=CIMultiDict((name.strip(), text.strip()) for name, _, text in pairs),
            content=content,
        )


async def _read_spans(answer: bytes) -> None:
    url, floor = "http://127.0.0.1:1", SpeedFloor(1, 60)
    source = _Told(url, HttpOptions(), TokenBucket(0), floor, Traffic())
    source.answer = answer
    found = set()
    async with aclosing(source._request_spans("x", _SPANS)) as spans:
        async for index, part in spans:
            assert index not in found
            found.add(index)
            assert len(part) == _SPANS[index][1] - _SPANS[index][0]


_LOOP = asyncio.new_event_loop()


def read_ranges(data: bytes) -> None:
    """An answer to a request for ranges, as the client reads it."""
    _LOOP.run_until_complete(_read_spans(data))


def read_pipelined(data: bytes) -> None:
    """Answers to the same request and to one for a whole resource, as the fast way reads them."""
    try:
        found = read_answers(data, _SPANS, whole_bytes=5)
    except BulkError:
        return
    sizes = [*(stop - start for start, stop in _SPANS), 5]
    assert all(len(piece) == sizes[index] for index, piece in found)
    assert len({index for index, _ in found}) == len(found)


# --------------------------------------------------------------------------- seeds


def _manifest_headers() -> list[bytes]:
    forgeries = [Forgery(), Forgery(frames=[Frame(), Frame(bucket=3)], removed=1, tail=b"x")]
    found = []
    for forgery in forgeries:
        ref = forgery.make().ref
        stated = _STATED.pack(ref.entries, ref.file_bytes, ref.removed, ref.size_bytes)
        found.append(stated + codec.encode(forgery.document()))
    return found


def _descriptors() -> list[bytes]:
    ref = Forgery().make().ref
    document = {
        "format": codec.FORMAT,
        "dataset": "birds",
        "release": "b1",
        "base": None,
        "created": 1,
        "buckets": 10,
        "digits": 4,
        "layers": [{"name": "b1", "date": 1, "manifests": {"original": ref.to_map()}}],
        "variants": {"original": {"files": 1, "bytes": 1}},
        "assets": [{"path": "docs/readme.txt", "size": 1, "digest": bytes(32)}],
        "tag_index": framed_ref(b"", 9).to_map(),
    }
    return [codec.encode(document)]


def _notices() -> list[bytes]:
    absence = {"layer": "b1", "variant": "original", "reason": "x", "count": 1, "ids": b"\1\0\0\0"}
    return [codec.encode({"format": codec.FORMAT, "absences": [absence]})]


def _index() -> tuple[FramedRef, bytes]:
    posts = [{"id": n, "tag_string": "a b c", "md5": f"{n:032x}", "source": "s"} for n in (1, 5)]
    aliases = [{"antecedent_name": "x", "consequent_name": "a"}]
    return build(posts, aliases=aliases, pools=[{"id": 1, "name": "p", "post_ids": [1]}])


def _index_headers() -> list[bytes]:
    ref, data = _index()
    start, stop = ref.header_span
    return [zstandard.ZstdDecompressor().decompress(data[start:stop])]


def _tag_frames() -> list[bytes]:
    ref, data = _index()
    start, stop = ref.header_span
    header = decode_framed(data[start:stop], ref, TAGS_KIND, "x")
    return [
        b"\2" + data[slice(*header.span((name, number)))]
        for name, section in header.sections.items()
        for number in range(len(section))
    ]


def _row_frames() -> list[bytes]:
    frame = RowFrame(keys=[1, 7], lines=[b"{}", b'{"id": 7}'])
    return [b"\1\0\0\0" + data for data in encode_frames([frame])]


def _torrents() -> list[bytes]:
    files = {3: ("png", b"x" * 20_000), 6: ("jpg", b"y")}
    return [
        make_torrent(contents_of_files(files, 2**14, hybrid=hybrid), Outer()).data
        for hybrid in (True, False)
    ]


_LOCK = {
    "format": 1,
    "dataset": "birds",
    "release": "b1",
    "descriptor": {"blake3": "0" * 64, "sha256": "0" * 64, "size": 3},
    "root": "",
    "variants": ["original"],
    "ids": 1,
}
_LOCK_LINE = b'["original/0001/1.jpg",3,"00"]\n'
_PLAN = {
    "format": 1,
    "tree": "/x",
    "dataset": "birds",
    "release": "b1",
    "descriptor": "00",
    "selection": {
        "variants": None,
        "buckets": [0, 9],
        "ids": [1, 2],
        "query": "",
        "seed": "",
        "metadata": False,
    },
    "delete": False,
}
_CONFIG = b"""format = 1
dataset = "birds"
urls = ["http://a.example"]
root_fingerprint = ""
release = "b1"
[selection]
variants = ["original"]
buckets = [0, 9]
query = "a"
seed = "s"
metadata = true
[variant_dirs]
original = "/x"
[transport]
bwlimit = "2M"
mirrors = ["http://b.example"]
dht = true
timeout_s = 3
"""
_PIPELINED = b"""HTTP/1.1 206 Partial Content\r
Content-Type: multipart/byteranges; boundary=B\r
Content-Length: 143\r
\r
--B\r
Content-Range: bytes 0-3/100\r
\r
abcd\r
--B\r
Content-Range: bytes 10-19/100\r
\r
0123456789\r
--B\r
Content-Range: bytes 20-20/100\r
\r
x\r
--B--\r
HTTP/1.1 200 OK\r
Content-Length: 5\r
\r
whole"""
_MULTIPART = b"""206
Content-Type: multipart/byteranges; boundary=B

--B\r
Content-Range: bytes 0-3/100\r
\r
abcd\r
--B\r
Content-Range: bytes 10-20/100\r
\r
0123456789a\r
--B--\r
"""
_SINGLE = b"206\nContent-Range: bytes 0-20/100\n\n" + b"x" * 21
_ANNOUNCE = b"info_hash=%01" + b"a" * 19 + b"&port=6881&left=0&event=started&numwant=5&compact=1"


def _lock() -> list[bytes]:
    head = _LOCK | {"files": Digest.of(_LOCK_LINE).hex}
    return [orjson.dumps(head) + b"\n" + _LOCK_LINE]


def _plan() -> list[bytes]:
    line = {"folder": "original/0001", "add": ["1.jpg"], "remove": ["2.jpg"]}
    return [orjson.dumps(_PLAN) + b"\n" + orjson.dumps(line) + b"\n"]


def _announcements() -> list[bytes]:
    made = Announcement(port=1, numwant=3, hashes=[b"h" * 20], states=[State(0)])
    return [made.encode()]


def _neighbours() -> list[bytes]:
    made = Neighbours(
        interval_s=9,
        peers=[b"123456", b""],
        peers6=[b"", b""],
        waiting=[True, False],
        seeds=[1, 0],
    )
    return [made.encode()]


def _frame() -> list[bytes]:
    frame = Frame(steps=[0, 2], sizes=[5, 6])
    return [struct.pack("<IBI", 1, 2, 11) + frame.inside()]


def _rows() -> list[bytes]:
    return [
        b'{"id": 1, "tag_string": "a b", "md5": "00", "created_at": "2020-01-01T00:00:00Z"}\n',
        b'{"id": "2", "tags": [{"name": "a", "category": "0"}], "score": "5"}\n{"name": "x"}\n',
        b'{"antecedent_name": "a", "consequent_name": "b", "status": "active"}\n',
        b'{"id": 3, "post_ids": [1, 2], "category": "series", "name": "p"}\n',
    ]


_QUERIES = [
    b"~a ~b -c rating:s",
    b"(a or b) and -(c d) score:>=5 order:score limit:3",
    b"source:'x y' id:1..9,12 date:2020-01-01..  age:<3d random:5 pool:a *wild* md5:00",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What reads, honest inputs to begin with, and the form of a document if it reads one."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    form: Form | None = None


def _some(*seeds: bytes) -> Callable[[], list[bytes]]:
    return lambda: list(seeds)


TARGETS: Mapping[str, Target] = {
    "announcement": Target(read=read_announcement, seeds=_announcements, form=MSGPACK),
    "bencode": Target(read=read_bencode, seeds=_some(b"d1:ai1e1:bl2:xyee")),
    "config": Target(read=read_config, seeds=_some(_CONFIG), form=TOML),
    "descriptor": Target(read=read_descriptor, seeds=_descriptors, form=MSGPACK),
    "framed": Target(read=read_framed, seeds=_index_headers, form=MSGPACK),
    "ids": Target(read=read_ids, seeds=_some(b"1\n2 # x\noriginal/0001/1.jpg\n")),
    "lock": Target(read=_from_file(read_lock), seeds=_lock, form=JSON_LINES),
    "manifest-frame": Target(read=read_manifest_frame, seeds=_frame),
    "manifest-header": Target(
        read=read_manifest_header,
        seeds=_manifest_headers,
        form=replace(MSGPACK, prefix=_STATED.size),
    ),
    "manifest-prefix": Target(read=read_manifest_prefix, seeds=lambda: [Forgery().make().header]),
    "manifest-removed": Target(read=read_manifest_removed, seeds=_some(b"\2\1\0\0\0\2\0\0\0\0\0")),
    "metadata": Target(read=read_metadata, seeds=_rows, form=JSON_LINES),
    "neighbours": Target(read=read_neighbours, seeds=_neighbours, form=MSGPACK),
    "notices": Target(read=read_notices, seeds=_notices, form=MSGPACK),
    "plan": Target(read=_from_file(read_plan), seeds=_plan, form=JSON_LINES),
    "query": Target(read=read_query, seeds=lambda: _QUERIES),
    "pipelined-answers": Target(read=read_pipelined, seeds=_some(_PIPELINED)),
    "range-answer": Target(read=read_ranges, seeds=_some(_MULTIPART, _SINGLE)),
    "range-request": Target(
        read=answer_ranges,
        seeds=_some(b'bytes=0-4,10-,-5\n"a"', b"bytes=0-0\n\n\nWed, 21 Oct 2015 07:28:00 GMT"),
    ),
    "row-frame": Target(read=read_row_frame, seeds=_row_frames),
    "search": Target(read=answer_search, seeds=_some(b"q=a+b&limit=5&after=9&count=0&tz=UTC")),
    "tag-frames": Target(read=read_tag_frames, seeds=_tag_frames),
    "tag-index": Target(read=read_tag_index, seeds=_index_headers, form=MSGPACK),
    "torrent": Target(read=read_a_torrent, seeds=_torrents),
    "tracker": Target(read=answer_tracker, seeds=_some(_ANNOUNCE)),
}


def attempt(target: Target, data: bytes) -> None:
    """Read some bytes; only what no reader may raise is raised."""
    with suppress(SyncError):
        target.read(data)
