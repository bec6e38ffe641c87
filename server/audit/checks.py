"""The checks of one variant: its files by themselves, and against metadata.

Every check yields findings, none where nothing is wrong.  What they mean together is for
:mod:`server.audit.auditing` to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import U32, Bools
from manifests.metadata.faults import RowFault
from manifests.paths import Layout
from manifests.units import counted
from server.audit.content import Kind, Problem, kind_of_extension
from server.audit.findings import Finding, FindingKind, Item, Severity, id_finding
from server.audit.inspection import FileTable
from server.audit.posts import BANNED, DELETED, PostTable
from server.audit.tables import Places

# A further variant need not hold every post (512px holds four fifths of Danbooru2021), but one
# that lacks at most this share was meant to.
_MEANT_TO_BE_WHOLE = 0.01
_ANY_KIND = 255


class VariantFiles(Struct, frozen=True, kw_only=True, eq=False):
    """One variant under audit, and how findings about its files are made."""

    name: str
    files: FileTable
    layout: Layout

    def path(self, row: int) -> str:
        """The path of one file below the tree."""
        bucket = self.layout.bucket_of(int(self.files.rows["id"][row]))
        return f"{self.name}/{self.layout.bucket_name(bucket)}/{self.files.name(row)}"

    def finding(
        self,
        kind: FindingKind,
        rows: Places,
        meaning: str,
        detail: Callable[[int], str],
        *,
        severity: Severity = Severity.ERROR,
    ) -> Iterator[Finding]:
        """A finding about the files at ``rows``, unless there are none."""
        ids = self.files.rows["id"][rows]

        def describe(place: int) -> Item:
            row = int(rows[place])
            return Item(post_id=int(ids[place]), path=self.path(row), detail=detail(row))

        yield from id_finding(kind, severity, self.name, meaning, ids, describe)


# --------------------------------------------------------------------------- the files alone


def check_content(variant: VariantFiles) -> Iterator[Finding]:
    """Files that are empty, cut off, unreadable, or something else than their extension says."""
    files, rows = variant.files, variant.files.rows

    def holds(row: int) -> str:
        return Kind(int(rows["kind"][row])).text

    empty = np.flatnonzero(rows["kind"] == Kind.EMPTY)
    meaning = "Files without a single byte."
    yield from variant.finding(FindingKind.EMPTY_FILE, empty, meaning, lambda _: "0 bytes")

    closed = rows["problem"] == Problem.UNREADABLE
    places = np.flatnonzero(closed)
    meaning = "Files that cannot be opened or read."
    yield from variant.finding(
        FindingKind.UNREADABLE_FILE, places, meaning, lambda _: Problem.UNREADABLE.text
    )
    cut = np.flatnonzero(~closed & (rows["problem"] != Problem.NONE))
    yield from variant.finding(
        FindingKind.TRUNCATED,
        cut,
        "Files that are cut off, or broken inside.",
        lambda row: f"{holds(row)}: {Problem(int(rows['problem'][row])).text}",
    )
    other = np.flatnonzero(_unlike_extension(files) & ~closed)
    yield from variant.finding(
        FindingKind.EXTENSION_CONTENT,
        other,
        "Something else is inside than the extension says.",
        lambda row: f"named .{files.extension(row)}, holds {holds(row)}",
    )


def _unlike_extension(files: FileTable) -> Bools:
    """Files whose content is not of the kind that their extension stands for."""
    if not len(files):
        return np.zeros(0, np.bool_)
    kinds = (kind_of_extension(extension) for extension in files.extensions)
    expected = np.array([_ANY_KIND if kind is None else kind for kind in kinds], np.uint8)
    wanted, kind = expected[files.rows["ext"]], files.rows["kind"]
    unlike: Bools = (wanted != _ANY_KIND) & (kind != wanted) & (kind != Kind.EMPTY)
    return unlike


# --------------------------------------------------------------------------- which posts there are


def check_presence(variant: VariantFiles, posts: PostTable, *, primary: bool) -> Iterator[Finding]:
    """Files without a post, and posts without a file."""
    known, _ = posts.find(variant.files.ids)
    orphans, hidden = np.flatnonzero(~known), posts.faults.get(RowFault.NO_ID, 0)
    meaning = "No post of the metadata has their id."
    if hidden:
        meaning += f" The rows without an id ({hidden:,}) may be about them."
    yield from variant.finding(
        FindingKind.FILE_WITHOUT_POST, orphans, meaning, lambda _: "no post has this id"
    )
    held, _ = variant.files.find(posts.ids)
    gone = (posts.rows["flags"] & (DELETED | BANNED)) != 0
    yield from _missing(variant, posts, posts.ids[~held & ~gone], primary=primary)
    if primary:
        yield from _missing_hidden(variant, posts.ids[~held & gone])


def _missing(
    variant: VariantFiles, posts: PostTable, ids: U32, *, primary: bool
) -> Iterator[Finding]:
    severity = Severity.ERROR
    meaning = f"Of {counted(len(posts), 'post')} in the metadata, these have no file."
    if not primary and len(ids) > _MEANT_TO_BE_WHOLE * len(posts):
        severity = Severity.NOTICE
        meaning += f" {variant.name} seems to be made for a part of the posts only."
    last = int(variant.files.ids[-1]) if len(variant.files) else 0
    beyond = int(np.count_nonzero(ids > last))
    if last and beyond:
        meaning += f" {beyond:,} of them come after the last file ({last})."
    item = _absent(ids, "no file")
    yield from id_finding(
        FindingKind.POST_WITHOUT_FILE, severity, variant.name, meaning, ids, item
    )


def _missing_hidden(variant: VariantFiles, ids: U32) -> Iterator[Finding]:
    yield from id_finding(
        FindingKind.DELETED_WITHOUT_FILE,
        Severity.NOTICE,
        variant.name,
        "Deleted or banned posts that have no file.",
        ids,
        _absent(ids, "no file; the post is deleted or banned"),
    )


def _absent(ids: U32, detail: str) -> Callable[[int], Item]:
    return lambda place: Item(post_id=int(ids[place]), path="", detail=detail)


# --------------------------------------------------------------------------- what posts say


class _Pairs(Struct, frozen=True, kw_only=True, eq=False):
    """Files that have a post: ``rows`` of the files and, pair by pair, ``places`` of the posts."""

    variant: VariantFiles
    posts: PostTable
    rows: Places
    places: Places

    def own(self, name: str) -> npt.NDArray[Any]:
        """One column of the files."""
        return self.variant.files.rows[name][self.rows]

    def told(self, name: str) -> npt.NDArray[Any]:
        """The same column of their posts."""
        return self.posts.rows[name][self.places]

    def finding(
        self,
        kind: FindingKind,
        differ: Bools,
        meaning: str,
        detail: Callable[[np.void, np.void], str],
        severity: Severity,
    ) -> Iterator[Finding]:
        """A finding about some pairs; ``detail`` is given the row of the file and of its post."""
        rows, places = self.rows[differ], self.places[differ]

        def sentence(row: int) -> str:
            place = places[np.searchsorted(rows, row)]
            return detail(self.variant.files.rows[row], self.posts.rows[place])

        yield from self.variant.finding(kind, rows, meaning, sentence, severity=severity)


def _pairs(variant: VariantFiles, posts: PostTable) -> _Pairs:
    known, places = posts.find(variant.files.ids)
    return _Pairs(variant=variant, posts=posts, rows=np.flatnonzero(known), places=places)


def agreeing_pixels(variant: VariantFiles, posts: PostTable) -> int:
    """How many files have the dimensions that metadata says."""
    pairs = _pairs(variant, posts)
    stated, differ = _pixels(pairs)
    return int(np.count_nonzero(stated & ~differ))


def check_agreement(variant: VariantFiles, posts: PostTable) -> Iterator[Finding]:
    """Sizes, dimensions and extensions against what the posts say."""
    pairs = _pairs(variant, posts)
    own, told = pairs.own("size"), pairs.told("size")
    stated = (own > 0) & (told > 0)
    differ = stated & (own != told)
    yield from pairs.finding(
        FindingKind.SIZE_METADATA,
        differ,
        _share(
            differ, stated, "size", "The files were probably optimised after they were posted."
        ),
        lambda file, post: f"{file['size']:,} bytes, metadata says {post['size']:,}",
        _by_share(differ, stated),
    )
    stated, differ = _pixels(pairs)
    yield from pairs.finding(
        FindingKind.DIMENSIONS_METADATA,
        differ,
        _share(differ, stated, "dimensions", "The files were probably rescaled."),
        lambda file, post: f"{_size_text(file)} pixels, metadata says {_size_text(post)}",
        _by_share(differ, stated),
    )
    differ = _other_extension(pairs)
    yield from pairs.finding(
        FindingKind.EXTENSION_METADATA,
        differ,
        "Metadata names another extension.",
        lambda _, post: f"metadata says .{posts.extensions[post['ext']]}",
        Severity.NOTICE,
    )


def _pixels(pairs: _Pairs) -> tuple[Bools, Bools]:
    """Where both state dimensions, and where these differ (a JPEG may be turned by its EXIF)."""
    width, height = pairs.own("width"), pairs.own("height")
    told_width, told_height = pairs.told("width"), pairs.told("height")
    stated = (width > 0) & (height > 0) & (told_width > 0) & (told_height > 0)
    straight = (width == told_width) & (height == told_height)
    turned = (width == told_height) & (height == told_width) & (pairs.own("kind") == Kind.JPEG)
    return stated, stated & ~straight & ~turned


def _size_text(row: np.void) -> str:
    return f"{row['width']} x {row['height']}"


def _by_share(differ: Bools, stated: Bools) -> Severity:
    """What most files have is how the dataset was made; what few have is an accident."""
    most = 2 * np.count_nonzero(differ) > np.count_nonzero(stated)
    return Severity.NOTICE if most else Severity.ERROR


def _share(differ: Bools, stated: Bools, what: str, reason: str) -> str:
    count, total = int(np.count_nonzero(differ)), int(np.count_nonzero(stated))
    if _by_share(differ, stated) is Severity.ERROR:
        return f"Of {total:,} files, these do not have the {what} that metadata says."
    return (
        f"Most files ({count / max(total, 1):.0%} of {total:,}) do not have the {what} that "
        f"metadata says. {reason} So this cannot tell which of them are damaged."
    )


def _other_extension(pairs: _Pairs) -> Bools:
    """Where metadata names another extension than the file has."""
    if not len(pairs.rows):
        return np.zeros(0, np.bool_)
    codes = {name.lower(): code for code, name in enumerate(pairs.posts.extensions)}
    own = np.array([codes.get(e.lower(), -1) for e in pairs.variant.files.extensions], np.int64)
    told = np.array([codes[e.lower()] for e in pairs.posts.extensions], np.int64)
    stated = np.array([e != "" for e in pairs.posts.extensions], np.bool_)
    said = pairs.told("ext")
    differ: Bools = stated[said] & (own[pairs.own("ext")] != told[said])
    return differ
