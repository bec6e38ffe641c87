"""Progress as values: what the driver reports, and any display or log may show.

Counters are absolute, so that a display which misses some events is still right.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct


class Phase(Struct, frozen=True, kw_only=True):
    """A phase began: ``trust``, ``manifests``, ``scan``, ``transfer``, ``verify`` or ``remove``.

    ``total_files`` and ``total_bytes`` are what it will work through; 0 where that is unknown.
    """

    name: str
    total_files: int = 0
    total_bytes: int = 0


class Progress(Struct, frozen=True, kw_only=True):
    """How far the present phase is."""

    files: int = 0
    bytes: int = 0


class Notice(Struct, frozen=True, kw_only=True):
    """A sentence for the user; a warning says that something is not as it should be."""

    text: str
    warning: bool = False


Event = Phase | Progress | Notice
Listener = Callable[[Event], None]
