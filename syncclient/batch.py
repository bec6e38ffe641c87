"""A piece of work that is carried out as one, and what became of it; goes between processes."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, field

from manifests.digest import CHUNK_BYTES, DIGEST_BYTES
from manifests.errors import StoreError, TransferError
from syncclient.files import FileStat
from syncclient.store import Aside

# Of one batch, and of batches that are carried out together.
BATCH_BYTES = 2 * CHUNK_BYTES
BATCH_FILES = 1000
# The largest file that is held in memory until it is checked.
RANGE_BYTES = CHUNK_BYTES
# Files that lie one after another in a pack are handed on by so many bytes, or one of them.
PIECE_BYTES = 512 * 2**10


class Batch(Struct, frozen=True, kw_only=True):
    """Files of one folder: what they are, where they come from, where they go.

    All columns have one item a file; ``digests`` has DIGEST_BYTES of each.  ``place`` is where a
    host has them, LAYER/VARIANT/BUCKET, or the path of the one object that they are, then
    ``whole``.  ``replaces`` is what the plan saw under the name, None for nothing. A file larger
    than RANGE_BYTES is alone in its batch; ``chunks`` are its chunk digests, if any.
    """

    # Variant and bucket, or "" and the path of an asset.
    key: tuple[str, int | str]
    root: str
    folder: tuple[str, ...]
    names: Sequence[str]
    sizes: Sequence[int]
    digests: bytes
    mtime_ns: int
    replaces: Sequence[FileStat | None]
    place: str
    whole: bool = False
    # Whether their pack is not to be asked for, but each file by itself.
    loose: bool = False
    offsets: Sequence[int] = ()
    chunks: bytes = b""
    # Folders of other trees that may hold the same files, and whether to hard-link from them.
    locals: tuple[str, ...] = ()
    hard_link: bool = False
    # Whether ``locals`` is our own staging, into which peers delivered.
    staged: bool = False
    # Whether that staging is in memory, so that its bytes have to be written once.
    in_memory: bool = False

    @property
    def large(self) -> bool:
        """Whether this is one large file, fetched by chunks into a staged part."""
        return self.sizes[0] > RANGE_BYTES

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes)

    @property
    def pack(self) -> str:
        """The URL path of their pack, or "" if they have none."""
        return "" if self.whole or self.loose else f"packs/{self.place}"

    def url(self, row: int) -> str:
        """The URL path of one file."""
        return self.place if self.whole else f"files/{self.place}/{self.names[row]}"

    def digest(self, row: int) -> bytes:
        """The BLAKE3 that one file must have."""
        return self.digests[DIGEST_BYTES * row : DIGEST_BYTES * (row + 1)]

    def path(self, row: int) -> str:
        """Where a file goes, for people."""
        return "/".join((*self.folder, self.names[row]))

    def subset(self, rows: Sequence[int], *, loose: bool = False) -> Batch:
        """The same work for some of the files; ``loose`` gives up on their pack."""
        return Batch(
            key=self.key,
            root=self.root,
            folder=self.folder,
            names=[self.names[row] for row in rows],
            sizes=[self.sizes[row] for row in rows],
            digests=b"".join([self.digest(row) for row in rows]),
            mtime_ns=self.mtime_ns,
            replaces=[self.replaces[row] for row in rows],
            place=self.place,
            whole=self.whole,
            loose=loose or self.loose,
            offsets=[self.offsets[row] for row in rows] if self.offsets else (),
            chunks=self.chunks,
            locals=self.locals,
            hard_link=self.hard_link,
            staged=self.staged,
            in_memory=self.in_memory,
        )


class Problem(Struct, frozen=True, kw_only=True):
    """Why one file of a batch did not come; ``missing`` if the host says it has none."""

    row: int
    text: str
    missing: bool = False


class Outcome(Struct, kw_only=True):
    """What became of a batch: rows that are in the tree now, problems, and bytes by source.

    ``error`` ended the batch early; rows in neither list were not tried.
    """

    done: list[int] = field(default_factory=list)
    linked: list[int] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)
    error: TransferError | StoreError | None = None
    received_bytes: int = 0
    requests: int = 0
    local_bytes: int = 0
    peer_bytes: int = 0
    links: dict[str, int] = field(default_factory=dict)

    def traffic_only(self) -> Outcome:
        """What it cost, without what it brought."""
        return Outcome(received_bytes=self.received_bytes, requests=self.requests)
