"""What a look found of the files of metadata; :mod:`syncclient.rowfiles` looks and makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from syncclient.files import FileStat

if TYPE_CHECKING:
    from syncclient.rowfiles import RowFile


class RowSurvey(Struct, kw_only=True):
    """What is right and what to make, as of assets."""

    kept: list[RowFile] = field(default_factory=list)
    added: list[RowFile] = field(default_factory=list)
    changed: list[tuple[RowFile, FileStat]] = field(default_factory=list)
    foreign: list[RowFile] = field(default_factory=list)

    @property
    def make(self) -> list[tuple[RowFile, FileStat | None]]:
        """Files to be made, and what each may replace."""
        return [*((file, None) for file in [*self.added, *self.foreign]), *self.changed]

    @property
    def text_bytes(self) -> int:
        """About how long they will be."""
        return sum(file.text_bytes for file, _ in self.make)

    @property
    def fetch_bytes(self) -> int:
        """About what is to be fetched for them."""
        return sum(file.fetch_bytes for file, _ in self.make)
