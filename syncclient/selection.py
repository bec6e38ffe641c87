"""What a user wants of a release: variants, buckets, ids.  Pure; kept with the tree."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from manifests.errors import ConfigError
from manifests.paths import MAX_ID

if TYPE_CHECKING:
    from manifests.columns import U32, Bools

_LONGEST = len(str(MAX_ID))
_NUMBER = re.compile(rf"[0-9]{{1,{_LONGEST}}}")
_DIGITS = re.compile(r"[0-9\s]*")


class Selection(Struct, frozen=True, kw_only=True, eq=False):
    """What is wanted; ``None`` stands for "all".

    ``buckets`` is (first, last), both included; ``ids`` are ascending and unique.  ``query`` is in
    Danbooru's language, "" for none, and ``seed`` decides what it draws at random; the ids it
    stands for in a release are found by :mod:`syncclient.searching`, which gives a selection
    without a query.
    """

    variants: tuple[str, ...] | None = None
    buckets: tuple[int, int] | None = None
    ids: U32 | None = None
    query: str = ""
    seed: str = ""
    # Whether the rows of metadata of these posts come too.
    metadata: bool = False

    @property
    def whole(self) -> bool:
        """Whether the variants are wanted whole; then the release's assets come too."""
        return self.buckets is None and self.ids is None and not self.query

    def variants_of(self, available: Sequence[str]) -> tuple[str, ...]:
        """The wanted variants; ConfigError for one that the release does not have."""
        if self.variants is None:
            return tuple(available)
        for name in self.variants:
            if name not in available:
                message = f"the release has no variant {name!r}, but {', '.join(available)}"
                raise ConfigError(message)
        return self.variants

    def bucket_numbers(self, buckets: int) -> list[int]:
        """The buckets that can hold a wanted entry, ascending."""
        first, last = self.buckets or (0, buckets - 1)
        if last >= buckets:
            message = f"bucket {last} does not exist: the dataset has {buckets}, from 0"
            raise ConfigError(message)
        if self.ids is None:
            return list(range(first, last + 1))
        from manifests.columns import distinct  # noqa: PLC0415 (see wants_ids)

        numbers = distinct(self.ids % self.ids.dtype.type(buckets))
        return [number for number in numbers.tolist() if first <= number <= last]

    def wants_ids(self, ids: U32) -> Bools | None:
        """Which of ``ids`` are wanted, or None for all of them."""
        if self.ids is None:
            return None
        # Numpy takes 0.1 s that only a selection by ids needs.
        from manifests.columns import among  # noqa: PLC0415

        return among(ids, self.ids)

    def describe(self) -> str:
        """One line for people."""
        parts = [f"variants {', '.join(self.variants)}" if self.variants else "all variants"]
        if self.buckets:
            parts.append(f"buckets {self.buckets[0]} to {self.buckets[1]}")
        if self.ids is not None:
            parts.append(f"{len(self.ids):,} ids")
        if self.query:
            parts.append(f"query {self.query!r}")
        if self.metadata:
            parts.append("with metadata")
        return ", ".join(parts)


def parse_buckets(text: str) -> tuple[int, int]:
    """``0..99`` or ``7`` as (first, last); ConfigError for anything else."""
    first, dots, last = text.partition("..")
    last = last if dots else first
    if not (_NUMBER.fullmatch(first) and _NUMBER.fullmatch(last)) or int(first) > int(last):
        message = f"{text!r} is not a range of buckets"
        raise ConfigError(message, hint="Write one bucket, 7, or a range, 0..99.")
    return int(first), int(last)


def parse_ids(text: str, source: str) -> U32:
    """Ids separated by white space or commas, ``#`` begins a comment; ascending and unique.

    Also reads lists of paths, as rsync's ``--files-from`` takes them (``original/0999/1999.png``).
    """
    found = _plain(text) or _written(text, source)
    import numpy as np  # noqa: PLC0415 (see wants_ids)

    from manifests.columns import distinct  # noqa: PLC0415

    return distinct(np.array(found, np.uint32))


def _plain(text: str) -> list[int]:
    """Ids and nothing else, as a tree keeps them: a tenth of the time.  Empty if there is more."""
    words = text.split() if _DIGITS.fullmatch(text) else []
    if max(map(len, words), default=0) > _LONGEST:
        return []
    found = list(map(int, words))
    return found if min(found, default=0) >= 1 and max(found) <= MAX_ID else []


def _written(text: str, source: str) -> list[int]:
    found: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            stem = word.rpartition("/")[2].partition(".")[0]
            if _NUMBER.fullmatch(stem) is None or not 1 <= int(stem) <= MAX_ID:
                message = f"{source}:{number}: {word[:80]!r} is not an id"
                raise ConfigError(message, hint="One id or path a line; '#' begins a comment.")
            found.append(int(stem))
    return found
