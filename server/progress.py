"""How far a publish is: JSON events for scripts, a moving line for people at a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from manifests.units import format_count, format_duration, format_size

if TYPE_CHECKING:
    from rich.live import Live

    from syncclient.output import Output

_INTERVAL_S: Final = 0.5
# Before this much time has passed, a rate says nothing about the rest.
_ETA_AFTER_S: Final = 2.0


class Progress:
    """What is shown while work is done; phases follow one another."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._shows = sys.stderr.isatty() and not out.json and out.verbosity >= 0
        self._live: Live | None = None
        self._shown_at = 0.0
        self.begin("scan")

    def __enter__(self) -> Self:
        if self._shows:
            from rich.live import Live  # noqa: PLC0415 (0.1 s that others need not spend)

            self._live = Live(console=self._out.console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(
        self, phase: str, total: int = 0, bytes_total: int = 0, *, what: str = "files"
    ) -> None:
        """A new phase, which counts files or ``what`` else; totals are 0 where nobody knows."""
        self._phase, self._what = phase, what
        self._done, self._total = 0, total
        self._bytes, self._bytes_total = 0, bytes_total
        self._began_at = time.monotonic()

    def advance(self, files: int, size_bytes: int = 0) -> None:
        """So many files and bytes more are done."""
        self._done += files
        self._bytes += size_bytes
        now = time.monotonic()
        if now - self._shown_at >= _INTERVAL_S:
            self._shown_at = now
            self._show(now - self._began_at)

    def _show(self, elapsed_s: float) -> None:
        self._out.event(
            "progress",
            phase=self._phase,
            what=self._what,
            done=self._done,
            total=self._total or None,
            bytes=self._bytes,
            bytes_total=self._bytes_total or None,
            seconds=round(elapsed_s, 1),
        )
        if self._live is not None:
            self._live.update(self._line(elapsed_s), refresh=True)

    def _line(self, elapsed_s: float) -> str:
        total = f" of {format_count(self._total)}" if self._total else ""
        parts = [f"{self._phase}: {format_count(self._done)}{total} {self._what}"]
        if self._bytes:
            parts.append(format_size(self._bytes))
        if elapsed_s > 0:
            parts.append(f"{format_count(round(self._done / elapsed_s))} {self._what}/s")
        share = self._share()
        if share and elapsed_s > _ETA_AFTER_S:
            left_s = elapsed_s * (1 - share) / share
            parts.append(f"about {format_duration(left_s)} left")
        return " · ".join(parts)

    def _share(self) -> float:
        """What part of the phase is done, by files and bytes alike; 0 if nobody knows."""
        if not self._total:
            return 0.0
        by_count = self._done / self._total
        by_bytes = self._bytes / self._bytes_total if self._bytes_total else by_count
        return min(1.0, (by_count + by_bytes) / 2)
