"""A far network: files of 100 KB through a line with delay and a limited rate, beside rsync.

The kernel's own emulator is rarely there, so a proxy delays (:mod:`tests.bench.proxy`).  Beside
seconds it counts request rounds until the first file is complete: what the line cannot make up
for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.contest import Contest, Contestant, Faster, Figure
from tests.bench.measure import Measured, Meter
from tests.bench.peers import TREE, check_tree, ours
from tests.bench.servers import Server
from tests.bench.world import Arena, World

FILE_BYTES = 100_000
RATE = 25e6
_RTTS_S = (0.02, 0.1)
_ROUNDS = 12
_OWN_S = 0.6
_SHARE = 0.9
_PART = 2 / 3
_POLL_S = 0.002
# Bytes that come on a line that is busy nearly all the time it is asked to be.
_PROOF_BYTES = 2**27


@dataclass(kw_only=True)
class FarLine:
    """A proxy that runs: where it listens, and what it has logged."""

    port: int
    log: Path

    def events(self) -> list[dict[str, Any]]:
        """What passed so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@contextmanager
def far_line(port: int, log: Path, *, rtt_s: float, rate: float = RATE) -> Iterator[FarLine]:
    """A far network in front of a port of this machine, in a process of its own."""
    words = [sys.executable, "-m", "tests.bench.proxy", str(port)]
    words += ["--rtt", str(rtt_s), "--rate", str(rate), "--log", str(log)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield FarLine(port=json.loads(process.stdout.readline())["port"], log=log)
        finally:
            process.terminate()


class FirstFile:
    """Watches a tree for the first file under its final name."""

    def __init__(self, tree: Path) -> None:
        self.seen_s: float | None = None
        self._variant = tree / "original"
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look every few milliseconds until there is one or the context ends."""
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while self.seen_s is None:
            if any(path.name[0] != "." for path in self._variant.glob("*/*")):
                self.seen_s = time.monotonic()
            elif self._ended.wait(_POLL_S):
                return


def far(world: World) -> Iterator[Contest]:
    """All files, and a part by a list, at two distances."""
    arena = world.far()
    dataset = arena.dataset
    everything = dataset.shape.files
    ids = dataset.some_ids(round(everything * _PART))
    listed = arena.written("ids.list", "".join(f"{one}\n" for one in ids))
    paths = arena.written("paths.list", "".join(f"{dataset.path(one)}\n" for one in ids))
    for rtt_s in _RTTS_S:
        place = f"{1000 * rtt_s:.0f} ms"
        yield _contest(world, arena, rtt_s, f"full, {place}", everything, [], [])
        flags = (["--ids", str(listed)], [f"--files-from={paths}"])
        yield _contest(world, arena, rtt_s, f"subset, {place}", len(ids), *flags)


def _contest(  # noqa: PLR0913 (the parts of a contest)
    world: World,
    arena: Arena,
    rtt_s: float,
    title: str,
    files: int,
    our_flags: list[str],
    rsync_flags: list[str],
) -> Contest:
    def clone(port: int, tree: Path) -> list[str]:
        url = f"http://127.0.0.1:{port}"
        return ours("clone", url, tree, "--release", "y1", *our_flags)

    def rsync(port: int, tree: Path) -> list[str]:
        return ["rsync", "-a", *rsync_flags, f"rsync://127.0.0.1:{port}/y1/", f"{tree}/"]

    def contestant(
        name: str, server: Server, command: Callable[[int, Path], list[str]]
    ) -> Contestant:
        return Contestant(
            name=name,
            run=lambda place, meter: _far_run(place, meter, server, rtt_s, files, command),
            check=lambda place: check_tree(place / TREE, files),
        )

    contestants = [contestant("ours", arena.ours(), clone)]
    if world.has("rsync"):
        contestants.append(contestant("rsync -a", arena.rsync(), rsync))
    slug = title.replace(", ", "-").replace(" ", "")
    return Contest(
        name=f"far-{slug}",
        title=f"Over 200 Mbit/s: {title}",
        contestants=contestants,
        disks=arena.disks(),
        files=files,
        size_bytes=files * FILE_BYTES,
        claims=[
            Figure(
                one="ours",
                fact="line_share",
                label="ours, share of the line",
                required=_SHARE,
                at_most=False,
            ),
            Figure(one="rsync -a", fact="line_share", label="rsync -a, share of the line"),
            Figure(
                one="ours", fact="rounds", label="ours, rounds to the first file", required=_ROUNDS
            ),
            Figure(
                one="ours",
                fact="first_file_s",
                label="ours, seconds to the first file",
                unit="s",
                required=_ROUNDS * rtt_s + _OWN_S,
            ),
            Figure(
                one="rsync -a",
                fact="first_file_s",
                label="rsync -a, seconds to the first file",
                unit="s",
            ),
            Faster(one="ours", other="rsync -a"),
        ],
    )


def _far_run(  # noqa: PLR0913 (a run over a line)
    place: Path,
    meter: Meter,
    server: Server,
    rtt_s: float,
    files: int,
    command: Callable[[int, Path], list[str]],
) -> Measured:
    first = FirstFile(place / TREE)
    with far_line(server.port, place / "proxy.log", rtt_s=rtt_s) as line:
        with first.watching():
            began_s = time.monotonic()
            measured = meter.command(command(line.port, place / TREE), server=server)
        events = line.events()
    seen_s = first.seen_s or time.monotonic()
    facts = {
        **measured.facts,
        "line_share": files * FILE_BYTES / measured.wall_s / RATE,
        "first_file_s": seen_s - began_s,
        "rounds": sum(one["what"] == "round" for one in events if one["at"] <= seen_s),
    }
    return replace(measured, facts=facts)


def prove(folder: Path) -> Iterator[str]:
    """Hold the proxy to what it says it models, with curl: ``python -m tests.bench.jobs.far``."""
    from tests.bench.servers import listed_nginx  # noqa: PLC0415 (only for this)

    (folder / "large").write_bytes(bytes(_PROOF_BYTES))
    (folder / "small").write_bytes(b"small")
    timing = "%{time_connect} %{time_starttransfer} %{time_total}"
    with listed_nginx(folder) as server:
        for rtt_s in _RTTS_S:
            with far_line(server.port, folder / "log", rtt_s=rtt_s) as line:
                for name, size in (("small", 5), ("large", _PROOF_BYTES)):
                    url = f"http://127.0.0.1:{line.port}/{name}"
                    words = ["curl", "-s", "-o", "/dev/null", "-w", timing, url]
                    done = subprocess.run(words, check=True, capture_output=True, text=True)
                    *_, first_s, total_s = map(float, done.stdout.split())
                    share = size / (total_s - first_s) / RATE if size > 2**20 else 0
                    yield (
                        f"{rtt_s} s, {name}: first byte after {first_s:.4f} s (2 round trips are"
                        f" {2 * rtt_s}), all after {total_s:.4f} s, {share:.4f} of the line"
                        f" from then on, {size / total_s / RATE:.4f} in all"
                    )


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        for text in prove(Path(name)):
            print(text)
