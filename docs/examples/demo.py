"""The whole job in one go, on a sample dataset drawn on the spot: what ``make demo`` runs.

It uses the two commands as a user would: a publisher makes three yearly releases and serves them;
a stranger clones the first, upgrades to the third, damages a file, repairs it, and checks out the
first again.  Every tree is compared with the publisher's, file by file.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from manifests.units import format_count, format_duration, format_size

BIN = Path(sys.executable).parent
PRIVATE = ".bucketsync"


@dataclass(slots=True)
class Demo:
    """Runs commands and keeps a line on each."""

    root: Path
    console: Console
    rows: list[tuple[str, str, int, int, float]] = field(default_factory=list)

    def command(self, *words: str | Path, expect: int = 0) -> dict[str, Any]:
        """Run one command with --json; its summary. Another exit code ends the demo."""
        shown = " ".join(os.fspath(word) for word in words).replace(f"{self.root}/", "")
        self.console.print(f"[dim]$[/dim] [bold]{shown}[/bold]", highlight=False)
        argv = [str(BIN / os.fspath(words[0])), *map(str, words[1:]), "--json"]
        started_s = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != expect:
            sys.exit(f"{shown}: exit code {done.returncode}, expected {expect}\n{done.stderr}")
        summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {"seconds": time.monotonic() - started_s, **summary}

    def note(
        self, step: str, what: str, files: int, size_bytes: int, summary: dict[str, Any]
    ) -> None:
        """Keep a line for the table at the end."""
        self.rows.append((step, what, files, size_bytes, float(summary["seconds"])))

    @contextmanager
    def serving(self, repo: Path) -> Iterator[str]:
        """Serve a repository on loopback; its address."""
        argv = [str(BIN / "bucketsync-server"), "serve", str(repo), "--port", "0", "--json"]
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        try:
            if server.stdout is None:
                sys.exit("the server has no output")
            url: str = json.loads(server.stdout.readline())["url"]
            self.console.print(f"[dim]# serving at {url}[/dim]", highlight=False)
            yield url
        finally:
            server.terminate()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()

    def table(self) -> None:
        """Print what happened."""
        table = Table(title="What happened", title_justify="left")
        for name in ("step", "what"):
            table.add_column(name)
        for name in ("files", "bytes", "time"):
            table.add_column(name, justify="right")
        for step, what, files, size_bytes, seconds in self.rows:
            table.add_row(
                step,
                what,
                format_count(files),
                format_size(size_bytes),
                format_duration(seconds),
            )
        self.console.print(table)


def differences(tree: Path, source: Path) -> list[str]:
    """Paths that are not the same in both, leaving out the client's folder and the metadata."""
    ignored = {PRIVATE, "metadata"}

    def files(top: Path) -> set[str]:
        paths = (path.relative_to(top) for path in top.rglob("*") if path.is_file())
        return {str(path) for path in paths if path.parts[0] not in ignored}

    both = sorted(files(tree) & files(source))
    _, different, broken = filecmp.cmpfiles(tree, source, both, shallow=False)
    return sorted(files(tree) ^ files(source)) + different + broken


def check_same(demo: Demo, tree: Path, source: Path) -> None:
    """End the demo unless a tree is byte for byte the publisher's."""
    if found := differences(tree, source):
        sys.exit(f"{tree} differs from {source}: {found[:5]}")
    demo.console.print(f"[green]same bytes:[/green] {tree.name} and the publisher's {source.name}")


def publish(demo: Demo, posts: int) -> list[Path]:
    """Draw three years, publish each; their source trees."""
    drawn = demo.command(
        "bucketsync-server",
        "sample",
        demo.root / "source",
        "--releases",
        "3",
        "--posts",
        str(posts),
    )
    demo.note("sample", "three years drawn with Pillow", drawn["files"], drawn["bytes"], drawn)
    repo = demo.root / "repo"
    demo.command("bucketsync-server", "init", repo, "--dataset", "sample")
    trees = sorted(path for path in (demo.root / "source").iterdir() if path.is_dir())
    for tree in trees:
        done = demo.command(
            "bucketsync-server", "publish", repo, "--release", f"sample{tree.name}", "--tree", tree
        )
        put = done["files_added"] + done["files_changed"]
        what = f"{tree.name}: {format_count(put)} new or changed, {done['files_removed']} removed"
        demo.note("publish", what, done["files_hashed"], done["bytes_hashed"], done)
    return trees


def fetch(demo: Demo, url: str, trees: list[Path]) -> None:
    """Clone the first year, upgrade to the last, damage, repair, check the first out again."""
    first, last = trees[0], trees[-1]
    tree = demo.root / "tree"
    done = demo.command("bucketsync", "clone", url, tree, "--release", f"sample{first.name}")
    demo.note("clone", first.name, done["files_added"], done["bytes_received"], done)
    check_same(demo, tree, first)

    done = demo.command("bucketsync", "upgrade", tree, "--delete")
    what = f"to {last.name}: {done['files_changed']} changed, {done['files_removed']} removed"
    demo.note("upgrade", what, done["files_added"], done["bytes_received"], done)
    check_same(demo, tree, last)
    done = demo.command("bucketsync", "upgrade", tree)
    demo.note("upgrade", f"again: {done['requests']} requests", 0, done["bytes_received"], done)

    victim = damage(tree)
    demo.console.print(f"[red]one byte of {victim.relative_to(tree)} was changed[/red]")
    done = demo.command("bucketsync", "verify", tree, expect=4)
    what = f"{done['files_damaged']} damaged, exit code 4"
    demo.note("verify", what, done["files_checked"], done["bytes_checked"], done)
    done = demo.command("bucketsync", "verify", tree, "--repair")
    what = f"{done['files_repaired']} repaired"
    demo.note("repair", what, done["files_checked"], done["bytes_received"], done)
    check_same(demo, tree, last)

    past = demo.root / "past"
    done = demo.command("bucketsync", "checkout", f"sample{first.name}", past, "--tree", tree)
    what = f"{first.name}: {done['files_linked']} linked, {done['files_fetched']} fetched"
    demo.note("checkout", what, done["files_added"], done["bytes_received"], done)
    check_same(demo, past, first)


def select(demo: Demo, url: str, trees: list[Path]) -> None:
    """Ask the server for some posts, fetch them alone, and keep it so a year later."""
    query, first, last = "cat rating:s", trees[0], trees[-1]
    # What a search keeps for the next one stays with the demo.
    kept = ("--state-dir", demo.root / "searches")
    done = demo.command("bucketsync", "search", query, "--url", url, "--count", *kept)
    what = f"{query!r}: {done['count']} posts, {done['requests']} requests"
    demo.note("search", what, 0, done["bytes_received"], done)
    tree = demo.root / "cats"
    words = ("--release", f"sample{first.name}", "--select", query)
    done = demo.command("bucketsync", "clone", url, tree, *words)
    demo.note(
        "clone", f"{first.name}, {query!r}", done["files_added"], done["bytes_received"], done
    )
    done = demo.command("bucketsync", "upgrade", tree)
    what = f"to {last.name}, still {query!r}"
    demo.note("upgrade", what, done["files_added"], done["bytes_received"], done)


def damage(tree: Path) -> Path:
    """Flip a byte in the middle of one picture, as a bad disk would: its time stays."""
    victim = max((tree / "original").rglob("*.*"), key=lambda path: (path.stat().st_size, path))
    times = victim.stat()
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(data)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    return victim


def main() -> None:
    """Run the demo in a folder that is made anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dir", type=Path, default=Path(".demo"), help="made anew, kept at the end"
    )
    parser.add_argument("--posts", type=int, default=400, help="posts of the first year")
    args = parser.parse_args()
    root: Path = args.dir.absolute()
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    demo = Demo(root, Console(width=100 if not sys.stdout.isatty() else None))
    trees = publish(demo, args.posts)
    with demo.serving(root / "repo") as url:
        fetch(demo, url, trees)
        select(demo, url, trees)
    demo.table()
    demo.console.print(f"Everything is in {root}: look around, try `bucketsync status`.")


if __name__ == "__main__":
    main()
