"""Command lines of the programs that we are measured beside, as their users would write them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contest import Contestant
from tests.bench.measure import Measured, MeasureError, Meter
from tests.bench.servers import Server
from tests.bench.world import Arena
from tests.support.commands import argv
from tests.support.needs import find_program

# Program and Debian package; `make bench` installs them (tests/bootstrap/bench-packages.txt).
PROGRAMS = ("rsync", "rclone", "aria2c", "curl", "wget2", "b3sum", "nginx", "qbittorrent-nox")
_AT_ONCE = 32
TREE = "tree"
# No program that anybody would use: what bounds ours.
BARE = "bare loop"
# Text that stands in a list of what is to be fetched, for one path.
Line = Callable[[str, str], str]


def installed() -> list[str]:
    """The programs that are here."""
    return [name for name in PROGRAMS if find_program(name)]


def ours(*words: object) -> list[str]:
    """A command line of the client."""
    return argv("bucketsync", words[0], "--json", *words[1:])


def bare(*words: object) -> list[str]:
    """A command line of :mod:`tests.bench.bare`."""
    return [sys.executable, "-m", "tests.bench.bare", *map(str, words)]


def _curl_line(url: str, path: str) -> str:
    return f'url="{url}/{path}"\noutput="{path}"\n'


def _aria2_line(url: str, path: str) -> str:
    return f"{url}/{path}\n  out={path}\n"


def _path_line(_: str, path: str) -> str:
    return f"{path}\n"


def _plain_line(url: str, path: str) -> str:
    return f"{url}/{path}\n"


@dataclass(frozen=True, slots=True)
class Fetching:
    """Fetches some paths of a release, or all of it, with every peer."""

    arena: Arena
    release: str
    paths: Sequence[str]
    whole: bool

    def contestants(self, names: Iterable[str]) -> list[Contestant]:
        """Those of the named programs that can do it."""
        known = {"rsync": self.rsync, "curl": self.curl, "wget2": self.wget2}
        known |= {"rclone": self.rclone, "aria2c": self.aria2}
        return [one for name in names if name in known for one in known[name]()]

    def rsync(self) -> list[Contestant]:
        """Its default, and its fastest."""
        server = self.arena.rsync()
        words = [] if self.whole else [f"--files-from={self._list('rsync', _path_line)}"]
        fast = [] if self.whole else ["--no-implied-dirs"]

        def command(*flags: str) -> Callable[[Path], list[str]]:
            return lambda place: [
                "rsync",
                *flags,
                *words,
                f"{server.url}/{self.release}/",
                f"{place / TREE}/",
            ]

        return [
            self._contestant("rsync -a", command("-a"), server),
            self._contestant("rsync -aW --inplace", command("-aW", "--inplace", *fast), server),
        ]

    def curl(self) -> list[Contestant]:
        """All transfers of one process."""
        config = self._list("curl", _curl_line)
        words = ["curl", "-s", "-Z", "--parallel-max", str(_AT_ONCE), "--create-dirs"]
        return [
            self._http("curl -Z", lambda to: [*words, "--output-dir", str(to), "-K", str(config)])
        ]

    def wget2(self) -> list[Contestant]:
        """Threads of one process."""
        urls = self._list("wget2", _plain_line)
        words = ["wget2", "-q", "-x", "-nH", "--cut-dirs=1", f"--max-threads={_AT_ONCE}"]
        return [self._http("wget2", lambda to: [*words, "-P", str(to), "-i", str(urls)])]

    def aria2(self) -> list[Contestant]:
        """As many downloads at once, without reserving room for files this small."""
        urls = self._list("aria2c", _aria2_line)
        words = ["aria2c", "-q", "-j", str(_AT_ONCE), "--file-allocation=none"]
        return [self._http("aria2c", lambda to: [*words, "-d", str(to), "-i", str(urls)])]

    def rclone(self) -> list[Contestant]:
        """From a web server's lists of its folders."""
        url = f"{self.arena.listed().url}/{self.release}/"
        words = [
            "rclone",
            "copy",
            "--config=",
            f"--transfers={_AT_ONCE}",
            f"--checkers={_AT_ONCE}",
        ]
        if not self.whole:
            chosen = self._list("rclone", _path_line)
            words += ["--no-traverse", f"--files-from={chosen}"]
        return [self._http("rclone", lambda to: [*words, "--http-url", url, ":http:", str(to)])]

    def _http(self, name: str, command: Callable[[Path], list[str]]) -> Contestant:
        return self._contestant(name, lambda place: command(place / TREE), self.arena.listed())

    def _contestant(
        self, name: str, command: Callable[[Path], list[str]], server: Server
    ) -> Contestant:
        def run(place: Path, meter: Meter) -> Measured:
            return meter.command(command(place), server=server)

        return Contestant(name=name, run=run, check=self._check)

    def _check(self, place: Path) -> None:
        check_tree(place / TREE, len(self.paths))

    def _list(self, name: str, line: Line) -> Path:
        url = f"{self.arena.listed().url}/{self.release}"
        text = "".join(line(url, path) for path in self.paths)
        return self.arena.written(f"{name}-{self.release}-{len(self.paths)}.list", text)


def check_tree(tree: Path, files: int) -> None:
    """MeasureError unless a tree has so many files of entries."""
    found = sum(1 for path in (tree / "original").rglob("*") if path.is_file())
    if found != files:
        raise MeasureError(f"{tree} has {found} files, expected {files}")
