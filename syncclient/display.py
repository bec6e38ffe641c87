"""The one place that draws progress: bars on a terminal, JSON lines for scripts.

The estimate of the time left is honest: it comes from the rate of the last half minute, in bytes
where the phase counts bytes, and is left out until three seconds have been measured.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from manifests.units import format_count, format_duration, format_size
from syncclient.events import Event, Notice, Phase, Progress
from syncclient.output import Output

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

_WINDOW_S = 30.0
_MEASURED_S = 3.0
_REPORT_S = 0.5
_TITLES = {
    "trust": "Signatures",
    "manifests": "Manifests",
    "metadata": "Metadata",
    "scan": "Looking at the tree",
    "transfer": "Fetching",
    "verify": "Verifying",
    "remove": "Putting aside",
}


class Meter:
    """Rates of one phase over a sliding window; times in seconds of any monotonic clock."""

    def __init__(self, phase: Phase, now_s: float) -> None:
        self.phase = phase
        self.progress = Progress()
        self._started_s = now_s
        self._samples: deque[tuple[float, Progress]] = deque([(now_s, self.progress)])

    def update(self, progress: Progress, now_s: float) -> None:
        """Take the newest counters."""
        self.progress = progress
        if now_s - self._samples[-1][0] >= _REPORT_S:
            self._samples.append((now_s, progress))
        while len(self._samples) > 2 and now_s - self._samples[1][0] > _WINDOW_S:  # noqa: PLR2004
            self._samples.popleft()

    def rates(self, now_s: float) -> tuple[float, float]:
        """Files and bytes a second over the window."""
        then_s, then = self._samples[0]
        span_s = max(now_s - then_s, 1e-9)
        progress = self.progress
        return (progress.files - then.files) / span_s, (progress.bytes - then.bytes) / span_s

    def left_s(self, now_s: float) -> float | None:
        """Seconds left at the present rate; None while that is not known."""
        files_s, bytes_s = self.rates(now_s)
        if now_s - self._started_s < _MEASURED_S:
            return None
        if self.phase.total_bytes and bytes_s > 0:
            return (self.phase.total_bytes - self.progress.bytes) / bytes_s
        if self.phase.total_files and files_s > 0:
            return (self.phase.total_files - self.progress.files) / files_s
        return None

    def fraction(self) -> float:
        """How much is done, 0 to 1, by bytes where they are counted."""
        done, total = self.progress.bytes, self.phase.total_bytes
        if not total:
            done, total = self.progress.files, self.phase.total_files
        return min(done / total, 1.0) if total else 0.0

    def line(self, now_s: float) -> str:
        """Counters, rates and time left as text."""
        files_s, bytes_s = self.rates(now_s)
        parts = []
        if self.phase.total_files or self.progress.files:
            total = f" of {format_count(self.phase.total_files)}" if self.phase.total_files else ""
            parts.append(f"{format_count(self.progress.files)}{total} files")
        if self.progress.bytes or self.phase.total_bytes:
            total = f" of {format_size(self.phase.total_bytes)}" if self.phase.total_bytes else ""
            parts.append(f"{format_size(self.progress.bytes)}{total}")
            parts.append(f"{format_size(bytes_s)}/s")
        if self.progress.files:
            parts.append(f"{files_s:,.0f} files/s")
        left_s = self.left_s(now_s)
        if left_s is not None:
            parts.append(f"{format_duration(left_s)} left")
        return " · ".join(parts)


def drawn(meter: Meter, now_s: float) -> Table:
    """Title, bar and line, as rows: a bar by itself does not end its line.

    What is taken away again is as many lines as were counted, so each must be one.
    """
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = Table.grid()
    rows.add_row(Text(_TITLES.get(meter.phase.name, meter.phase.name), style="bold cyan"))
    rows.add_row(ProgressBar(total=1.0, completed=meter.fraction(), width=60))
    rows.add_row(Text(meter.line(now_s)))
    return rows


class Display:
    """Shows events of one run through an :class:`Output`; a listener of the driver."""

    def __init__(self, out: Output, *, terminal: bool) -> None:
        self._out = out
        self._terminal = terminal and not out.json and out.verbosity >= 0
        self._meter: Meter | None = None
        self._live: Live | None = None
        self._reported_s = 0.0

    def __call__(self, event: Event) -> None:
        """Take one event."""
        now_s = time.monotonic()
        match event:
            case Phase():
                self._finish(now_s)
                self._meter = Meter(event, now_s)
                self._out.event(
                    "phase", phase=event.name, files=event.total_files, bytes=event.total_bytes
                )
            case Progress() if self._meter is not None:
                self._meter.update(event, now_s)
                self._report(now_s)
            case Notice(warning=True):
                self._out.warn(event.text)
            case Notice():
                self._out.event("notice", message=event.text)
                self._out.say(event.text)
            case _:
                pass

    def close(self) -> None:
        """Take the bars away and leave the last line of each phase."""
        self._finish(time.monotonic())

    def _report(self, now_s: float) -> None:
        if now_s - self._reported_s < _REPORT_S or self._meter is None:
            return
        self._reported_s = now_s
        meter = self._meter
        self._out.event("progress", files=meter.progress.files, bytes=meter.progress.bytes)
        if self._terminal:
            self._draw(meter, now_s)

    def _draw(self, meter: Meter, now_s: float) -> None:
        from rich.live import Live  # noqa: PLC0415 (only where there is a terminal)

        if self._live is None:
            self._live = Live(console=self._out.console, transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(drawn(meter, now_s), refresh=True)

    def _finish(self, now_s: float) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._meter is not None and (self._meter.progress.files or self._meter.progress.bytes):
            title = _TITLES.get(self._meter.phase.name, self._meter.phase.name)
            self._out.detail(f"{title}: {self._meter.line(now_s)}")
        self._meter = None
