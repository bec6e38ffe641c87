"""Posts as columns: what the metadata of five million posts says, without five million objects.

:data:`COLUMNS` is the table of what is known of a post, for the reader that fills it from JSON,
the tag index that stores it and the queries that ask for it.  0 stands for null where a column is
``nullable``: ids begin at 1, and the exports that have no null write 1970 for a date.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from manifests.columns import I64, U8, U32

Column = npt.NDArray[Any]

# Codes of the `rating` column; 0 is for none, or one that is not known.
RATINGS = ("", "g", "s", "q", "e")
# Categories of tags by their number in every export, and the names of their metatags.
CATEGORIES: Mapping[int, str] = {
    0: "general",
    1: "artist",
    3: "copyright",
    4: "character",
    5: "meta",
}
# The category of a tag that no row and no table states.
UNKNOWN_CATEGORY = 255


class Flag(IntFlag):
    """Bits of the ``flags`` column."""

    PENDING = 1
    FLAGGED = 2
    DELETED = 4
    BANNED = 8
    HAS_CHILDREN = 16
    # bit_flags, bit 0: notes drawn into the picture.
    EMBEDDED = 32


class Spec(Struct, frozen=True, kw_only=True):
    """One column: ``dtype``, values a post (``width``), and whether 0 stands for null."""

    dtype: str
    nullable: bool = False
    width: int = 1


# Times are Unix seconds, UTC.  Sizes are bytes of the file that was uploaded; a release may have
# optimised it since.
COLUMNS: Mapping[str, Spec] = {
    "rating": Spec(dtype="u1"),
    "flags": Spec(dtype="u2"),
    "score": Spec(dtype="i4"),
    "up_score": Spec(dtype="i4"),
    # 0 or less, as the site writes it.
    "down_score": Spec(dtype="i4"),
    "fav_count": Spec(dtype="u4"),
    "created_at": Spec(dtype="i8", nullable=True),
    "updated_at": Spec(dtype="i8", nullable=True),
    "last_noted_at": Spec(dtype="i8", nullable=True),
    "last_commented_at": Spec(dtype="i8", nullable=True),
    "last_comment_bumped_at": Spec(dtype="i8", nullable=True),
    "image_width": Spec(dtype="u4", nullable=True),
    "image_height": Spec(dtype="u4", nullable=True),
    "file_size": Spec(dtype="u8", nullable=True),
    # Index into `extensions`.
    "file_ext": Spec(dtype="u1"),
    # All zero: not stated.
    "md5": Spec(dtype="u1", nullable=True, width=16),
    "parent_id": Spec(dtype="u4", nullable=True),
    "pixiv_id": Spec(dtype="u8", nullable=True),
    "uploader_id": Spec(dtype="u4", nullable=True),
    "approver_id": Spec(dtype="u4", nullable=True),
    # Milliseconds, of videos and animations.
    "duration_ms": Spec(dtype="u4", nullable=True),
    "tags_general": Spec(dtype="u2"),
    "tags_artist": Spec(dtype="u2"),
    "tags_copyright": Spec(dtype="u2"),
    "tags_character": Spec(dtype="u2"),
    "tags_meta": Spec(dtype="u2"),
}


class Texts(Struct, frozen=True, kw_only=True, eq=False):
    """n texts as one run of UTF-8: text i is ``data[starts[i]:starts[i + 1]]``."""

    data: bytes
    starts: I64

    def __len__(self) -> int:
        """Texts."""
        return len(self.starts) - 1

    def text(self, row: int) -> str:
        """One of them."""
        return self.data[self.starts[row] : self.starts[row + 1]].decode()

    @classmethod
    def of(cls, texts: list[str]) -> Texts:
        """Join some texts; lone surrogates, which JSON can spell, become question marks."""
        parts = [text.encode("utf-8", "replace") for text in texts]
        starts = np.zeros(len(parts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=starts[1:])
        return cls(data=b"".join(parts), starts=starts)


class PostBatch(Struct, frozen=True, kw_only=True, eq=False):
    """n posts, in the order of their lines.

    ids (n,) u32 · ``columns`` has every name of COLUMNS, (n,) or (n, width) · ``extensions`` what
    codes of `file_ext` stand for, "" among them if one is not stated · ``sources`` n texts.

    Tags: ``tag_names`` are the t different ones of this batch, ``tag_categories`` (t,) u8; post i
    has the next ``tag_counts[i]`` (n,) u32 of ``tag_codes`` (m,) u32, indices into ``tag_names``,
    each once.  Pools, where rows name them: pairs ``pool_posts`` (p,) u32 rows of this batch,
    ``pool_ids`` (p,) u32, ``pool_series`` (p,) bool, false for a collection.

    ``line_starts`` and ``line_lengths`` (n,) i64: where each post's line lies in the block of
    lines that the batch was made from, without its line feed.
    """

    ids: U32
    columns: Mapping[str, Column]
    extensions: tuple[str, ...]
    sources: Texts
    tag_names: tuple[str, ...]
    tag_categories: U8
    tag_counts: U32
    tag_codes: U32
    pool_posts: U32
    pool_ids: U32
    pool_series: npt.NDArray[np.bool_]
    line_starts: I64
    line_lengths: I64

    def __len__(self) -> int:
        """Posts."""
        return len(self.ids)
