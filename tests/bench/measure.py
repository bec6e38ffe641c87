"""What one run costs: wall time, processor time on both sides, memory.

Memory is sampled in warm-up runs only, whose times do not count: the kernel walks page tables for
each sample, and that would be charged to whoever has more of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_S = 0.05
_SETTLE_S = 1.0


class MeasureError(Exception):
    """A run failed, so that its time means nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One run; ``facts`` are figures of its own, such as the requests of a client."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float = 0.0
    peak_bytes: int = 0
    server_peak_bytes: int = 0
    facts: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The figures by name."""
        return asdict(self)


# ------------------------------------------------------------------------------------ processes


def family(pid: int) -> list[int]:
    """A process and all below it."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [
            int(word) for path in threads for word in (path / "children").read_text().split()
        ]
    except OSError:
        return []
    return [pid, *(below for child in children for below in family(child))]


def resident_bytes(pid: int) -> int:
    """Memory of a process and all below it; what they share counts once (Pss)."""
    return sum(map(_proportional_bytes, family(pid)))


def _proportional_bytes(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), "Pss: 0")
    return int(line.split()[1]) * 1024


def processor_s(pid: int) -> float:
    """Processor seconds of a process, of all below it, and of those that have ended."""
    return sum(map(_own_processor_s, family(pid)))


def _own_processor_s(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    return sum(map(int, text.rpartition(")")[2].split()[11:15])) / _TICKS


class Watched(Protocol):
    """A server whose share of the work is counted."""

    @property
    def pid(self) -> int:
        """Its first process."""


# --------------------------------------------------------------------------------------- meters


class Peak:
    """The most memory that some processes held together, as far as samples show."""

    def __init__(self) -> None:
        self.bytes = 0
        self._ended = threading.Event()

    @contextmanager
    def watching(self, pid: int) -> Iterator[None]:
        """Sample until the end of the context."""
        thread = threading.Thread(target=self._sample, args=(pid,))
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _sample(self, pid: int) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self.bytes = max(self.bytes, resident_bytes(pid))


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """Measures one run; ``warming`` ones sample memory, one over ``limit_s`` is ended."""

    warming: bool
    limit_s: float = 900.0

    def command(
        self,
        words: Sequence[str | Path],
        *,
        server: Watched | None = None,
        stdin: Path | None = None,
        statuses: Sequence[int] = (0,),
    ) -> Measured:
        """Run a command to its end; the last line of its output, if JSON, becomes facts."""
        before_s = processor_s(server.pid) if server else 0.0
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
            with open(stdin or os.devnull, "rb") as source:  # noqa: PTH123 (a device)
                began_s = time.monotonic()
                process = subprocess.Popen(words, stdin=source, stdout=output, stderr=log)
                client, host = Peak(), Peak()
                end = threading.Timer(self.limit_s, _kill, [process.pid])
                end.start()
                with self._sampling(client, process), self._sampling(host, server):
                    _, status, usage = os.wait4(process.pid, 0)
                    wall_s = time.monotonic() - began_s
                end.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            if wall_s >= self.limit_s:
                message = f"{_shown(words)} did not end in {self.limit_s:g} s"
                raise MeasureError(message)
            if process.returncode not in statuses:
                raise MeasureError(f"{_shown(words)} ended with {process.returncode}: {_end(log)}")
            facts = _facts(_end(output))
        return Measured(
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            server_cpu_s=_settled_s(server) - before_s if server else 0.0,
            peak_bytes=client.bytes,
            server_peak_bytes=host.bytes,
            facts=facts,
        )

    def call(self, work: Callable[[], object], *, pid: int) -> Measured:
        """Measure what a process that runs already does until a call comes back."""
        before_s, peak = processor_s(pid), Peak()
        began_s = time.monotonic()
        with peak.watching(pid) if self.warming else _nothing():
            work()
            wall_s = time.monotonic() - began_s
        return Measured(wall_s=wall_s, cpu_s=processor_s(pid) - before_s, peak_bytes=peak.bytes)

    @contextmanager
    def _sampling(self, peak: Peak, process: Watched | None) -> Iterator[None]:
        if process is None or not self.warming:
            yield
            return
        with peak.watching(process.pid):
            yield


def _kill(pid: int) -> None:
    for each in family(pid):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _settled_s(server: Watched) -> float:
    """Processor seconds of a server once the children that it forked for a client are gone."""
    deadline_s = time.monotonic() + _SETTLE_S
    now_s = processor_s(server.pid)
    while time.monotonic() < deadline_s:
        time.sleep(_SAMPLE_S)
        before_s, now_s = now_s, processor_s(server.pid)
        if now_s == before_s:
            break
    return now_s


def _facts(line: str) -> dict[str, float]:
    try:
        summary = json.loads(line.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    if not isinstance(summary, dict):
        return {}
    return {name: value for name, value in summary.items() if type(value) in {int, float}}


def _end(file: Any) -> str:  # noqa: ANN401 (a temporary file has no type of its own)
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
    return bytes(file.read()).decode(errors="replace")


def _shown(words: Sequence[str | Path]) -> str:
    return " ".join(str(word) for word in words[:12])
