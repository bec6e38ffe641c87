"""``sample``: an illustrated dataset of some years, for trying everything out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.errors import ConfigError, ExitCode
from manifests.units import format_count, format_duration, format_size
from server.sample.years import SampleSettings

if TYPE_CHECKING:
    from server.sample.series import Release
    from syncclient.output import Output


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb and its arguments."""
    parser = verbs.add_parser(
        "sample",
        help="draw a sample dataset of several years",
        description="Draw DEST/2019, DEST/2020 and so on: each a whole tree with original/, "
        "512px/ and metadata/, ready to be published as one release.",
    )
    parser.add_argument("dest", type=Path, metavar="DEST", help="a folder, new or empty")
    for name, metavar, text in (
        ("releases", "N", "how many years, from 2019 on; default 3"),
        ("posts", "M", "posts in the first year, each later one adds a quarter; default 1000"),
        ("seed", "S", "the same number always gives the same files; default 1"),
        ("buckets", "B", "folders that a variant is spread over; default 1000"),
    ):
        default = getattr(SampleSettings(), name)
        parser.add_argument(f"--{name}", type=int, default=default, metavar=metavar, help=text)
    parser.add_argument(
        "--blemishes",
        action="store_true",
        help="spoil some files of the newest year, for trying the audit",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Make the series and report on each year; ConfigError if DEST is not empty."""
    settings = SampleSettings(
        releases=args.releases,
        posts=args.posts,
        seed=args.seed,
        buckets=args.buckets,
        blemishes=args.blemishes,
    )
    start = time.monotonic()
    made = _make(args.dest, settings, out)
    seconds = time.monotonic() - start
    _show(made, out)
    out.say(f"{args.dest} is ready after {format_duration(seconds)}.")
    out.summary(
        releases=len(made),
        posts=made[-1].posts,
        files=sum(release.files for release in made),
        bytes=sum(release.size_bytes for release in made),
        seconds=round(seconds, 3),
    )
    return ExitCode.COMPLETE


def _make(dest: Path, settings: SampleSettings, out: Output) -> list[Release]:
    try:
        from server.sample.series import make_series  # noqa: PLC0415 (Pillow is an extra)
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        raise ConfigError(
            "sample draws with Pillow, which is not installed",
            hint="pip install 'bucketsync[sample]'",
        ) from error
    made = []
    for release in make_series(dest, settings):
        out.event(
            "release",
            release=release.name,
            tree=str(release.tree),
            posts=release.posts,
            added=release.added,
            changed=release.changed,
            removed=release.removed,
            files=release.files,
            bytes=release.size_bytes,
        )
        made.append(release)
    return made


def _show(made: list[Release], out: Output) -> None:
    columns = ("release", "posts", "new", "changed", "removed", "files", "size")
    rows = [
        (
            release.name,
            *map(
                format_count,
                (release.posts, release.added, release.changed, release.removed, release.files),
            ),
            format_size(release.size_bytes),
        )
        for release in made
    ]
    out.table("Sample dataset", columns, rows)
    faults = [fault for release in made for fault in release.blemishes]
    if faults:
        out.table("Blemishes", ("fault", "file"), [(fault.kind, fault.path) for fault in faults])
    for fault in faults:
        out.event("blemish", kind=fault.kind, path=fault.path)
